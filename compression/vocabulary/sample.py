"""The text a vocabulary is trained on and measured with: a sample of bounded size, drawn by hash, on the disk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from mobilenmt.compression.core.errors import CorpusError
from mobilenmt.compression.core.hashing import Hasher
from mobilenmt.compression.core.pairs import PairWriter, read_pairs
from mobilenmt.compression.core.tag_weights import Repeater, weight_of

HELD_BACK = 10_000
"""Pairs kept out of training, to measure fertility and coverage on; at most a twentieth of all."""
_ASCII = [chr(code) for code in range(33, 127)]


@dataclass(frozen=True)
class Sample:
    """A drawn sample."""

    training: Path
    """File of pairs to learn from."""
    held_back: Path
    """File of pairs to measure with; the training file where there are too few pairs to keep any back."""
    characters: Counter[str]
    """Characters of both sides of the training text, spaces left out."""

    def texts(self) -> Iterator[str]:
        """Sentences of both languages."""
        for pair in read_pairs(self.training):
            yield pair.source
            yield pair.target

    def alphabet(self, coverage: float) -> list[str]:
        """The most frequent characters that make up this share of the text, and always printable ASCII.

        With a letter comes its other case, so that TEXT IN CAPITALS is spelled by letters.
        """
        wanted = coverage * sum(self.characters.values())
        kept = dict.fromkeys(_ASCII)
        covered = sum(self.characters[letter] for letter in kept)
        for letter, count in sorted(self.characters.items(), key=lambda item: (-item[1], item[0])):
            if covered >= wanted:
                break
            if letter not in kept:
                covered += count
                for form in (letter, letter.lower(), letter.upper()):
                    if len(form) == 1:
                        kept[form] = None
        return sorted(kept)


def draw_sample(pairs: Path, folder: Path, *, size: int, weights: Mapping[str, float], seed: int) -> Sample:
    """Draw about `size` pairs, each tag by its weight, in two passes over the file and in flat memory.

    :raises CorpusError: the pairs cannot be read, or there are none.
    """
    total, weighted = 0, 0.0
    known: dict[str, float] = {}
    for pair in read_pairs(pairs):
        weight = known.get(pair.tag)
        if weight is None:
            weight = known[pair.tag] = weight_of(pair.tag, weights)
        total += 1
        weighted += weight
    if not weighted:
        raise CorpusError(f"{pairs}: {'no pairs' if not total else 'all pairs have weight 0'}; nothing to learn from")
    # more than one copy of everything teaches nothing new
    repeater = Repeater(weights, seed, "vocabulary sample", scale=min(1.0, size / weighted))
    held_back = min(HELD_BACK / total, 0.05)
    hasher = Hasher(seed, "vocabulary test")
    characters: Counter[str] = Counter()
    training_file, test_file = folder / "training.tsv.zst", folder / "held-back.tsv.zst"
    with PairWriter(training_file) as training, PairWriter(test_file) as test:
        for pair in read_pairs(pairs):
            if known[pair.tag] and hasher.uniform(pair.source, pair.target) < held_back:
                test.write(pair)
                continue
            for _ in range(repeater.times(pair)):
                training.write(pair)
                characters.update(pair.source)
                characters.update(pair.target)
    for letter in [letter for letter in characters if letter.isspace() or letter == "▁"]:
        del characters[letter]
    if not characters:
        raise CorpusError(f"{pairs}: only {total} pairs; too few to learn a vocabulary from")
    return Sample(training_file, test_file if test.count else training_file, characters)
