"""Words as markup sees them: stretches that no tag needs to part, and which of them became which."""

from __future__ import annotations

import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import NamedTuple

#: Scripts that write no spaces between words: each of their characters is a word here.
_UNSPACED = (
    ("\u0e00", "\u0eff"),  # Thai, Lao
    ("\u1000", "\u109f"),  # Burmese
    ("\u1780", "\u17ff"),  # Khmer
    ("\u3040", "\u30ff"),  # Hiragana, Katakana
    ("\u3400", "\u9fff"),  # Han
    ("\U00020000", "\U0003ffff"),
)
_JOINERS = "\xad\u200c\u200d"
#: Longest link, in words of both sides, of which every word is linked with every other.
_MANY = 64


class Word(NamedTuple):
    """A stretch of a text: letters and digits, one other visible character, or something kept whole."""

    start: int
    end: int
    letters: bool
    kept: int = -1
    """The mark whose words these are, if they are kept; else -1."""


def words(text: str, kept: Sequence[tuple[int, int, int]] = ()) -> list[Word]:
    """Take a text apart into words, without the white space between them.

    Args:
        text: any text.
        kept: (start, end, mark) of the stretches that are one word whatever is in them, in order, none in another.
    """
    found: list[Word] = []
    at = following = 0
    while at < len(text):
        if following < len(kept) and kept[following][0] <= at:
            start, end, mark = kept[following]
            found.append(Word(start, end, True, mark))
            at = end
            following += 1
            continue
        character = text[at]
        if character.isspace():
            at += 1
            continue
        limit = kept[following][0] if following < len(kept) else len(text)
        end = at + 1
        letters = _joins(character)
        if not letters or not _unspaced(character):
            while letters and end < limit and _joins(text[end]) and not _unspaced(text[end]):
                end += 1
        while end < limit and _marks(text[end]):
            end += 1
        found.append(Word(at, end, letters))
        at = end
    return found


def _joins(character: str) -> bool:
    return character.isalnum() or character == "_" or _marks(character)


def _marks(character: str) -> bool:
    """Whether the character belongs to the one before it."""
    return character > "\xa9" and (unicodedata.category(character)[0] == "M" or character in _JOINERS)


def _unspaced(character: str) -> bool:
    return character >= "\u0e00" and any(first <= character <= last for first, last in _UNSPACED)


def overlapping(found: Sequence[Word], starts: Sequence[int], start: int, end: int) -> range:
    """Give the indices of the words that have a character in [start, end). `starts` are those of `found`."""
    low = max(0, bisect_right(starts, start) - 1)
    if low < len(found) and found[low].end <= start:
        low += 1
    return range(low, max(low, bisect_left(starts, end)))


def pair(
    source: str,
    target: str,
    from_words: Sequence[Word],
    to_words: Sequence[Word],
    links: Sequence[tuple[int, int, int, int]],
) -> list[list[int]]:
    """Give, for each word of the target, the words of the source it is linked with, in order.

    A link that spans several of our words on a side is taken apart: punctuation goes with the same punctuation, words
    in order where there are as many, else each with each. Then words that no link names are linked where they can only
    be each other's: the same name or number, the same punctuation behind or before words that are linked.
    """
    origins: list[list[int]] = [[] for _ in to_words]
    from_starts = [word.start for word in from_words]
    to_starts = [word.start for word in to_words]
    for a, b, c, d in links:
        here = overlapping(from_words, from_starts, a, b)
        there = overlapping(to_words, to_starts, c, d)
        _pair_one(source, target, from_words, to_words, here, there, origins)
    linked = set().union(*origins) if origins else set()
    if links:
        _pair_names(source, target, from_words, to_words, linked, origins)
    _pair_punctuation(source, target, from_words, to_words, linked, origins)
    return [sorted(set(origin)) if len(origin) > 1 else origin for origin in origins]


def _pair_one(
    source: str,
    target: str,
    from_words: Sequence[Word],
    to_words: Sequence[Word],
    here: range,
    there: range,
    origins: list[list[int]],
) -> None:
    if len(here) == 1 and len(there) == 1:
        origins[there[0]].append(here[0])
        return
    letters = [i for i in here if from_words[i].letters]
    becoming = [t for t in there if to_words[t].letters]
    if not letters or not becoming or len(here) + len(there) > _MANY:
        letters, becoming = list(here), list(there)
    else:
        signs = [i for i in here if not from_words[i].letters]
        at = 0
        for t in there:
            if to_words[t].letters:
                continue
            sign = target[to_words[t].start : to_words[t].end]
            for n in range(at, len(signs)):
                word = from_words[signs[n]]
                if source[word.start : word.end] == sign:
                    origins[t].append(signs[n])
                    at = n + 1
                    break
            else:
                continue
    if len(letters) == len(becoming):
        for i, t in zip(letters, becoming, strict=True):
            origins[t].append(i)
    elif len(letters) + len(becoming) <= _MANY:
        for t in becoming:
            origins[t].extend(letters)
    elif letters:
        for n, t in enumerate(becoming):
            origins[t].append(letters[n * len(letters) // len(becoming)])


def _pair_names(
    source: str,
    target: str,
    from_words: Sequence[Word],
    to_words: Sequence[Word],
    linked: set[int],
    origins: list[list[int]],
) -> None:
    names: dict[str, list[int]] = {}
    for i, word in enumerate(from_words):
        if word.letters and i not in linked:
            names.setdefault(source[word.start : word.end], []).append(i)
    for t, word in enumerate(to_words):
        if word.letters and not origins[t]:
            same = names.pop(target[word.start : word.end], [])
            if len(same) == 1:
                origins[t].append(same[0])
                linked.add(same[0])


def _pair_punctuation(
    source: str,
    target: str,
    from_words: Sequence[Word],
    to_words: Sequence[Word],
    linked: set[int],
    origins: list[list[int]],
) -> None:
    for step, order in ((1, range(1, len(to_words))), (-1, range(len(to_words) - 2, -1, -1))):
        for t in order:
            word = to_words[t]
            if word.letters or origins[t] or not origins[t - step]:
                continue
            i = (max if step > 0 else min)(origins[t - step]) + step
            if not 0 <= i < len(from_words) or i in linked:
                continue
            if source[from_words[i].start : from_words[i].end] == target[word.start : word.end]:
                origins[t].append(i)
                linked.add(i)


def pair_in_proportion(
    source: str, target: str, from_words: Sequence[Word], to_words: Sequence[Word]
) -> list[list[int]]:
    """Give what `pair` gives where nothing is known of links: each word of the target has the one that lies as far."""
    letters = [i for i, word in enumerate(from_words) if word.letters]
    becoming = [t for t, word in enumerate(to_words) if word.letters]
    if not letters or not becoming:
        letters, becoming = list(range(len(from_words))), list(range(len(to_words)))
    origins: list[list[int]] = [[] for _ in to_words]
    if not letters:
        return origins
    if len(letters) == len(becoming):
        for i, t in zip(letters, becoming, strict=True):
            origins[t].append(i)
    else:
        middles = [from_words[i].start + from_words[i].end for i in letters]
        for t in becoming:
            middle = (to_words[t].start + to_words[t].end) * len(source) // max(1, len(target))
            n = bisect_left(middles, middle)
            if n == len(middles) or (n and middle - middles[n - 1] <= middles[n] - middle):
                n -= 1
            origins[t].append(letters[n])
    linked = {i for origin in origins for i in origin}
    _pair_punctuation(source, target, from_words, to_words, linked, origins)
    return origins
