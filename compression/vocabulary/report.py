"""What a vocabulary costs and does: bytes, tokens a word, characters that need bytes."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import numpy as np

from mobilenmt.compression.core.pairs import read_pairs
from mobilenmt.compression.vocabulary.vocabulary import Vocabulary
from mobilenmt.export.tokenizer import prepare_tokenizer

_BYTE = re.compile(r"<0x[0-9A-F]{2}>")


def measure(folder: Path, pairs: Path) -> dict[str, Any]:
    """Measure a vocabulary folder on pairs that it was not trained on.

    Keys: ``size``; ``bytes`` of the tokenizer.json that goes into a pack; for ``source`` and ``target``:
    ``tokens_per_word`` (fertility; words are what spaces separate), ``characters_per_token``, ``tokens_median`` and
    ``tokens_99`` a sentence, ``characters_in_bytes`` (share of the characters that no piece holds), ``round_trip``
    (share of the sentences that come back exactly).
    """
    vocabulary = Vocabulary.load(folder)
    prepared = prepare_tokenizer(
        folder, vocab_size=vocabulary.size, target_vocab_size=vocabulary.size, eos=0, pad=vocabulary.pad, unk=1
    )
    sides = (_Side(vocabulary), _Side(vocabulary))
    stream = read_pairs(pairs)
    while batch := list(itertools.islice(stream, 1000)):
        sides[0].add([pair.source for pair in batch])
        sides[1].add([pair.target for pair in batch])
    return {
        "size": vocabulary.size,
        "bytes": len(prepared.source_json.encode()),
        "measured_on_pairs": sides[0].sentences,
        "source": sides[0].summary(),
        "target": sides[1].summary(),
    }


class _Side:
    """Counts over the sentences of one language."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._pieces = vocabulary.pieces(range(vocabulary.size))
        self._is_byte = np.array([bool(_BYTE.fullmatch(piece)) for piece in self._pieces], dtype=bool)
        self.sentences = 0
        self._words = self._characters = self._spelled = self._exact = 0
        self._lengths: list[int] = []

    def add(self, texts: list[str]) -> None:
        for text, ids in zip(texts, self._vocabulary.encode_batch(texts), strict=True):
            self.sentences += 1
            self._words += len(text.split())
            self._characters += len(text)
            self._lengths.append(len(ids))
            self._exact += self._vocabulary.decode(ids) == text
            for index in np.asarray(ids, dtype=np.int64)[self._is_byte[ids]] if ids else ():
                # a character begins at each byte that does not go on with one
                self._spelled += int(self._pieces[index][3:5], 16) & 0xC0 != 0x80

    def summary(self) -> dict[str, float]:
        tokens = sum(self._lengths)
        return {
            "tokens_per_word": round(tokens / max(1, self._words), 4),
            "characters_per_token": round(self._characters / max(1, tokens), 4),
            "tokens_median": float(np.median(self._lengths)) if self._lengths else 0.0,
            "tokens_99": float(np.percentile(self._lengths, 99)) if self._lengths else 0.0,
            "characters_in_bytes": self._spelled / max(1, self._characters),
            "round_trip": self._exact / max(1, self.sentences),
        }
