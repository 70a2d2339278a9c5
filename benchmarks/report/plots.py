"""Plots of a results.json: latency by length and words a second by batch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from benchmarks.engines.base import SPECS
from benchmarks.report.stats import summarize
from benchmarks.report.tables import Row, fill, grouped, select, speeds
from mobilenmt.runtime.atomic import atomic_path

# One hue for a library, strong for INT8 and pale for fp32.
_COLORS = "#d62728 #c1272d #f2a0a3 #1f5fa8 #4f86c6 #8fb8e0 #2e8b3d #9bd0a4 #8a5a00 #dcb766 #555555"
_COLOR = dict(zip(SPECS, _COLORS.split(), strict=True))


def plots(content: dict[str, Any], folder: Path) -> list[Path]:
    """Draw what the parts of a run allow; returns the files."""
    drawn, parts = [], content["parts"]
    if "latency" in parts:
        rows = [row | {"ms": 1000 * summarize(row["seconds"]).median} for row in parts["latency"]["rows"]]
        axes = {"title": "One sentence, greedy", "xlabel": "source and target tokens", "ylabel": "ms, median"}
        drawn += _draw(folder / "latency.png", select(rows, threads=1, beam=1), "length", "ms", axes)
    if "throughput" in parts:
        rows = select(speeds(parts["throughput"]), beam=1, forced=False)
        axes = {"title": "A file, greedy", "xlabel": "sentences in a batch", "ylabel": "source words a second"}
        drawn += _draw(folder / "throughput.png", rows, "batch", "speed", axes)
    return drawn


def _draw(file: Path, rows: Sequence[Row], x: str, y: str, described: dict[str, str]) -> list[Path]:
    if not rows:
        return []
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.subplots()
    for (engine, threads), line in grouped(rows, "engine", "threads").items():
        name, style = fill("{engine:engine}, {threads:threads}", line[0]), "o-" if threads == 1 else "s--"
        axes.plot([row[x] for row in line], [row[y] for row in line], style, label=name, color=_COLOR.get(engine))
    axes.set(yscale="log", **described)
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    with atomic_path(file) as partial:
        figure.savefig(partial, dpi=110)
    return [file]
