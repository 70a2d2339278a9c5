"""Runs parts, keeps what each found, and writes the report."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness.bench import Bench
from benchmarks.harness.errors import BenchmarkError, expect
from benchmarks.harness.results import Results, write
from benchmarks.harness.settings import Settings
from benchmarks.parts.breakdown import breakdown
from benchmarks.parts.core import floor, instructions, kernels
from benchmarks.parts.footprint import cold, size
from benchmarks.parts.memory import memory
from benchmarks.parts.speed import endtoend, latency, throughput
from benchmarks.parts.words import agreement, batch, quality, words
from benchmarks.report import budgets
from benchmarks.report.plots import plots
from benchmarks.report.tables import markdown

Part = Callable[[Bench], dict[str, Any]]
_ALL: tuple[Part, ...] = (size, memory, cold, latency, throughput, endtoend, breakdown, agreement)
PARTS = {part.__name__: part for part in (*_ALL, kernels, floor, instructions, batch, words, quality)}
"""In the order in which they are run."""


def run(settings: Settings, only: Sequence[str] = (), resume: bool = False) -> Results:
    """Run all parts, or those named, and write results.json after each.

    Raises:
        BenchmarkError: a part could not be run; raised at the end, when the others are done.
    """
    unknown = [name for name in only if name not in PARTS]
    expect(not unknown, f"no part {', '.join(unknown)}; there are {', '.join(PARTS)}")
    bench = Bench(settings)
    bench.paths(settings.engines)  # before the first measurement, since converters keep the machine busy
    results = Results.start(settings, resume)
    failed = []
    for name in only or [name for name in PARTS if name != "quality" or settings.dev]:
        if name in results.content["parts"]:
            print(f"{name}: done before", file=sys.stderr)
            continue
        started = time.time()
        try:
            results.add(name, PARTS[name](bench), started)
        except BenchmarkError as error:  # the other parts do not need it
            failed.append(f"{name}: {error}")
    report(results.path, results.content)
    again = f"(the other parts are in {results.path}; --resume tries these again)"
    expect(not failed, f"{'; '.join(failed)} {again}")
    return results


def report(path: Path, content: dict[str, Any]) -> None:
    """Write the tables and plots beside a results.json."""
    write(path.with_suffix(".md"), markdown(content, budgets.one(content["parts"])))
    plots(content, path.parent)
