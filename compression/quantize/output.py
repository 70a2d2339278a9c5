"""A study as Markdown, JSON and pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mobilenmt.compression.core.stage import write_json
from mobilenmt.compression.quantize.sensitivity import Sensitivity, by_matrix, markdown
from mobilenmt.runtime.atomic import atomic_path

_MOST_BARS = 60


def write_sensitivity(folder: Path, found: Sequence[Sensitivity], scores: Mapping[str, Mapping[str, Any]]) -> str:
    """Write sensitivity.md, .json and .png; returns the Markdown.

    Args:
        folder: of the study.
        found: of every matrix in every form.
        scores: matrix -> ``bleu``, ``chrf``: what it loses alone, where that was measured.
    """
    table = by_matrix(found)
    text = (
        "Kullback-Leibler divergence from the fp32 model, in thousandths of a nat a target token, of one matrix in a "
        "form and everything else in fp32.\n\n" + markdown(table, scores)
    )
    _write(folder / "sensitivity.md", text)
    write_json(folder / "sensitivity.json", {"distances": table, "scores": scores})
    _plot_sensitivity(folder / "sensitivity.png", table)
    return text


def _plot_sensitivity(path: Path, table: Mapping[str, Mapping[str, float]]) -> None:
    from matplotlib.figure import Figure

    names = sorted(table, key=lambda name: -max(table[name].values()))[:_MOST_BARS]
    figure = Figure(figsize=(9, 1.5 + 0.2 * len(names)), layout="constrained")
    axes = figure.subplots()
    for form in next(iter(table.values())):
        values = [table[name][form] for name in names]
        if any(values):
            axes.plot([1e3 * value for value in values], range(len(names)), "o", label=form, markersize=4, alpha=0.8)
    axes.set_yticks(range(len(names)), [name.removeprefix("model.") for name in names], fontsize=7)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel("distance from fp32, thousandths of a nat a token")
    axes.set_title("What each matrix costs alone")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    _save(figure, path)


def write_rows(folder: Path, rows: Sequence[Mapping[str, Any]], reference: str | None) -> str:
    """Write results.md, .json and .png; returns the Markdown.

    Args:
        folder: of the study.
        rows: as :func:`~mobilenmt.compression.quantize.score.score` has them, with ``name``, and ``distance`` and
            ``latency`` where they are known.
        reference: the row that the others' losses are told against.
    """
    text = table_of(rows, reference)
    _write(folder / "results.md", text)
    write_json(folder / "results.json", {"rows": list(rows)})
    _plot_rows(folder / "results.png", rows)
    return text


def table_of(rows: Sequence[Mapping[str, Any]], reference: str | None) -> str:
    """A Markdown table; means over the dev sets first, then each set."""
    tests = list(rows[0]["scores"])
    lost = next((row for row in rows if row["name"] == reference), None)
    head = ["packs", "bytes", "BLEU", "chrF", "distance", "ms", "MB added", *tests]
    lines = [_row(head), _row(["---"] * len(head))]
    for row in rows:
        told = []
        for key in ("bleu", "chrf"):
            change = f" ({row[key] - lost[key]:+.2f})" if lost is not None and row is not lost else ""
            told.append(f"{row[key]:.2f}{change}")
        distance, latency, memory = row.get("distance"), row.get("latency"), row.get("added_memory_bytes")
        told.append("" if distance is None else f"{1e3 * distance:.2f}")
        told.append("" if latency is None else f"{1e3 * latency:.2f}")
        told.append("" if memory is None else f"{memory / 1e6:.1f}")
        told += [f"{row['scores'][test]['bleu']:.2f} / {row['scores'][test]['chrf']:.2f}" for test in tests]
        lines.append(_row([row["name"], f"{row['bytes']:,}", *told]))
    notes = (
        "BLEU and chrF: means over the dev sets"
        + (f", in brackets against {reference}" if lost is not None else "")
        + "; then BLEU / chrF of each set. Distance: Kullback-Leibler divergence from the fp32 model, thousandths of a "
        "nat a target token. ms: median of a sentence by itself, greedy, one thread, all packs in turn. MB added: "
        "largest resident memory above the loaded libraries."
    )
    return "\n".join(lines) + f"\n\n{notes}\n"


def _plot_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 6.5), layout="constrained")
    ticks = list(range(1, len(rows) + 1))
    for axes, key, label in zip(
        figure.subplots(1, 2), ("chrf", "distance"), ("mean chrF", "distance, nats a token"), strict=True
    ):
        for number, row in zip(ticks, rows, strict=True):
            value = row.get(key)
            if value:
                shown = f"{number} {row['name']}"
                axes.plot(row["bytes"] / 1e6, value, "o", label=shown, color=f"C{number % 10}")
                axes.annotate(str(number), (row["bytes"] / 1e6, value), textcoords="offset points", xytext=(5, 3))
        axes.set(xlabel="pack, MB", ylabel=label)
        axes.grid(alpha=0.3)
        axes.set_xscale("log")
    figure.axes[1].set_yscale("log")
    figure.axes[0].legend(fontsize=7, loc="lower right")
    _save(figure, path)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _write(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _save(figure: Any, path: Path) -> None:
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
