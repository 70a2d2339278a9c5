"""What a plan looks like: a table, a block of a recipe, JSON, and a plot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mobilenmt.compression.core.errors import PlanError
from mobilenmt.compression.core.stage import write_json
from mobilenmt.compression.plan.cost import CostFit, Load
from mobilenmt.compression.plan.quality import Quality
from mobilenmt.compression.plan.search import Budget, Candidate
from mobilenmt.runtime.atomic import atomic_path

SHOWN = 12
_NEAR = 0.8  # of the recommended one's predicted BLEU: who wants less wants another size
_HEAD = ("pieces", "width", "FFN", "heads", "layers", "parameters", "pack", "latency", "memory", "predicted BLEU")


def choose_shown(candidates: Sequence[Candidate], count: int = SHOWN) -> list[Candidate]:
    """The recommended one and others of the front that are not much worse, evenly by their time, best first."""
    first, *others = candidates
    near = [one for one in others if one.quality.share >= _NEAR * first.quality.share]
    others = sorted(near, key=lambda one: one.seconds)
    if len(others) > count - 1:
        step = (len(others) - 1) / max(1, count - 2)
        others = [others[round(step * place)] for place in range(count - 1)]
    return [first, *sorted(others, key=lambda one: -one.quality.low)]


def render(candidates: Sequence[Candidate], budget: Budget, fit: CostFit, quality: Quality, load: Load) -> str:
    """The table, and what to make of it, for a person."""
    rows = [_HEAD, *(_row(one) for one in choose_shown(candidates))]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    limits = [f"{budget.bytes:,} bytes"]
    limits += [f"{1e3 * budget.seconds:g} ms"] if budget.seconds else []
    limits += [f"{budget.memory:,} bytes of memory"] if budget.memory else []
    latency, memory = fit.latency_residuals, fit.memory_residuals
    told = [f"for latency within {latency.median:.0%} in the median, {latency.largest:.0%} at most" if latency else ""]
    told += [f"for memory within {memory.median:.0%}, {memory.largest:.0%} at most" if memory else ""]
    sentence = f"{load.source_tokens} tokens to {load.target_tokens}, greedy, one thread"
    prices = " and ".join(filter(None, told)) or "within what nobody told"
    proxy = (
        f"Predicted BLEU ranks shapes and promises nothing: it is a share of what {_REFERENCE} would reach with the "
        f"same text and training; nine of ten models lie in the interval if the proxy is right ({_origin(quality)})."
    )
    parts = (
        f"Within {', '.join(limits)}; {sentence} of {fit.machine} ({fit.kernels}, {fit.date}):",
        "",
        *lines,
        "",
        f"The first is recommended; of the others none is beaten in everything. The machine's prices hold {prices}.",
        proxy,
        "",
        candidates[0].block(),
    )
    return "\n".join(parts)


_REFERENCE = "256 wide, FFN 512, 12+2 layers, 8,000 pieces"


def _origin(quality: Quality) -> str:
    if quality.informative:
        told = f"the paper's design as prior, {quality.informative} trained models"
        for name, times in sorted(quality.surprises.items()):
            told += f"; those of {name!r} are not as it expects and count as if they were {times:.0f} times less sure"
        return told
    return "the paper's design alone so far: no two trained models to compare are known"


def _row(one: Candidate) -> tuple[str, ...]:
    shape = one.shape
    return (
        f"{one.vocabulary:,}",
        f"{shape.d_model}",
        f"{shape.encoder_ffn_dim}/{shape.decoder_ffn_dim}",
        f"{shape.encoder_attention_heads}/{shape.decoder_attention_heads}",
        f"{shape.encoder_layers}+{shape.decoder_layers}",
        f"{one.parameters:,}",
        f"{one.bytes / 1e6:.2f} MB",
        f"{1e3 * one.seconds:.2f} ms",
        "" if one.memory is None else f"{one.memory / 1e6:.1f} MB",
        f"{one.quality.share:.1%} ({one.quality.low:.0%} to {one.quality.high:.0%})",
    )


def to_json(
    candidates: Sequence[Candidate], budget: Budget, fit: CostFit, quality: Quality, load: Load
) -> dict[str, Any]:
    """The whole front for programs."""
    return {
        "budget": asdict(budget),
        "load": asdict(load),
        "fit": asdict(fit),
        "quality": {
            "points": quality.points,
            "informative": quality.informative,
            "surprises": quality.surprises,
            "reference": _REFERENCE,
        },
        "candidates": [one.to_dict() for one in candidates],
    }


def save_json(path: Path, value: dict[str, Any]) -> None:
    """Write it, atomically. PlanError if the disk refuses."""
    try:
        write_json(path, value)
    except OSError as error:
        raise PlanError(f"{path} cannot be written: {error.strerror or error}") from None


def save_plot(path: Path, candidates: Sequence[Candidate], budget: Budget) -> None:
    """Bytes against latency, predicted BLEU as colour, the recommended one with a ring. PlanError if it cannot be."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 5), layout="constrained")
    axes = figure.subplots()
    sizes, times = [one.bytes / 1e6 for one in candidates], [1e3 * one.seconds for one in candidates]
    points = axes.scatter(sizes, times, c=[100 * one.quality.share for one in candidates], s=28, cmap="viridis")
    axes.scatter(sizes[:1], times[:1], s=150, facecolors="none", edgecolors="crimson", linewidths=1.8)
    first = candidates[0]
    axes.annotate(
        f"recommended: {first.shape.d_model} wide,\n{first.shape.encoder_layers}+{first.shape.decoder_layers} layers, "
        f"{first.vocabulary:,} pieces",
        (sizes[0], times[0]),
        textcoords="axes fraction",
        xytext=(0.03, 0.96),
        ha="left",
        va="top",
        arrowprops={"arrowstyle": "-", "color": "crimson", "shrinkB": 7},
    )
    axes.axvline(budget.bytes / 1e6, color="grey", linestyle="--", linewidth=1)
    if budget.seconds is not None:
        axes.axhline(1e3 * budget.seconds, color="grey", linestyle="--", linewidth=1)
    axes.set(xlabel="pack, MB", ylabel="predicted latency of a sentence, ms", title="Shapes that nothing else beats")
    axes.set_ylim(0, 1.12 * max(times))
    axes.grid(alpha=0.3)
    figure.colorbar(points, label="predicted BLEU, % of a 256 wide 12+2-layer model's")
    formats = figure.canvas.get_supported_filetypes()
    kind = path.suffix.lstrip(".").lower()
    if kind not in formats:
        raise PlanError(
            f"--plot {path}: no picture can be written as {path.suffix or 'a file without ending'}; try .png"
        )
    try:
        with atomic_path(path) as temporary:
            figure.savefig(temporary, format=kind, dpi=150)
    except OSError as error:
        raise PlanError(f"{path} cannot be written: {error.strerror or error}") from None
