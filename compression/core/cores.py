"""Cores of this machine: those this process may use, and those that nothing else uses now."""

from __future__ import annotations

import os

_SECONDS = 0.25  # to look: long enough for the system's clock, which ticks a hundred times a second


def usable_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def free_cores() -> int:
    """Those of them that are idle now, at least one.

    Threads that compute one thing wait for one another many times: two beside one busy core are slower than one.
    """
    import psutil

    idle = sum(1 - busy / 100 for busy in psutil.cpu_percent(_SECONDS, percpu=True))
    return max(1, min(usable_cores(), round(idle)))
