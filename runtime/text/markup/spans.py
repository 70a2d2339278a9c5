"""What no mark and no line end may part: kept spans of several words, or with signs inside ("3.5 km", an address)."""

from __future__ import annotations

from collections.abc import Sequence

from mobilenmt.runtime.text.kept import find
from mobilenmt.runtime.text.markup.document import Mark

Span = tuple[int, int]


def spans(text: str, marks: Sequence[Mark] = ()) -> list[Span]:
    """The spans of a text by the default rules, in order, but for those in which a mark begins or ends, and those that
    a mark keeps already."""
    edges = {at for mark in marks for at in (mark.start, mark.end)}
    found = _free(text, [(mark.start, mark.end) for mark in marks if mark.kept])
    return [(a, b) for a, b in found if edges.isdisjoint(range(a + 1, b))]


def same_spans(target: str, text: str, found: Sequence[Span], taken: Sequence[Span]) -> list[Span]:
    """The spans of a translation that are those of its source, in whichever way decimals are written, outside of what
    is taken."""
    wanted = {_figures(text[a:b]) for a, b in found}
    return [(a, b) for a, b in _free(target, taken) if _figures(target[a:b]) in wanted] if wanted else []


def _figures(span: str) -> str:
    return span.replace(",", ".")


def _free(text: str, taken: Sequence[Span]) -> list[Span]:
    used = bytearray(len(text))
    for start, end in taken:
        used[start:end] = b"\1" * (end - start)
    return [(a, b) for a, b, *_ in find(text) if 1 not in used[a:b]]
