"""What was pruned: JSON for programs, Markdown and a picture for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from mobilenmt.compression.core.settings import to_mapping
from mobilenmt.compression.core.stage import write_json
from mobilenmt.compression.prune.importance import Scores
from mobilenmt.compression.prune.network import SIDES
from mobilenmt.compression.prune.select import Selection
from mobilenmt.compression.prune.settings import HowToPrune
from mobilenmt.compression.train.student import StudentShape
from mobilenmt.export.checkpoint import MarianConfig

if TYPE_CHECKING:
    from mobilenmt.compression.prune.one_shot import Pruned

JSON, MARKDOWN, PICTURE = "prune.json", "prune.md", "prune.png"


@dataclass(frozen=True)
class PruneReport:
    """What became of a model."""

    before: Mapping[str, Any]
    """Its dimensions, ``vocabulary`` and ``parameters``."""
    after: Mapping[str, Any]
    """The same of what is left."""
    losses: Mapping[str, float]
    """Nats a token on the calibration text, ``before`` and ``after``, both with the model's own vocabulary."""
    pieces: Mapping[str, int]
    """Of the vocabulary that is left: the ``same`` pieces, those ``spelled`` by others, those ``guessed``."""
    how: HowToPrune
    layers: Mapping[str, Sequence[int]]
    """Layers that stayed, by side, numbered as in the model."""
    kept: Mapping[str, Mapping[str, Any]]
    """Of each sublayer that stayed (numbered as in the model): ``heads`` or ``neurons`` that did, and the ``share`` of
    the summed importance that they have."""
    channels: Sequence[int]
    """Residual channels that stayed, in their new order."""
    seconds: float

    @classmethod
    def of(
        cls,
        config: MarianConfig,
        found: Pruned,
        left: MarianConfig,
        how: HowToPrune,
        parameters: tuple[int, int],
        pieces: Mapping[str, int],
        *,
        seconds: float,
    ) -> PruneReport:
        """Gather it."""
        names = [item.name for item in fields(StudentShape)]
        before = {name: getattr(config, name) for name in names}
        after = {name: getattr(left, name) for name in names}
        kept: dict[str, dict[str, Any]] = {}
        for place, neurons in found.selection.neurons.items():
            kept[_named(place, found.layers)] = {
                "neurons": len(neurons),
                "share": _share(found.scores.neurons[place], neurons),
            }
        for place, heads in found.selection.heads.items():
            kept[_named(place, found.layers)] = {
                "heads": heads.tolist(),
                "share": _share(found.scores.values[place], found.selection.values[place]),
            }
        return cls(
            before={**before, "vocabulary": config.vocab_size, "parameters": parameters[0]},
            after={**after, "vocabulary": left.vocab_size, "parameters": parameters[1]},
            losses=found.losses,
            pieces=pieces,
            how=how,
            layers={side: list(layers) for side, layers in found.layers.items()},
            kept=dict(sorted(kept.items(), key=lambda item: _order(item[0]))),
            channels=found.selection.width.tolist(),
            seconds=round(seconds, 1),
        )

    def markdown(self) -> str:
        """Tables for a person."""
        gone = 1 - self.after["parameters"] / self.before["parameters"]
        parameters = (
            f"{self.before['parameters']:,} parameters became {self.after['parameters']:,} ({gone:.0%} fewer) in "
            f"{self.seconds:.0f} s. Loss on the calibration text: {self.losses['before']:.3f} nats a token before, "
            f"{self.losses['after']:.3f} after, with the old vocabulary."
        )
        how = (
            f"Importance: {self.how.importance}; of layers: {self.how.depth}; reconstruction: "
            f"{self.how.reconstruct}. Pieces: {self.pieces['same']:,} as they were, {self.pieces['spelled']:,} spelled "
            f"by others, {self.pieces['guessed']:,} guessed."
        )
        lines = [
            "# Pruned model",
            "",
            parameters,
            "",
            "| | before | after |",
            "|---|---|---|",
            *(f"| {name} | {_shown(self.before[name])} | {_shown(self.after[name])} |" for name in self.before),
            "",
            how,
            "",
            f"![What stayed]({PICTURE})",
            "",
            "| part | stayed | share of the importance |",
            "|---|---|---|",
        ]
        for place in _places(self.before):
            entry = self.kept.get(place)
            if entry is None:
                lines.append(f"| {place} | nothing: the layer is gone | |")
                continue
            told = (
                f"heads {', '.join(map(str, entry['heads']))}" if "heads" in entry else f"{entry['neurons']:,} neurons"
            )
            lines.append(f"| {place} | {told} | {entry['share']:.1%} |")
        return "\n".join(lines) + "\n"


def write_report(report: PruneReport, scores: Scores, selection: Selection, folder: Path) -> None:
    """Write prune.json, prune.md and prune.png into a folder."""
    write_json(folder / JSON, to_mapping(asdict(report)))
    (folder / MARKDOWN).write_text(report.markdown(), encoding="utf-8")
    _draw(report, scores, selection, folder / PICTURE)


def _draw(report: PruneReport, scores: Scores, selection: Selection, path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 7.5), layout="constrained")
    FigureCanvasAgg(figure)
    upper, lower = figure.subplots(2, 1)
    places = list(_places(report.before))
    shares = []
    for place in places:
        entry, side = report.kept.get(place), place.split(".")[0]
        if entry is None:
            shares.append(0.0)
        elif "neurons" in entry:
            shares.append(entry["neurons"] / report.before[f"{side}_ffn_dim"])
        else:
            shares.append(report.after["d_model"] / report.before["d_model"])
    across = range(len(places))
    upper.bar(across, [1.0] * len(places), color="0.88", label="the model")
    upper.bar(across, shares, color="tab:blue", width=0.8, label="channels or neurons that stayed")
    upper.plot(
        across,
        [report.kept[place]["share"] if place in report.kept else 0.0 for place in places],
        "o",
        color="tab:orange",
        label="their share of the importance",
    )
    upper.set_xticks(list(across), places, rotation=60, ha="right", fontsize=7)
    upper.set_ylim(0, 1.05)
    upper.set_ylabel("share")
    upper.legend(loc="lower left", fontsize=8)
    upper.set_title(f"{report.before['parameters']:,} parameters became {report.after['parameters']:,}")
    order = scores.width.argsort(descending=True)
    stays = torch.zeros(len(order), dtype=torch.bool)
    stays[selection.width] = True
    values = scores.width[order].clamp_min(float(scores.width.max()) * 1e-6)
    colours = ["tab:blue" if kept else "tab:red" for kept in stays[order].tolist()]
    lower.bar(range(len(order)), values.tolist(), width=1.0, color=colours)
    lower.set_yscale("log")
    lower.set_xlabel("residual channels by importance; red ones went")
    lower.set_ylabel(f"importance ({report.how.importance})")
    figure.savefig(path, dpi=110)


def _places(before: Mapping[str, Any]) -> Sequence[str]:
    found = []
    for side in SIDES:
        kinds = ("self_attn", "ffn") if side == "encoder" else ("self_attn", "encoder_attn", "ffn")
        found += [f"{side}.{layer}.{kind}" for layer in range(before[f"{side}_layers"]) for kind in kinds]
    return found


def _named(place: str, layers: Mapping[str, Sequence[int]]) -> str:
    side, layer, kind = place.split(".")
    return f"{side}.{layers[side][int(layer)]}.{kind}"


def _order(place: str) -> tuple[int, int, int]:
    side, layer, kind = place.split(".")
    return SIDES.index(side), int(layer), ("self_attn", "encoder_attn", "ffn").index(kind)


def _share(scores: torch.Tensor, chosen: torch.Tensor) -> float:
    return round(float(scores[chosen].sum() / scores.sum().clamp_min(1e-30)), 4)


def _shown(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)
