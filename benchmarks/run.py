"""Runs parts, keeps what each found, and writes the report."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.bench import Bench
from benchmarks.errors import BenchmarkError
from benchmarks.report import markdown
from benchmarks.results import Results, write_atomically
from benchmarks.settings import Settings
from benchmarks.speed import latency, throughput

Part = Callable[[Bench], dict[str, Any]]
PARTS: dict[str, Part] = {"latency": latency, "throughput": throughput}
"""In the order in which they are run."""


def run(settings: Settings, only: Sequence[str] = (), resume: bool = False) -> Results:
    """Run all parts, or those named, and write results.json after each."""
    unknown = [name for name in only if name not in PARTS]
    if unknown:
        raise BenchmarkError(f"no part {', '.join(unknown)}; there are {', '.join(PARTS)}")
    bench = Bench(settings)
    bench.paths(settings.engines)  # before the first measurement, since converters keep the machine busy
    results = Results.start(settings, resume)
    for name in only or PARTS:
        if results.has(name):
            print(f"{name}: done before", file=sys.stderr)
            continue
        started = time.time()
        results.add(name, PARTS[name](bench), started)
        write_atomically(results.path.with_suffix(".md"), markdown(results.content))
    return results
