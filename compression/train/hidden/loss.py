"""The loss of hidden states: how far a student's are from a teacher's (Sanh et al. 2019; Jiao et al. 2020)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional

States = tuple[Sequence[torch.Tensor], Sequence[torch.Tensor]]
"""States behind chosen layers of encoder and decoder."""


@dataclass(frozen=True)
class HiddenTargets:
    """What a batch's states are compared with."""

    weight: float
    """Of this loss beside that of the words."""
    kind: str
    """mse or cosine."""
    layers: tuple[tuple[int, ...], tuple[int, ...]]
    """Numbers of the student's layers, from 0, of encoder and decoder."""
    states: States
    """[B, T, D] for each of them."""


def hidden_loss(
    found: States,
    targets: HiddenTargets,
    source_mask: torch.Tensor | None,
    positions: torch.Tensor | None,
) -> torch.Tensor:
    """Sum over the tokens of both sides of the mean over the layers of a side; a scalar, without the weight.

    Args:
        found: states behind all layers, [T, B, D].
        targets: the teacher's.
        source_mask: bool [B, S], False at padding; None without padding.
        positions: int64 [N], where target tokens lie in the flattened [B * T]; None if everywhere.
    """
    places = (None if source_mask is None else source_mask.reshape(-1).nonzero().squeeze(1), positions)
    total = found[0][0].new_zeros((), dtype=torch.float32)
    for states, layers, wanted, place in zip(found, targets.layers, targets.states, places, strict=True):
        for number, goal in zip(layers, wanted, strict=True):
            own = states[number].transpose(0, 1).reshape(-1, states[number].shape[2]).float()
            goal = goal.reshape(own.shape).float()
            if place is not None:
                own, goal = own.index_select(0, place), goal.index_select(0, place)
            if targets.kind == "mse":
                apart = (own - goal).square().mean(1)
            else:
                apart = 1 - functional.cosine_similarity(own, goal, dim=1)
            total = total + apart.sum() / len(layers)
    return total
