"""Plots of a results.json: latency by length, words a second by batch, memory, breakdown of a sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.engines.base import SPECS
from benchmarks.report.stats import summarize
from benchmarks.report.tables import Row, label, values

_OTHERS = 0.015  # operators with a smaller share are drawn together


def plots(content: dict[str, Any], folder: Path) -> list[Path]:
    """Draw what the parts of a run allow; returns the files."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    written = []
    drawers: dict[str, tuple[str, Callable[[Any, Row], bool]]] = {
        "latency": ("latency", _latency),
        "throughput": ("throughput", _throughput),
        "memory": ("memory", _memory),
        "breakdown": ("breakdown", _breakdown),
    }
    for part, (stem, draw) in drawers.items():
        if part not in content["parts"]:
            continue
        figure, axes = pyplot.subplots(figsize=(9, 4.5), layout="constrained")
        if draw(axes, content["parts"][part]):
            partial = folder / f".{stem}.png.partial"
            figure.savefig(partial, format="png", dpi=110)
            written.append(partial.replace(folder / f"{stem}.png"))
        pyplot.close(figure)
    return written


_COLORS = ("#c1272d", "#f2a0a3", "#1f5fa8", "#8fb8e0", "#2e8b3d", "#9bd0a4", "#8a5a00", "#dcb766", "#555555")


def _color(engine: str) -> str | None:
    """A colour for each engine: one hue for a library, strong for INT8 and pale for fp32."""
    return dict(zip(SPECS, _COLORS, strict=True)).get(engine)


def _latency(axes: Any, part: Row) -> bool:
    for engine in values(part["rows"], "engine"):
        rows = [row for row in part["rows"] if (row["engine"], row["threads"], row["beam"]) == (engine, 1, 1)]
        if not rows:
            continue
        found = [summarize(row["seconds"]) for row in rows]
        lengths = [row["length"] for row in rows]
        color = _color(engine)
        (line,) = axes.plot(lengths, [1000 * s.median for s in found], "o-", label=label(engine), color=color)
        low, high = ([1000 * getattr(s, key) for s in found] for key in ("q1", "q3"))
        axes.fill_between(lengths, low, high, color=line.get_color(), alpha=0.2, linewidth=0)
    axes.set(xlabel="source and target tokens", ylabel="ms, median and quartiles", yscale="log")
    axes.set_title("One sentence, greedy, one thread")
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return bool(axes.lines)


def _throughput(axes: Any, part: Row) -> bool:
    for engine in values(part["rows"], "engine"):
        for threads, style in zip(values(part["rows"], "threads"), ("o-", "s--", "^:"), strict=False):
            rows = [
                row
                for row in part["rows"]
                if (row["engine"], row["threads"], row["beam"], row["forced"]) == (engine, threads, 1, False)
            ]
            speeds = [part["words"] / summarize(row["seconds"]).median for row in rows]
            name = f"{label(engine)}, {threads} thread{'s' if threads > 1 else ''}"
            axes.plot([row["batch"] for row in rows], speeds, style, label=name, color=_color(engine))
    axes.set(xlabel="sentences in a batch", ylabel="source words a second", xscale="log", yscale="log")
    axes.set_xticks(values(part["rows"], "batch"), [str(batch) for batch in values(part["rows"], "batch")])
    axes.set_title("A file of sentences, greedy")
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return bool(axes.lines)


def _memory(axes: Any, part: Row) -> bool:
    rows = sorted(part["rows"], key=lambda row: -row["peak"])
    names = [label(row["engine"]) for row in rows]
    axes.barh(names, [row["peak"] / 1e6 for row in rows], color="#d9d9d9", label="peak")
    axes.barh(names, [row["steady"] / 1e6 for row in rows], height=0.5, color="#c1272d", label="steady")
    for index, row in enumerate(rows):
        axes.text(
            row["peak"] / 1e6 * 1.05, index, f"{row['steady'] / 1e6:,.0f} / {row['peak'] / 1e6:,.0f}", va="center"
        )
    axes.set(xlabel="MB added, steady / peak", xscale="log")
    axes.set_xlim(1, max(row["peak"] for row in rows) / 1e6 * 6)
    axes.set_title("Memory of model and work")
    axes.legend(fontsize=8)
    return bool(rows)


def _breakdown(axes: Any, part: Row) -> bool:
    rows = [row for row in part["rows"] if row["beam"] == part["rows"][0]["beam"]]
    large = [row for row in rows if row["share"] >= _OTHERS]
    names = [f"{row['phase']}: {row['operator']}" for row in large] + ["all others"]
    shares = [100 * row["share"] for row in large]
    shares.append(100 - sum(shares))
    colors = {"encoder": "#4472c4", "step": "#c1272d", "loop": "#999999"}
    axes.barh(names[::-1], shares[::-1], color=[*(colors[row["phase"]] for row in large), "#dddddd"][::-1])
    axes.set(xlabel=f"% of the time of one sentence of {part['length']} tokens")
    axes.set_title(f"mobilenmt INT8 by operator, beam {part['rows'][0]['beam']}")
    return bool(rows)
