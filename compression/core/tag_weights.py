"""Weights of corpora: how often the pairs of a tag go into training and into the vocabulary's sample."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping

from mobilenmt.compression.core.hashing import Hasher
from mobilenmt.compression.core.pairs import Pair


def weight_of(tag: str, weights: Mapping[str, float]) -> float:
    """The weight of a tag: its own entry, else the first pattern (``*``, ``?``, ``[...]``) that fits, else 1."""
    if tag in weights:
        return weights[tag]
    return next((weight for pattern, weight in weights.items() if fnmatch.fnmatchcase(tag, pattern)), 1.0)


class Repeater:
    """Turns weights into whole numbers: weight 2.5 is two for every pair and one more for every second.

    Which ones is decided by a hash of the seed and the pair's text.
    """

    def __init__(self, weights: Mapping[str, float], seed: int, purpose: str, *, scale: float = 1.0) -> None:
        self._weights = weights
        self._scale = scale
        self._hasher = Hasher(seed, purpose)
        self._known: dict[str, float] = {}

    def times(self, pair: Pair) -> int:
        """How often this pair is taken."""
        weight = self._known.get(pair.tag)
        if weight is None:
            weight = self._known[pair.tag] = weight_of(pair.tag, self._weights) * self._scale
        whole = int(weight)
        if weight > whole and self._hasher.uniform(pair.source, pair.target) < weight - whole:
            whole += 1
        return whole
