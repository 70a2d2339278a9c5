"""Which of a teacher's hidden states stand for which of a student's.

A pruned checkpoint says it in ``matched.json``: of each model it was pruned from, known by its weights, the residual
channels that are left and the state that each layer's is to be like. Between other models layers are matched evenly,
and a fixed projection stands between different widths.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobilenmt.compression.core.errors import TrainingError
from mobilenmt.compression.core.stage import file_digest, write_json
from mobilenmt.runtime.errors import CheckpointError

if TYPE_CHECKING:
    import torch

MATCHED = "matched.json"
SIDES = ("encoder", "decoder")
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")


@dataclass(frozen=True)
class Match:
    """What a teacher's states are compared with."""

    layers: Mapping[str, tuple[int, ...]]
    """By side: for each layer of the student the number of the teacher's layer whose output its own is like, from 1."""
    channels: tuple[int, ...] | None = None
    """A residual channel of the teacher for each of the student's; None if the student has no part of them."""

    def behind(self, inner: Match) -> Match:
        """This match, to a model that is itself matched to another by ``inner``, as a match to that other one."""
        layers = {side: tuple(inner.layers[side][number - 1] for number in self.layers[side]) for side in SIDES}
        if self.channels is None or inner.channels is None:
            return Match(layers)
        return Match(layers, tuple(inner.channels[channel] for channel in self.channels))


def weights_digest(checkpoint: Path) -> str:
    """SHA-256 of a checkpoint's weights, by which it is known again wherever it lies.

    Raises CheckpointError if there are none.
    """
    for name in _WEIGHTS:
        if (checkpoint / name).is_file():
            return file_digest(checkpoint / name)
    raise CheckpointError(f"{checkpoint}: no weights there ({' or '.join(_WEIGHTS)})")


def write_matches(folder: Path, checkpoint: Path, match: Match) -> None:
    """Write matched.json of a model pruned from ``checkpoint``.

    Args:
        folder: where to.
        checkpoint: what was pruned; models that it was pruned from itself (a file matched.json in it, which training
            carries along) are matched through it.
        match: of the pruned model to the checkpoint.
    """
    matches = {weights_digest(checkpoint): match}
    for digest, earlier in read_matches(checkpoint).items():
        matches.setdefault(digest, match.behind(earlier))
    models = [
        {"weights": digest, "channels": found.channels, **{side: found.layers[side] for side in SIDES}}
        for digest, found in matches.items()
    ]
    write_json(folder / MATCHED, {"models": models})


def read_matches(folder: Path) -> dict[str, Match]:
    """By the digest of weights; empty if the folder has no matched.json. TrainingError if it is damaged."""
    try:
        found: Any = json.loads((folder / MATCHED).read_text(encoding="utf-8"))
        matches = {}
        for model in found["models"]:
            layers = {side: tuple(map(int, model[side])) for side in SIDES}
            channels = None if model["channels"] is None else tuple(map(int, model["channels"]))
            matches[str(model["weights"])] = Match(layers, channels)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrainingError(f"{folder / MATCHED} is damaged ({error}); prune the model again") from None
    return matches


def of_pruned(kept: Mapping[str, Sequence[int]], depth: Mapping[str, int], channels: Sequence[int]) -> Match:
    """The match of a pruned model.

    A layer's output is like what the model has in front of the next layer that stayed, or at its end: so a layer makes
    up for those that are gone behind it, as the fits of pruning have it.

    Args:
        kept: numbers of the layers that stayed, from 0, by side.
        depth: layers of the whole model, by side.
        channels: residual channels that stayed.
    """
    layers = {side: (*kept[side][1:], depth[side]) for side in SIDES}
    return Match({side: tuple(map(int, layers[side])) for side in SIDES}, tuple(map(int, channels)))


def evenly(student: Mapping[str, int], teacher: Mapping[str, int]) -> Match:
    """Layers matched evenly, the last to the last; depths by side."""
    return Match(
        {
            side: tuple(max(1, round((number + 1) * teacher[side] / student[side])) for number in range(student[side]))
            for side in SIDES
        }
    )


def find_match(
    initial: Path | None, teacher: Path, depth: Mapping[str, int], teacher_depth: Mapping[str, int]
) -> Match:
    """The match that a student's first weights tell of, or layers evenly.

    Args:
        initial: folder that the student starts from.
        teacher: checkpoint folder of the teacher.
        depth: layers of the student, by side.
        teacher_depth: of the teacher.

    Raises:
        TrainingError: matched.json is damaged, or of another shape.
        CheckpointError: the teacher has no weights.
    """
    known = {} if initial is None else read_matches(initial)
    match = known.get(weights_digest(teacher)) if known else None
    if match is None:
        return evenly(depth, teacher_depth)
    for side in SIDES:
        layers = match.layers[side]
        if len(layers) != depth[side] or not all(1 <= number <= teacher_depth[side] for number in layers):
            raise TrainingError(f"{initial}: its {MATCHED} is of another shape; prune the model again")
    return match


def projection(teacher: int, student: int) -> torch.Tensor:
    """A fixed map of states, float32 [teacher, student]: drawn once for all, its columns (or rows) orthonormal.

    Between equal widths nothing is mapped: the identity.
    """
    import torch

    if teacher == student:
        return torch.eye(teacher)
    drawn = torch.randn(max(teacher, student), min(teacher, student), generator=torch.Generator().manual_seed(20))
    found: torch.Tensor = torch.linalg.qr(drawn.double())[0].float()
    return found if teacher > student else found.T.contiguous()
