"""Outputs of the model, links between words, and what links are for: a lost placeholder put where it belongs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from mobilenmt.runtime.text.placeholders import Protected

Link = tuple[int, int, int, int]
"""(source start, source end, target start, target end): characters of words that translate one another."""


class Output(NamedTuple):
    """One translation of a text."""

    text: str
    links: Sequence[Link] = ()
    """(source start, source end, target start, target end) of words that translate one another, where known. In
    :class:`Result` the source is the sentence, the target still :attr:`text`."""
    origin: object = None
    """Whatever the host wants to find again in :class:`Result`."""
    marks: tuple[tuple[str, str], ...] = ()
    """Placeholders in :attr:`text` and what stands for them in the result."""
    score: float = 0.0
    """Log-probability, the mean of its tokens."""


class Result(NamedTuple):
    """What a sentence became."""

    text: str
    flags: tuple[str, ...] = ()
    """``placed``: a span was put back where the links say; ``parts``: the sentence was translated in parts."""
    outputs: tuple[Output, ...] = ()
    """The outputs that it is made of."""
    alternatives: tuple[Result, ...] = ()
    """Where several translations were given: the next best that keep everything."""


def place(output: str, protected: Protected, links: Sequence[Link]) -> str:
    """The output with each missing placeholder put in.

    What is linked to the placeholder itself is taken for its garbled translation and replaced; else it goes behind the
    translation of what stands before it, else before the translation of what stands behind it, else to the end.

    Args:
        output: a translation of ``protected.text``.
        protected: the source.
        links: between both, in characters.
    """
    from mobilenmt.runtime.text.placeholders import restore  # not before: most calls need only the types above

    changes = []
    for index in restore(output, protected).missing:
        mark = protected.marks[index]
        start, end, before, after = _target(output, mark.start, mark.end, links)
        changes.append((start, end, index, before + mark.placeholder + after))
    for start, end, _, text in sorted(changes, reverse=True):
        output = output[:start] + text + output[end:]
    return output


def _target(output: str, start: int, end: int, links: Sequence[Link]) -> tuple[int, int, str, str]:
    """Which characters of the output a placeholder replaces, and the spaces it brings along."""
    own = [link for link in links if link[0] < end and start < link[1]]
    if own:
        first, last = min(link[2] for link in own), max(link[3] for link in own)
        foreign = [link for link in links if link not in own and link[2] < last and first < link[3]]
        if not foreign:
            return first, last, "", ""
    before = [link for link in links if link[1] <= start]
    if before:
        nearest = max(link[1] for link in before)
        at = max(link[3] for link in before if link[1] == nearest)
        return at, at, " ", ""
    behind = [link for link in links if link[0] >= end]
    if behind:
        nearest = min(link[0] for link in behind)
        at = min(link[2] for link in behind if link[0] == nearest)
        return at, at, "", " "
    at = len(output.rstrip(".!?… "))
    return at, at, " ", ""


def find_places(text: str, kept: Sequence[str]) -> list[tuple[int, int]]:
    """Where the kept spans stand in a translation, in order."""
    places: list[tuple[int, int]] = []
    for span in sorted(set(kept), key=len, reverse=True):
        start = text.find(span)
        while start >= 0:
            end = start + len(span)
            if all(end <= place[0] or place[1] <= start for place in places):
                places.append((start, end))
            start = text.find(span, end)
    return sorted(places)
