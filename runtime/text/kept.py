"""Finds what a translation keeps as it is: addresses, placeholders, code, numbers and the like, by named rules.

The rules are data (``rules/kept.json``), in regular expressions that Python, JavaScript (with the ``u`` flag), Java and
ICU read alike: no ``\\w``, ``\\d``, ``\\b`` (they differ), no inline flags, look-behind of one width only. Each pattern
takes linear time: it begins where nothing of its own kind stands before it, and what repeats in it is unambiguous.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any, NamedTuple

from mobilenmt.runtime.errors import InputError
from mobilenmt.runtime.text.data import filled, load

_NAME = "[a-z][a-z0-9_]{0,40}"
_EDGES = ("", "after_end", "always")

_PAIRED = frozenset("()[]{}\"'`«»‹›“”„‟‘’‚‛")
_AROUND = _PAIRED | frozenset("$€£¥₹₽₩₺₴₿%*_~^=|#@&+<>\\/§")
"""Signs that a span takes along where they stand around it."""

Finder = Callable[[str], Iterable[tuple[int, int]]]
"""Text to the start and end of each span."""


class Kept(NamedTuple):
    """A span text[start:end] that a translation keeps, or that becomes a text which is known beforehand."""

    start: int
    end: int
    rule: str
    target: str | None = None
    """What it becomes (a term of a glossary); None for what it is."""

    def written(self, text: str) -> str:
        """What it becomes, in the text it was found in."""
        return text[self.start : self.end] if self.target is None else self.target

    def moved(self, by: int) -> Kept:
        """The span of a text that begins `by` characters later."""
        return self._replace(start=self.start - by, end=self.end - by)


@dataclass(frozen=True)
class Rule:
    """One kind of span."""

    name: str
    find: Finder
    copied: bool = False
    """Models copy it by themselves: it goes through the model as it is, and is checked afterwards."""
    either: str = ""
    """Two characters that may stand for one another in the output ("3.5", "3,5"), or none."""
    edge: str = ""
    """``always``: at either end of a sentence it is no part of it (emoji); ``after_end``: only behind its last mark."""

    spaced: bool = False
    """Where it touches a word ("<b>Save</b>") the model sees a space between."""
    signs: frozenset[str] = frozenset()
    """Characters of which a text must have one for the rule to find anything; empty for no such condition."""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not re.fullmatch(_NAME, self.name):
            raise InputError(f"a rule's name is of small letters, figures and _, not {self.name!r}")
        if self.edge not in _EDGES:
            raise InputError(f"rule {self.name}: edge must be one of {', '.join(map(repr, _EDGES))}, not {self.edge!r}")
        if len(self.either) not in (0, 2):
            raise InputError(f"rule {self.name}: either must be two characters or none, not {self.either!r}")


@dataclass(frozen=True)
class Rules:
    """Rules in order of precedence. Of overlapping spans the one that starts first counts, then the longest one, then
    the one of the earlier rule."""

    rules: tuple[Rule, ...]
    quick: Callable[[str], object] | None = None
    """Gives something true for every text in which one of the rules may find anything; None to ask each."""

    breaks: Callable[[str], object] | None = None
    """Gives something true for a span that parts two sentences: a written-out line break, ``<br>``."""

    @staticmethod
    def default() -> Rules:
        """All rules that there are, as the Translator uses them."""
        return default_rules()

    @cached_property
    def copied(self) -> frozenset[str]:
        """Names of the rules whose spans models copy."""
        return frozenset(rule.name for rule in self.rules if rule.copied)

    @cached_property
    def spaced(self) -> frozenset[str]:
        """Names of the rules whose spans stand between spaces for the model."""
        return frozenset(rule.name for rule in self.rules if rule.spaced)

    @cached_property
    def _named(self) -> dict[str, Rule]:
        return {rule.name: rule for rule in reversed(self.rules)}

    def __repr__(self) -> str:
        return f"Rules({', '.join(rule.name for rule in self.rules)})"

    def __getitem__(self, name: str) -> Rule:
        rule = self.get(name)
        if rule is not None:
            return rule
        raise InputError(f"no rule is named {name!r}; there are {', '.join(rule.name for rule in self.rules)}")

    def get(self, name: str) -> Rule | None:
        """The rule of a name, or None."""
        return self._named.get(name)

    def without(self, *names: str) -> Rules:
        """The rules but for some.

        Raises:
            InputError: there is no rule of that name.
        """
        for name in names:
            self[name]
        return replace(self, rules=tuple(rule for rule in self.rules if rule.name not in names))

    def only(self, *names: str) -> Rules:
        """Some of the rules, in the order they have here."""
        for name in names:
            self[name]
        return replace(self, rules=tuple(rule for rule in self.rules if rule.name in names))

    def adding(self, name: str, find: str | Finder, **options: Any) -> Rules:
        """The rules with one more before them all, or in the place of one of the same name.

        Args:
            name: what it is called in :class:`Kept` and by :meth:`without`.
            find: a regular expression, or a function that gives the start and end of each span in a text.
            options: ``copied``, ``either``, ``edge``, ``spaced`` of :class:`Rule`.

        Raises:
            InputError: the expression is none, a name or an option is not allowed; and while a text is read, what a
                function gives is no pairs of offsets.
        """
        rule = Rule(name, _finder(name, find) if isinstance(find, str) else _checked(name, find), **options)
        rules = (rule, *(other for other in self.rules if other.name != name))
        return Rules(rules, None, self.breaks)

    def find(self, text: str) -> list[Kept]:
        """The spans to keep, in order, none overlapping another."""
        if self.quick is not None and not self.quick(text):
            return []
        characters = frozenset(text)
        found = [
            (start, -end, rank)
            for rank, rule in enumerate(self.rules)
            if not rule.signs or not rule.signs.isdisjoint(characters)
            for start, end in rule.find(text)
            if 0 <= start < end <= len(text)
        ]
        found.sort()
        kept: list[Kept] = []
        done = 0
        for start, end, rank in found:
            if start >= done:
                done = -end
                kept.append(Kept(start, done, self.rules[rank].name))
        return kept


@cache
def default_rules() -> Rules:
    """The rules of ``rules/kept.json``, all of them."""
    data = load("kept")

    def whole(pattern: str) -> str:
        return filled(pattern, data["sets"])

    rules = [
        Rule(
            item["name"],
            _finder(item["name"], whole(item["pattern"]), whole(item.get("hint", ""))),
            item.get("copied", False),
            item.get("either", ""),
            item.get("edge", ""),
            item.get("spaced", False),
            frozenset(item.get("signs", "")),
        )
        for item in data["rules"]
    ]
    first, second = (re.compile(whole(pattern)).search for pattern in data["any"])
    breaks = re.compile(whole(data["breaks"])).fullmatch
    return Rules(tuple(rules), lambda text: first(text) or second(text), breaks)


def gather(
    text: str,
    rules: Rules,
    with_terms: Callable[[str, list[Kept]], list[Kept]] | None = None,
    extra: Callable[[str], Sequence[Kept]] | None = None,
) -> list[Kept]:
    """The spans of a text by rules, with the terms of a glossary, and what is left of those by a function."""
    kept = _with_signs(text, rules.find(text), rules)
    if with_terms is not None:
        kept = with_terms(text, kept)
    if extra is None or not (more := extra(text)):
        return kept
    return sorted([*kept, *_beside(text, more, sorted(kept))])


def _beside(text: str, spans: Sequence[Kept], kept: Sequence[Kept]) -> Iterator[Kept]:
    """What of some spans lies outside of others, without the spaces at its ends: 猫 of "😀 猫" beside the emoji."""
    index = done = 0
    for span in sorted(spans):
        while index < len(kept) and kept[index].end <= span.start:
            index += 1
        start, at = max(span.start, done), index
        while start < span.end:
            there = at < len(kept) and kept[at].start < span.end
            end = kept[at].start if there else span.end
            stretch = text[start:end].strip() if there or start > span.start else text[start:end]
            if stretch:
                begin = text.index(stretch, start)
                yield span._replace(start=begin, end=begin + len(stretch))
            start = max(start, kept[at].end) if there else span.end
            at += 1
        done = max(done, span.end)


def _with_signs(text: str, kept: list[Kept], rules: Rules) -> list[Kept]:
    """The spans with the signs that stand around them: "$$price$$", "**{x}**", "((3.50 EUR))".

    A sign on one side, a bracket or a quote is left to the check of what touches a span; models lose one of several.
    """
    grown: list[Kept] = []
    for index, span in enumerate(kept):
        if _AROUND.isdisjoint((text[span.start - 1 : span.start], text[span.end : span.end + 1])):
            grown.append(span)
            continue
        rule = rules.get(span.rule)
        first = grown[-1].end if grown else 0
        last = kept[index + 1].start if index + 1 < len(kept) else len(text)
        if span.target is None and (rule is None or not rule.spaced):
            start = _run(text, span.start - 1, -1, first)
            end = _run(text, span.end, 1, last)
            left, right = text[start : span.start], text[span.end : end]
            both = bool(left and right) and (min(len(left), len(right)) > 1 or not set(left + right) & _PAIRED)
            if not (both or (len(left) > 1 and not set(left) & _PAIRED)):
                start = span.start
            if not (both or (len(right) > 1 and not set(right) & _PAIRED)):
                end = span.end
            span = span._replace(start=start, end=end)
        grown.append(span)
    return grown


def _run(text: str, at: int, step: int, limit: int) -> int:
    """How far signs reach from `at` on, as an end of a slice; where a letter or figure touches them, no sign counts."""
    here = at
    while (here >= limit if step < 0 else here < limit) and text[here] in _AROUND:
        here += step
    if here >= 0 and text[here : here + 1].isalnum():
        here = at
    return here + 1 if step < 0 else here


def find(text: str, rules: Rules | None = None) -> list[Kept]:
    """The spans of `text` to keep by `rules` (None for :func:`default_rules`), in order, none overlapping another."""
    return (default_rules() if rules is None else rules).find(text)


def _checked(name: str, find: Finder) -> Finder:
    """A caller's function, of which something else than pairs of offsets is told by the name of its rule."""
    if not callable(find):
        raise InputError(f"rule {name}: expected a regular expression or a function, not {type(find).__name__}")

    def spans(text: str) -> Iterable[tuple[int, int]]:
        given = find(text)
        try:
            return [(operator.index(start), operator.index(end)) for start, end in given]
        except (TypeError, ValueError):
            raise InputError(f"rule {name}: the function must give (start, end) of each span, not {given!r}") from None

    return spans


def _finder(name: str, pattern: str, hint: str | None = None) -> Finder:
    """What finds a pattern; where `hint`, one that costs little, finds nothing, it cannot match either."""
    compiled: list[re.Pattern[str]] = []  # at first use: compiling all patterns takes 40 ms, most texts need a few

    def compile_pattern() -> re.Pattern[str]:
        try:
            compiled.append(re.compile(pattern))
        except (re.error, RecursionError, OverflowError) as error:
            raise InputError(f"rule {name}: not a regular expression: {error}") from None
        return compiled[0]

    if hint is None:
        compile_pattern()  # a caller's: to be told now
    possible: list[re.Pattern[str]] = []

    def spans(text: str) -> Iterable[tuple[int, int]]:
        if hint:
            if not possible:
                possible.append(re.compile(hint))
            if not possible[0].search(text):
                return ()
        return [match.span() for match in (compiled[0] if compiled else compile_pattern()).finditer(text)]

    return spans
