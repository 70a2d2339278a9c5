"""The rules for ends of sentences, read from ``rules/sentences/`` and made ready for the scanner in sentences.py."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Self

from mobilenmt.runtime.text.data import base_language, has, load

_CLASSES = {"before": "b", "number": "n", "both": "o", "end": "e"}
_PATTERNS = ("enumerator", "roman", "date", "reference", "speech_goes_on")
_LISTS = (
    "words",
    "endings",
    "headings",
    "exclamations",
    "starters",
    "small_starters",
    "speech",
    "not_after_ellipsis",
)


@dataclass(frozen=True, eq=False, repr=False)  # neither is needed, and each costs time at import
class SentenceRules:
    """The rules of one language, ready for use."""

    mark: re.Pattern[str]
    """What a mark, an emoji or a smiley begins with: one class, since a search for that is fastest."""
    marks: frozenset[str]
    free: frozenset[str]
    """Marks that need no white space behind them."""
    smile: re.Pattern[str]
    closers: frozenset[str]
    quotes: frozenset[str]
    openers: frozenset[str]
    dashes: frozenset[str]
    enumerator: re.Pattern[str]
    roman: re.Pattern[str]
    date: re.Pattern[str]
    reference: re.Pattern[str]
    speech_goes_on: re.Pattern[str]
    classes: dict[str, str]
    """Abbreviation, without its last full stop -> classes, each a letter of b(efore), n(umber), o (both), e(nd)."""
    words: frozenset[str]
    endings: frozenset[str]
    headings: frozenset[str]
    exclamations: frozenset[str]
    starters: frozenset[str]
    small_starters: frozenset[str]
    speech: frozenset[str]
    not_after_ellipsis: frozenset[str]
    ordinals: bool

    @classmethod
    def of(cls, language: str) -> Self:
        """Those of a language, by a code such as ``en`` or ``de-AT``."""
        return cls(**_load(base_language(language)))

    def is_number_of(self, before: str) -> bool:
        """Whether what stands before a full stop is the number of an item or a heading: 1, 2.3, A, IV, Chapter 3."""
        heading, _, number = before.rpartition(" ")
        return self.enumerator.match(number) is not None and (not heading or heading.lower() in self.headings)

    def is_ordinal(self, word: str) -> bool:
        """Whether a number with a full stop may be "the third": 3, 24.12, XIV."""
        if not self.ordinals:
            return False
        if word.isdigit():
            return len(word) <= 3
        return (self.date.match(word) or (len(word) > 1 and self.roman.match(word))) is not None

    def classes_of(self, word: str) -> str:
        """The classes of an abbreviation: as it is written, else in small letters if it may begin a sentence so."""
        found = self.classes.get(word)
        if found is None and word[:1].isupper():
            small = word.lower() if word.isupper() or "." in word else word[:1].lower() + word[1:]
            found = self.classes.get(small)
        if found is None and word[-3:] in self.endings:
            return "no"
        return found or ""


@lru_cache(maxsize=16)
def _load(code: str) -> dict[str, Any]:
    general = load("sentences/all")
    code = general["codes"].get(code, code)
    own = load(f"sentences/{code}") if re.fullmatch("[a-z]{2}", code) and has(f"sentences/{code}") else {}
    classes: dict[str, str] = {}
    for name, letter in _CLASSES.items():
        for word in own.get(name, general.get(name, "")).split():
            classes[word] = classes.get(word, "") + letter
    marks = general["marks"] + own.get("marks", "")
    emoji = general["emoji_ranges"]
    characters: dict[str, Any] = {key: frozenset(general[key]) for key in ("closers", "quotes", "openers", "dashes")}
    patterns: dict[str, Any] = {key: re.compile(general[key]) for key in _PATTERNS}
    words: dict[str, Any] = {key: frozenset(own.get(key, "").split()) for key in _LISTS}
    return dict(
        mark=re.compile(f"[{re.escape(marks + general['free_marks'])}:;={emoji}]"),
        marks=frozenset(marks),
        free=frozenset(general["free_marks"]),
        smile=re.compile(f"[{emoji}][{emoji}\ufe0f\u200d]*|{general['emoticon']}"),
        classes=classes,
        ordinals=code in general["ordinal_languages"].split(),
        **characters,
        **patterns,
        **words,
    )
