"""What the model gives for a text, and what a sentence became."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

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
    """Placeholders in :attr:`text` and what stands for them in the result, where there are links."""


class Result(NamedTuple):
    """What a sentence became."""

    text: str
    flags: tuple[str, ...] = ()
    """``placed``: a span was put back where the links say; ``parts``: the sentence was translated in parts."""
    outputs: tuple[Output, ...] = ()
    """The outputs that it is made of."""
    alternatives: tuple[Result, ...] = ()
    """Where several translations were given: the next best that keep everything."""
