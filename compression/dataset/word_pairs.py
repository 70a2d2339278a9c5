"""Pairs of single words, found in a corpus without word alignment.

Two sources: pairs that are one word each, and words that keep company: in short pairs, two words that stand in the same
pairs far more often than apart, each the other's best (Dice's coefficient, 2 c(s, t) / (c(s) + c(t))).
"""

from __future__ import annotations

import itertools
import re
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from mobilenmt.compression.core.pairs import Pair

AROUND = " .,;:!?…¡¿\"'„“”‚‘’«»()[]。、！？"
"""Marks that may stand around a word."""

_WORD = re.compile(r"[^\W\d_]+(?:[-'’][^\W\d_]+)?")
_SHORT = 10  # words of the longer side of a pair that is counted
_PAIRS = 300_000  # short pairs counted at most, which bounds memory to about 150 MB
_LEAST = 5  # times that two words must have met
_DICE = 0.5
_MOST_FREQUENT = 60  # words of each side that are left out: articles and the like have no translation alone


def single_words(pairs: Iterable[Pair]) -> Iterator[Pair]:
    """Yield the pairs of one word each, without the punctuation around them (and without tags)."""
    for pair in pairs:
        if len(pair.source) <= 40 and len(pair.target) <= 40:
            source, target = pair.source.strip(AROUND), pair.target.strip(AROUND)
            if _WORD.fullmatch(source) and _WORD.fullmatch(target):
                yield Pair(source, target)


def associated_words(pairs: Callable[[], Iterable[Pair]]) -> Iterator[Pair]:
    """Yield words and their translations by association, the surest first; reads the beginning of the corpus twice.

    :param pairs: opens the corpus.
    """
    counts: tuple[Counter[str], Counter[str]] = (Counter(), Counter())
    for words in _short(pairs()):
        for side in (0, 1):
            counts[side].update(words[side])
    kept = [
        {word: index for index, (word, count) in enumerate(count.most_common()) if count >= _LEAST} for count in counts
    ]
    met = array("q")
    for words in _short(pairs()):
        targets = [kept[1][word] for word in words[1] if word in kept[1]]
        for word in words[0]:
            row = kept[0].get(word)
            if row is not None:
                met.extend([row << 32 | column for column in targets])
    if not met:
        return
    keys, together = np.unique(np.frombuffer(met, dtype=np.int64), return_counts=True)
    often = together >= _LEAST
    keys, together = keys[often], together[often]
    rows, columns = keys >> 32, keys & 0xFFFFFFFF
    names = [list(words) for words in kept]
    totals = [
        np.array([count[word] for word in words], dtype=np.int64) for count, words in zip(counts, names, strict=True)
    ]
    if not len(keys):
        return
    dice = 2.0 * together / (totals[0][rows] + totals[1][columns])
    best = []
    for side, index in ((0, rows), (1, columns)):
        highest = np.zeros(len(names[side]))
        np.maximum.at(highest, index, dice)
        best.append(dice >= highest[index])
    chosen = best[0] & best[1] & (dice >= _DICE) & (rows >= _MOST_FREQUENT) & (columns >= _MOST_FREQUENT)
    order = np.lexsort((keys[chosen], -dice[chosen]))
    for at in np.flatnonzero(chosen)[order].tolist():
        yield Pair(names[0][int(rows[at])], names[1][int(columns[at])])


def _short(pairs: Iterable[Pair]) -> Iterator[tuple[set[str], set[str]]]:
    """Words of short pairs but for the first of each side, whose capital may be the sentence's."""
    found = (
        (set(_WORD.findall(pair.source)[1:]), set(_WORD.findall(pair.target)[1:]))
        for pair in pairs
        if pair.source.count(" ") < _SHORT and pair.target.count(" ") < _SHORT
    )
    return itertools.islice(found, _PAIRS)
