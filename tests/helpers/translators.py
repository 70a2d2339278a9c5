"""Translators that need no model, and know exactly which word became which."""

from __future__ import annotations

import re
from collections.abc import Sequence

from mobilenmt.runtime.text.markup.document import Result, Unit

_WORD = re.compile(r"\S+")


def spread(words: Sequence[tuple[int, int]], text: str, order: Sequence[int]) -> Result:
    """Write the words of a text in an order (a word may come twice), with links."""
    out, links, at = [], [], 0
    for index in order:
        start, end = words[index]
        links.append((start, end, at, at + end - start))
        out.append(text[start:end])
        at += end - start + 1
    return Result(" ".join(out), links)


def find_words(text: str) -> list[tuple[int, int]]:
    """What white space separates."""
    return [match.span() for match in _WORD.finditer(text)]


def reverse(units: Sequence[Unit]) -> list[Result]:
    """The last word first."""
    return [spread(w := find_words(unit.text), unit.text, range(len(w) - 1, -1, -1)) for unit in units]


def double(units: Sequence[Unit]) -> list[Result]:
    """Each word twice."""
    return [
        spread(w := find_words(unit.text), unit.text, [i for i in range(len(w)) for _ in range(2)]) for unit in units
    ]


def copy(units: Sequence[Unit]) -> list[Result]:
    """Nothing changes."""
    return [spread(w := find_words(unit.text), unit.text, range(len(w))) for unit in units]


def shout(units: Sequence[Unit]) -> list[Result]:
    """Another text, in the same order, without links; what is to be kept is kept."""
    results = []
    for unit in units:
        letters = list(unit.text.upper()) if len(unit.text.upper()) == len(unit.text) else list(unit.text)
        for start, end in unit.kept:
            letters[start:end] = unit.text[start:end]
        results.append(Result("".join(letters)))
    return results
