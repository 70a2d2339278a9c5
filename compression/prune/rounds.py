"""Pruning in rounds: a part of what is to go, training of what is left, the next part.

Each round is made once: what is pruned appears complete or not at all, and the training is a stage of its own, which a
kill costs what came after its latest saved state.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from mobilenmt.compression.core.stage import read_json_object
from mobilenmt.compression.prune.report import JSON
from mobilenmt.compression.prune.settings import PruneSettings
from mobilenmt.compression.prune.target import check_target, shape_of
from mobilenmt.compression.train.job import TrainingJob
from mobilenmt.compression.train.settings import DistillSettings
from mobilenmt.compression.train.size import count_parameters
from mobilenmt.compression.train.stage import run as train
from mobilenmt.compression.train.student import StudentShape
from mobilenmt.compression.vocabulary.vocabulary import Vocabulary
from mobilenmt.export.checkpoint import MarianConfig, read_json
from mobilenmt.runtime.atomic import remove

_SHARES = 200
"""So many places on the way from one shape to the other are looked at."""
_WIDTH_STEP = 16  # what kernels like
_SCRATCH = ("dataset", "soft", "last")
"""What a round's training leaves that nobody needs again."""

Prune = Callable[[Path, Path, StudentShape], object]
"""Prunes a checkpoint to a folder and a shape."""


@dataclass(frozen=True)
class RoundTraining:
    """How what is left of a model is trained between two rounds."""

    job: TrainingJob
    """That of the student after the last round: its text, its vocabulary, its settings."""
    steps: int
    """Updates of a round."""

    def of(self, checkpoint: Path, shape: StudentShape) -> TrainingJob:
        """A round's: the student's settings, with so many updates, and nothing chosen by dev files."""
        settings = self.job.settings
        changes: dict[str, Any] = {
            "initial": checkpoint,
            "initial_layers": "same",
            "steps": self.steps,
            "epochs": None,
            "warmup_steps": min(settings.warmup_steps, max(1, self.steps // 5)),
            "average_last": 0,
            "dev": (),
            "patience": 0,
        }
        if isinstance(settings, DistillSettings) and settings.word_level:
            changes["soft_targets"] = "live"  # a round reads a part of the text, once
        return replace(self.job, shape=shape, settings=replace(settings, **changes))


def prune_in_rounds(
    checkpoint: Path,
    folder: Path,
    shape: StudentShape,
    settings: PruneSettings,
    training: RoundTraining,
    prune: Prune,
) -> tuple[Path, list[dict[str, Any]]]:
    """Do all rounds but the last, or those that are still to do.

    Args:
        checkpoint: the model.
        folder: where rounds are kept; the caller sees to it that it belongs to this model and these settings.
        shape: after the last round.
        settings: how many rounds, and of what size.
        training: between two of them.
        prune: what prunes.

    Returns:
        The checkpoint that the last round prunes, and of each round done parameters and losses.

    Raises as ``prune`` and :func:`mobilenmt.compression.train.stage.run` do.
    """
    whole = shape_of(MarianConfig.from_dict(read_json(checkpoint / "config.json")))
    check_target(shape, whole)
    shapes = round_shapes(whole, shape, settings, Vocabulary.load(training.job.vocabulary).size)
    told = []
    for number, smaller in enumerate(shapes[:-1], 1):
        here = folder / str(number)
        if not (here / "pruned").is_dir():
            here.mkdir(parents=True, exist_ok=True)
            prune(checkpoint, here / "pruned", smaller)
        training.job.report(f"round {number} of {len(shapes)}: training what is left")
        result = train(training.of(here / "pruned", smaller), here / "distill")
        for name in _SCRATCH:
            remove(here / "distill" / name)
        report = read_json_object(here / "pruned" / JSON)
        told.append(
            {
                "parameters": report["after"]["parameters"],
                "loss_before": round(report["losses"]["before"], 4),
                "loss": round(report["losses"]["after"], 4),
                "updates": result.summary["steps"],
            }
        )
        checkpoint = here / "distill" / "checkpoint"
    return checkpoint, told


def round_shapes(whole: StudentShape, shape: StudentShape, settings: PruneSettings, pieces: int) -> list[StudentShape]:
    """What is to be left after each round, the last one included; rounds between which nothing would go are left out.

    Args:
        whole: the model's.
        shape: what is wanted, a part of it.
        settings: ``rounds`` and ``round_schedule``.
        pieces: of the vocabulary after the first round.
    """
    most, least = count_parameters(whole, pieces), count_parameters(shape, pieces)
    way = []
    previous = whole
    for step in range(1, _SHARES):
        previous = _between(whole, shape, previous, step / _SHARES)
        way.append(previous)
    found: list[StudentShape] = []
    for number in range(1, settings.rounds):
        share = number / settings.rounds
        if settings.round_schedule == "geometric":
            wanted = most * (least / most) ** share
        else:
            wanted = most + (least - most) * share
        best = min(way, key=lambda one: abs(math.log(count_parameters(one, pieces) / wanted)))
        if best not in (whole, shape, *found):
            found.append(best)
    return [*found, shape]


def _between(whole: StudentShape, shape: StudentShape, previous: StudentShape, share: float) -> StudentShape:
    """The shape at a share of the way: a part of the previous one, and ``shape`` a part of it."""
    values = {
        item.name: round(getattr(whole, item.name) + share * (getattr(shape, item.name) - getattr(whole, item.name)))
        for item in fields(StudentShape)
        if isinstance(getattr(whole, item.name), int)
    }
    wanted = values["d_model"]
    widths = range(shape.d_model, previous.d_model + 1, 2)
    for width in sorted(widths, key=lambda one: (abs(one - wanted) + (_WIDTH_STEP if one % _WIDTH_STEP else 0), one)):
        heads = {side: _heads(width, shape, previous, side) for side in ("encoder", "decoder")}
        if all(heads.values()):
            values |= {"d_model": width, **{f"{side}_attention_heads": found for side, found in heads.items()}}
            break
    return replace(shape, **values)


def _heads(width: int, shape: StudentShape, previous: StudentShape, side: str) -> int:
    """Most heads that a width can have on the way, 0 if none fits: neither number nor width of heads rises."""
    name = f"{side}_attention_heads"
    least, most = getattr(shape, name), getattr(previous, name)
    narrow, wide = shape.d_model / least, previous.d_model / most
    fitting = [count for count in range(least, most + 1) if width % count == 0 and narrow <= width / count <= wide]
    return max(fitting, default=0)
