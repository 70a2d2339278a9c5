"""What a document says must stay (code, ``translate="no"``), as one more rule of what is kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from mobilenmt.runtime.text.fold import Folded
from mobilenmt.runtime.text.kept import Rule, Rules, default_rules
from mobilenmt.runtime.text.markup.document import Unit

RULE = "markup"
"""The name of the rule."""


def keeping(rules: Rules | None, words: Sequence[str]) -> Rules:
    """The rules (None for all) and, before them, one that finds some words wherever they stand by themselves.

    Args:
        rules: those of the call.
        words: what is kept in a unit, in every form in which a host may look for it.
    """
    base = default_rules() if rules is None else rules
    wanted = [word for word in dict.fromkeys(words) if word.strip()]

    def find(text: str) -> list[tuple[int, int]]:
        found: list[tuple[int, int]] = []
        for word in wanted:
            at = text.find(word)
            while at >= 0:
                end = at + len(word)
                if _alone(text, at, end):
                    found.append((at, end))  # of those that overlap the rules take one
                    at = end - 1
                at = text.find(word, at + 1)
        return found

    quick: Callable[[str], object] | None = None
    if base.quick is not None:
        asked = base.quick

        def quick(text: str) -> object:
            return any(word in text for word in wanted) or asked(text)

    return replace(base, rules=(Rule(RULE, find), *base.rules), quick=quick)


def kept_words(unit: Unit, fold: Callable[[str], Folded]) -> tuple[str, ...]:
    """What a unit keeps, as it is written and as the model sees it."""
    kept = [unit.text[start:end] for start, end in unit.kept]
    return tuple(dict.fromkeys([*kept, *(fold(words).text for words in kept)]))


def _alone(text: str, start: int, end: int) -> bool:
    """Whether no letter or figure stands right before or behind a stretch that begins or ends with one."""
    before = start > 0 and text[start].isalnum() and text[start - 1].isalnum()
    return not before and not (text[end - 1].isalnum() and text[end : end + 1].isalnum())
