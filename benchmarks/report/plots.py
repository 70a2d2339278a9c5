"""Plots of a results.json: latency by length and words a second by batch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.engines.base import SPECS
from benchmarks.report.stats import summarize
from benchmarks.report.tables import Row, grouped, label, select
from mobilenmt.runtime.atomic import atomic_path

_COLORS = dict(
    zip(
        SPECS,  # one hue for a library, strong for INT8 and pale for fp32
        ("#c1272d", "#f2a0a3", "#1f5fa8", "#8fb8e0", "#2e8b3d", "#9bd0a4", "#8a5a00", "#dcb766", "#555555"),
        strict=True,
    )
)


def plots(content: dict[str, Any], folder: Path) -> list[Path]:
    """Draw what the parts of a run allow; returns the files."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    written = []
    drawers: dict[str, Callable[[Any, Row], None]] = {"latency": _latency, "throughput": _throughput}
    for part, draw in drawers.items():
        if part not in content["parts"]:
            continue
        figure, axes = pyplot.subplots(figsize=(9, 4.5), layout="constrained")
        draw(axes, content["parts"][part])
        if axes.lines:
            written.append(folder / f"{part}.png")
            with atomic_path(written[-1]) as partial:
                figure.savefig(partial, dpi=110)
        pyplot.close(figure)
    return written


def _latency(axes: Any, part: Row) -> None:
    for (engine,), rows in grouped(select(part["rows"], threads=1, beam=1), "engine").items():
        found = [summarize(row["seconds"]) for row in rows]
        lengths, color = [row["length"] for row in rows], _COLORS.get(engine)
        axes.plot(lengths, [1000 * item.median for item in found], "o-", label=label(engine), color=color)
        quartiles = [[1000 * item.q1 for item in found], [1000 * item.q3 for item in found]]
        axes.fill_between(lengths, *quartiles, color=color, alpha=0.2, linewidth=0)
    axes.set(xlabel="source and target tokens", ylabel="ms, median and quartiles", yscale="log")
    _finish_lines(axes, "One sentence, greedy, one thread")


def _throughput(axes: Any, part: Row) -> None:
    styles = {1: "o-", 2: "s--"}
    for (engine, threads), rows in grouped(select(part["rows"], beam=1, forced=False), "engine", "threads").items():
        speeds = [part["words"] / summarize(row["seconds"]).median for row in rows]
        name = f"{label(engine)}, {threads} thread{'s' if threads > 1 else ''}"
        batches = [row["batch"] for row in rows]
        axes.plot(batches, speeds, styles.get(threads, "^:"), label=name, color=_COLORS.get(engine))
        axes.set_xticks(batches, list(map(str, batches)))
    axes.set(xlabel="sentences in a batch", ylabel="source words a second", xscale="log", yscale="log")
    _finish_lines(axes, "A file of sentences, greedy")


def _finish_lines(axes: Any, title: str) -> None:
    axes.set_title(title)
    axes.grid(alpha=0.3, which="both")
    if axes.lines:
        axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
