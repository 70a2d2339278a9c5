"""One shot: a model in memory and a text in, a pruned model out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mobilenmt.compression.prune.calibrate import Texts, calibrate, measure_loss
from mobilenmt.compression.prune.cut import cut
from mobilenmt.compression.prune.importance import Scores, score
from mobilenmt.compression.prune.network import SIDES, Network
from mobilenmt.compression.prune.pieces import Pieces
from mobilenmt.compression.prune.reconstruct import Reconstruction
from mobilenmt.compression.prune.select import Selection, choose_layers, select
from mobilenmt.compression.prune.settings import HowToPrune
from mobilenmt.compression.prune.target import check_target
from mobilenmt.compression.train.student import StudentShape

_LOSS_SENTENCES = 100
"""For each layer that might go the loss of so many sentences is measured."""


@dataclass(frozen=True)
class Pruned:
    """A network, and how it came about."""

    network: Network
    """The pruned one."""
    layers: Mapping[str, Sequence[int]]
    """Which layers of the model it has, by side."""
    selection: Selection
    """Which units of them; places are counted in the pruned one."""
    scores: Scores
    """Of the units of the model without the layers that went."""
    losses: Mapping[str, float]
    """On the calibration text, nats a token: ``before``, ``after``."""


def prune_network(
    network: Network,
    shape: StudentShape,
    texts: Texts,
    pieces: Pieces,
    how: HowToPrune,
    *,
    languages: tuple[str, str] = ("", ""),
    seed: int = 0,
) -> Pruned:
    """Prune a model in memory.

    Args:
        network: the model.
        shape: what is to be left; see :func:`~mobilenmt.compression.prune.target.check_target`.
        texts: pairs to calibrate on.
        pieces: the model's tokenizer.
        how: importance, reconstruction, amounts of text.
        languages: codes of the text, "" where not known.
        seed: of random scores and projections.

    Raises PruneError: the shape is no part of the model, the text will not do, or the model gives NaN.
    """
    check_target(shape, network.config)
    found = calibrate(texts, pieces, network.config, languages=languages, tokens=how.tokens)
    before = measure_loss(network, found)
    deeper = any(network.layers(side) > getattr(shape, f"{side}_layers") for side in SIDES)
    of_layers = None
    if deeper and how.depth != "loss":
        of_layers = score(how.depth, network, found, seed=seed).layers
    layers = choose_layers(network, shape, found.first(_LOSS_SENTENCES), of_layers)
    shallow = network.with_layers(layers)
    scores = score(how.importance, shallow, found, seed=seed)
    selection = select(shallow, shape, scores, position_weight=how.position_weight)
    pruned = cut(shallow, shape, selection)
    if how.reconstruct != "none":
        fitting = Reconstruction(
            network, pruned, layers, selection, ridge=how.ridge, matrices=how.reconstruct == "least_squares"
        )
        pruned = fitting.fit(found.batches)
    after = measure_loss(pruned, found)
    return Pruned(pruned, layers, selection, scores, {"before": before, "after": after})
