"""Tokenized pairs in memory, as the trainer reads them, and a made-up language to learn."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

_WORDS = (
    "the:der a:die one:das two:ein where:zwei is:wo train:ist station:Bahnhof house:Haus dog:Hund cat:Katze "
    "small:klein big:gross runs:rennt sleeps:schläft sees:sieht and:und or:oder not:nicht here:hier"
)
SOURCE, TARGET = zip(*(word.split(":") for word in _WORDS.split()), strict=True)


class MemoryDataset:
    """What ``PackedDataset`` offers, from lists of ids (the closing </s> included)."""

    def __init__(self, sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]) -> None:
        self._sides = (list(sources), list(targets))
        self.source_lengths = np.array([len(ids) for ids in sources], np.int32)
        self.target_lengths = np.array([len(ids) for ids in targets], np.int32)

    def __len__(self) -> int:
        return len(self._sides[0])

    def gather(self, indices: Array, pad: int) -> tuple[Array, Array]:
        out = []
        for side in self._sides:
            rows = [side[index] for index in indices]
            padded = np.full((len(rows), max(map(len, rows))), pad, np.int64)
            for row, ids in zip(padded, rows, strict=True):
                row[: len(ids)] = ids
            out.append(padded)
        return out[0], out[1]


def toy_pairs(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """Sentences of a made-up language: words are translated one by one, and come out in reverse order."""
    generator = random.Random(seed)
    pairs = []
    for _ in range(count):
        words = [generator.randrange(len(SOURCE)) for _ in range(generator.randint(1, 7))]
        pairs.append((" ".join(SOURCE[word] for word in words), " ".join(TARGET[word] for word in reversed(words))))
    return pairs


def toy_dataset(vocabulary: Any, pairs: Sequence[tuple[str, str]]) -> MemoryDataset:
    """Tokenize pairs."""
    sides = [
        [[*ids, vocabulary.eos] for ids in vocabulary.encode_batch([pair[side] for pair in pairs])] for side in (0, 1)
    ]
    return MemoryDataset(*sides)
