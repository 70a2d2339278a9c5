"""Stretches of a text that are copied, not translated."""

from __future__ import annotations

from typing import NamedTuple


class Kept(NamedTuple):
    """The characters from ``start`` up to, not including, ``end``, and the name of the rule that keeps them."""

    start: int
    end: int
    rule: str
