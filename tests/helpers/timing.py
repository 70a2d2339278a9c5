"""Processor time of a call, as little disturbed as can be."""

from __future__ import annotations

import gc
from collections.abc import Callable
from time import process_time


def cpu_seconds(call: Callable[[], object], tries: int = 1) -> float:
    """The least of some tries, without collections of garbage, which take as long as all that is in memory is large."""
    gc.disable()
    try:
        return min(_once(call) for _ in range(tries))
    finally:
        gc.enable()


def _once(call: Callable[[], object]) -> float:
    start = process_time()
    call()
    return process_time() - start
