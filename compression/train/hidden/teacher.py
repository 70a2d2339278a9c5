"""A teacher's hidden states of a batch, in the channels of its student."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import torch

from mobilenmt.compression.train.hidden.loss import HiddenTargets
from mobilenmt.compression.train.hidden.matching import SIDES, Match, find_match, projection
from mobilenmt.compression.train.settings import DistillSettings

if TYPE_CHECKING:
    from mobilenmt.compression.train.student import StudentShape
    from mobilenmt.compression.train.update import DeviceBatch


class Reader(Protocol):
    """What is needed of a ``SoftTeacher``."""

    model: Any
    device: torch.device

    def outputs(self, batch: DeviceBatch) -> Any:
        """What transformers' encoder and decoder give for a batch, hidden states included."""


class HiddenTeacher:
    """Callable: a batch and the number of the update to what the student's states are compared with."""

    def __init__(
        self, teacher: Reader, settings: DistillSettings, shape: StudentShape, weight: Callable[[int], float]
    ) -> None:
        """Match the layers.

        Args:
            teacher: reads batches.
            settings: of the training.
            shape: the student's.
            weight: of the loss in an update.

        Raises as :func:`find_match` does.
        """
        assert settings.teacher is not None
        config = teacher.model.config
        depth = {side: getattr(shape, f"{side}_layers") for side in SIDES}
        whole = {side: getattr(config, f"{side}_layers") for side in SIDES}
        self.match: Match = find_match(settings.initial, settings.teacher, depth, whole)
        self.teacher, self.kind, self.weight = teacher, settings.hidden_loss, weight
        encoder, decoder = (
            tuple(number for number in range(depth[side]) if (depth[side] - 1 - number) % settings.hidden_every == 0)
            for side in SIDES
        )
        self.layers = encoder, decoder
        self._channels = self._projection = None
        self.told = f"hidden states: layers matched evenly with those of {settings.teacher}"
        """How the two are matched, for a person."""
        if self.match.channels is not None:
            self._channels = torch.tensor(self.match.channels, device=teacher.device)
            self.told = f"hidden states: those of {settings.teacher} in what pruning left of its layers and channels"
        elif config.d_model != shape.d_model:
            self._projection = projection(config.d_model, shape.d_model).to(teacher.device)
            self.told += f", {config.d_model} channels projected to {shape.d_model}"

    @torch.no_grad()
    def __call__(self, batch: DeviceBatch, step: int) -> HiddenTargets | None:
        """Read a batch; None, and nothing read, once the weight is 0."""
        weight = self.weight(step)
        if not weight:
            return None
        out: Any = self.teacher.outputs(batch)
        found = []
        for side, layers in zip(SIDES, self.layers, strict=True):
            states = out[f"{side}_hidden_states"]  # those in front of the first layer are first
            found.append([self._mapped(states[self.match.layers[side][number]]) for number in layers])
        return HiddenTargets(weight, self.kind, self.layers, (found[0], found[1]))

    def _mapped(self, states: torch.Tensor) -> torch.Tensor:
        if self._channels is not None:
            return states.index_select(2, self._channels)
        return states if self._projection is None else states.float() @ self._projection
