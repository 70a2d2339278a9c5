"""Which units stay: layers, residual channels, heads, channels within heads, neurons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from mobilenmt.compression.core.progress import progress
from mobilenmt.compression.prune.importance import Scores
from mobilenmt.compression.prune.network import SIDES, Batch, Network, Tensor, sublayers
from mobilenmt.compression.train.student import StudentShape
from mobilenmt.export.checkpoint import sinusoidal_positions

_POSITIONS = 50
"""Positions over which sinusoids are compared: what sentences have."""


@dataclass(frozen=True)
class Selection:
    """Units of a model that stay; places are those of the model whose layers were chosen already."""

    width: Tensor
    """int64 [D'], a channel of the model for each channel of the pruned one."""
    heads: Mapping[str, Tensor]
    """int64 [heads'] by place, rising."""
    queries: Mapping[str, Tensor]
    """int64 [D'] by place: a channel of q and k for each, head by head."""
    values: Mapping[str, Tensor]
    """The same of v and of what the heads give."""
    neurons: Mapping[str, Tensor]
    """int64 [F'] by place, rising."""


def choose_layers(
    network: Network, shape: StudentShape, batches: Sequence[Batch], scores: Mapping[str, Tensor] | None
) -> dict[str, list[int]]:
    """Numbers of the layers that stay, by side.

    Args:
        network: the whole model.
        shape: how many are to stay.
        batches: text for the losses.
        scores: importance of each layer; None goes by the loss: of all layers of a side the one goes without which the
            loss is lowest, then the next one of those left, the decoder's first.
    """
    kept = {side: list(range(network.layers(side))) for side in SIDES}
    for side in reversed(SIDES):
        wanted = getattr(shape, f"{side}_layers")
        if scores is not None:
            kept[side] = sorted(scores[side].argsort(descending=True)[:wanted].tolist())
            continue
        tries = sum(range(wanted + 1, len(kept[side]) + 1))
        with progress(f"{side} layers", "losses", total=tries, shown=tries > 0) as bar:
            while len(kept[side]) > wanted:
                losses = {}
                for layer in kept[side]:
                    rest = [other for other in kept[side] if other != layer]
                    losses[layer] = network.with_layers({**kept, side: rest}).loss(batches)
                    bar.update(1)
                kept[side].remove(min(losses, key=lambda layer: losses[layer]))
    return kept


def select(network: Network, shape: StudentShape, scores: Scores, *, position_weight: float = 1.0) -> Selection:
    """The units of a shape with the highest scores.

    Args:
        network: the model, as deep as the shape.
        shape: no part larger than the model's.
        scores: of its units.
        position_weight: see :func:`choose_channels`.
    """
    heads, queries, values, neurons = {}, {}, {}, {}
    for side, place, kind in sublayers(network):
        if kind == "ffn":
            neurons[place] = _best(scores.neurons[place], getattr(shape, f"{side}_ffn_dim"))
            continue
        count = getattr(shape, f"{side}_attention_heads")
        size = shape.d_model // count
        heads[place] = _best(scores.heads[place], count)
        queries[place] = _within(scores.queries[place], heads[place], network.heads(side), size)
        values[place] = _within(scores.values[place], heads[place], network.heads(side), size)
    width = choose_channels(scores.width, shape.d_model, position_weight=position_weight)
    return Selection(width, heads, queries, values, neurons)


def choose_channels(scores: Tensor, width: int, *, position_weight: float = 1.0) -> Tensor:
    """A residual channel for each channel of a narrower model, int64 [width].

    Transformers' sinusoids have sines in the first half of the channels and cosines in the second, and the frequency of
    a channel follows from its place and the width. So each half keeps its order and half of the new width, and among
    all such choices that one is found (by dynamic programming) whose score is highest, less what each channel's
    sinusoid changes by.

    Args:
        scores: [D], of the channels.
        width: even, at most D.
        position_weight: of the mean squared difference of two sinusoids (0 to 2) beside scores whose mean is 1.
    """
    whole = len(scores)
    if width == whole:
        return torch.arange(whole)
    old, new = (sinusoidal_positions(_POSITIONS, size).astype(np.float64) for size in (whole, width))
    found = []
    for half in (0, 1):
        first = old[:, half * whole // 2 : (half + 1) * whole // 2]
        second = new[:, half * width // 2 : (half + 1) * width // 2]
        own = scores[half * whole // 2 : (half + 1) * whole // 2].double().numpy()
        change = (
            (first**2).mean(0)[:, None] + (second**2).mean(0)[None, :] - 2 * first.T @ second / _POSITIONS
        )  # [D/2, width/2]
        gain = own[:, None] / max(float(scores.double().mean()), 1e-30) - position_weight * change
        found.append(torch.from_numpy(_rising(gain)) + half * whole // 2)
    return torch.cat(found)


def _rising(gain: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Rising rows, one for each column, whose summed gain is highest."""
    rows, columns = gain.shape
    best = np.full((columns + 1, rows + 1), -np.inf)  # [columns placed, rows looked at]
    best[0] = 0.0
    for column in range(1, columns + 1):
        taken = best[column - 1, :-1] + gain[:, column - 1]
        best[column, 1:] = np.maximum.accumulate(taken)
    chosen, row = np.zeros(columns, np.int64), rows
    for column in range(columns, 0, -1):
        while best[column, row - 1] == best[column, row]:
            row -= 1
        row -= 1
        chosen[column - 1] = row
    return chosen


def _best(scores: Tensor, count: int) -> Tensor:
    return scores.argsort(descending=True, stable=True)[:count].sort().values


def _within(scores: Tensor, heads: Tensor, count: int, size: int) -> Tensor:
    """The best channels of each head that stays, side by side."""
    apart = scores.view(count, -1)
    return torch.cat([_best(apart[head], size) + head * apart.shape[1] for head in heads])
