"""Puts a lost placeholder back where the alignment of words says it belongs."""

from __future__ import annotations

from collections.abc import Sequence

from mobilenmt.runtime.text.outputs import Link
from mobilenmt.runtime.text.placeholders import Protected, restore


def place(output: str, protected: Protected, links: Sequence[Link]) -> str:
    """The output with each missing placeholder put in.

    What is linked to the placeholder itself is taken for its garbled translation and replaced; else it goes behind the
    translation of what stands before it, else before the translation of what stands behind it, else to the end.

    Args:
        output: a translation of ``protected.text``.
        protected: the source.
        links: between both, in characters.
    """
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
