"""Where the trainer's time goes, and whether its memory stays flat.

    python -m benchmarks.training.profile RECIPE WORK [--set distill.accumulation=2] [--updates 30] [--memory 2000]

After a warm-up it makes updates as the trainer does and prints target tokens a second (median and quartiles), the share
of each phase, and the operators that take longest, with their rate in products of matrices. ``--memory`` then makes so
many updates and prints the resident memory on the way. Nothing is saved.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Iterator
from typing import Any

import psutil
from tabulate import tabulate
from torch.profiler import ProfilerActivity, profile, record_function

from benchmarks.training.common import Setting, Work, make_parser, tokens_of
from mobilenmt.compression.train.update import Updater

_WARM = 10
_OPERATORS = 20


def update(updater: Updater, batches: Iterator[Work], step: int) -> tuple[int, float]:
    """One update; its target tokens and seconds, the making of its batch included."""
    begin = time.perf_counter()
    with record_function("data"):
        work = next(batches)
    tokens = tokens_of(work)
    updater.update(step, work, tokens, 1e-5).norm()
    return tokens, time.perf_counter() - begin


def operations(name: str, shapes: list[Any]) -> int:
    """Multiplications and additions of a product of matrices, from the shapes of its inputs; 0 for anything else."""
    given = [shape for shape in shapes if shape]
    if name == "aten::mm":
        return int(2 * given[0][0] * given[0][1] * given[1][1])
    if name in ("aten::bmm", "aten::baddbmm"):
        first, second = given[-2:]
        return int(2 * first[0] * first[1] * first[2] * second[2])
    if name == "mkldnn::_linear_pointwise":
        return int(2 * given[0][0] * given[0][1] * given[1][0])
    return 0


def phases(events: Any) -> dict[str, float]:
    """Milliseconds by phase: data, forward (with the loss), backward, optimizer."""
    total: dict[str, float] = {}
    for event in events:
        name = event.key
        if name in ("data", "forward", "optimizer"):
            total[name] = total.get(name, 0.0) + event.cpu_time_total / 1e3
        elif name.startswith("autograd::engine::evaluate_function"):
            total["backward"] = total.get("backward", 0.0) + event.cpu_time_total / 1e3
    return total


def report(updater: Updater, batches: Iterator[Work], updates: int) -> None:
    """Speed, then phases and operators of a few updates under torch's profiler."""
    for step in range(_WARM):
        update(updater, batches, step + 1)
    found = [update(updater, batches, _WARM + step + 1) for step in range(updates)]
    low, middle, high = statistics.quantiles([tokens / seconds for tokens, seconds in found], n=4)
    mean = sum(tokens for tokens, _ in found) / sum(seconds for _, seconds in found)
    print(f"{mean:,.0f} target tokens a second (median {middle:,.0f}, quartiles {low:,.0f} to {high:,.0f})")
    count = max(4, updates // 5)
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as traced:
        for step in range(count):
            update(updater, batches, _WARM + updates + step + 1)
    parts = phases(traced.key_averages())
    print("; ".join(f"{name} {value / count:.1f} ms" for name, value in parts.items()), "an update\n")
    times: dict[str, list[float]] = {}
    for event in traced.key_averages(group_by_input_shape=True):
        row = times.setdefault(event.key, [0.0, 0.0, 0.0])
        row[0] += event.self_cpu_time_total / 1e3
        row[1] += event.count
        row[2] += event.count * operations(event.key, event.input_shapes)
    whole = sum(row[0] for row in times.values())
    rows = [
        (name, f"{row[0] / count:.1f}", f"{row[0] / whole:.1%}", round(row[1] / count), rate(row))
        for name, row in sorted(times.items(), key=lambda item: -item[1][0])[:_OPERATORS]
    ]
    head = ("operator", "ms an update", "share", "calls", "10^9 operations/s")
    print(tabulate(rows, head, tablefmt="github", disable_numparse=True))


def rate(row: list[float]) -> str:
    """Operations a second of a product."""
    return f"{row[2] / row[0] / 1e6:,.0f}" if row[2] else ""


def memory(updater: Updater, batches: Iterator[Work], updates: int) -> None:
    """Resident memory over many updates."""
    process = psutil.Process()
    marks = {max(1, updates * part // 10) for part in range(11)}
    for step in range(1, updates + 1):
        update(updater, batches, step)
        if step in marks:
            print(f"update {step:>6,}: {process.memory_info().rss / 1e9:.2f} GB", flush=True)


def main(arguments: list[str] | None = None) -> int:
    """The command."""
    parser = make_parser("profile", __doc__)
    parser.add_argument("--updates", type=int, default=30)
    parser.add_argument("--memory", type=int, default=0, metavar="UPDATES")
    options = parser.parse_args(arguments)
    setting = Setting.of(options)
    updater, batches = setting.updater(), setting.batches()
    if options.updates:
        report(updater, batches, options.updates)
    if options.memory:
        memory(updater, batches, options.memory)
    return 0


if __name__ == "__main__":
    sys.exit(main())
