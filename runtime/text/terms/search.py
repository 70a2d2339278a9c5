"""How a stretch with terms is translated without placeholders for them.

First as it is: the model may say the terms by itself. Else a search finds translations that hold them, of the source
as it is and of one with the targets in it already, which a model may copy; of both the likelier one counts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mobilenmt.runtime.text.glossary import RULE
from mobilenmt.runtime.text.kept import Kept
from mobilenmt.runtime.text.placeholders import Protected
from mobilenmt.runtime.text.placing import Output
from mobilenmt.runtime.text.terms.words import holds

_LIKELIER = 0.25  # log-probability a token that a translation of the source as it is may be less likely; by dev text

Search = Callable[[list[str], list[list[str]]], list[list[Output]]]
"""Texts and the words that their translations have to hold, to such translations, best first; none where none was
found."""

Protect = Callable[[str, Sequence[Kept], frozenset[str]], tuple[Protected | None, Sequence[Kept]]]
"""A text, its spans, and the rules whose spans stay in it, to the text with placeholders and the spans of its marks."""


@dataclass(frozen=True)
class Stretch:
    """A text with terms, ready for the model."""

    text: str
    kept: Sequence[Kept]
    whole: Protected
    """As it is; what else is kept has placeholders."""
    others: Sequence[Kept]
    """The spans of these."""
    inside: Protected
    """With the targets of the terms in their places."""
    spans: Sequence[Kept]
    """Its spans, terms too."""

    @property
    def terms(self) -> list[str]:
        """What the glossary wants."""
        return [span.written(self.text) for span in self.kept if span.rule == RULE]

    @property
    def spelled(self) -> bool:
        """Whether all terms stand like words: what touches them on the left would be parted from them."""
        starts = [span.start for span in self.kept if span.rule == RULE]
        return not any(self.text[max(0, start - 1) : start].strip() for start in starts)


@dataclass(frozen=True)
class Attempt:
    """Translations of a stretch, all with its terms."""

    protected: Protected
    spans: Sequence[Kept]
    outputs: Sequence[Output]
    checked: Protected
    """The same with the marks alone that have to be in place: terms may stand in another order."""

    @property
    def score(self) -> float:
        """That of the best."""
        return self.outputs[0].score if self.outputs else -math.inf


def attempt(
    texts: Sequence[tuple[str, Sequence[Kept]]],
    protect: Protect,
    translate: Callable[[list[str], int], list[list[Output]]],
    search: Search,
    take: Callable[[int, Attempt], bool],
) -> None:
    """Try texts with terms.

    Args:
        texts: with their spans.
        protect: puts placeholders into them.
        translate: the model alone.
        search: the search.
        take: is given the place of a text and what was found, and says whether that is good.
    """
    waiting: list[tuple[int, Stretch]] = []
    for index, (text, kept) in enumerate(texts):
        whole, others = protect(text, [span for span in kept if span.rule != RULE], frozenset())
        inside, spans = protect(text, kept, frozenset({RULE}))
        if whole is not None and inside is not None:
            waiting.append((index, Stretch(text, kept, whole, others, inside, spans)))
    found = translate([item.whole.text for _, item in waiting], 1) if waiting else []
    waiting = [
        (index, item)
        for (index, item), outputs in zip(waiting, found, strict=True)
        if not take(index, _whole(item, outputs)) and item.spelled
    ]
    if not waiting:
        return
    terms = [item.terms for _, item in waiting]
    both = search([item.whole.text for _, item in waiting] + [item.inside.text for _, item in waiting], terms + terms)
    for (index, item), one, other in zip(waiting, both[: len(waiting)], both[len(waiting) :], strict=True):
        plain, copied = _whole(item, one), _inside(item, other)
        take(index, plain if plain.score > copied.score - _LIKELIER else copied)


def _whole(item: Stretch, outputs: Sequence[Output]) -> Attempt:
    return Attempt(item.whole, item.others, _holding(item, outputs), item.whole)


def _inside(item: Stretch, outputs: Sequence[Output]) -> Attempt:
    marks = tuple(mark for mark, span in zip(item.inside.marks, item.spans, strict=True) if span.rule != RULE)
    return Attempt(item.inside, item.spans, _holding(item, outputs), Protected(item.inside.text, marks))


def _holding(item: Stretch, outputs: Sequence[Output]) -> list[Output]:
    return [output for output in outputs if holds(output.text, item.terms)]
