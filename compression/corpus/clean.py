"""Rules that decide which pairs are fit for training. Text is judged, not changed, but for white space.

Unicode stays as it is: no normalization, no exchange of quotes or dashes, because what a model shall read and write is
what people write.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from dataclasses import dataclass

from mobilenmt.compression.core.errors import RecipeError
from mobilenmt.compression.core.settings import shown
from mobilenmt.compression.corpus.held_out import HeldOut
from mobilenmt.compression.corpus.language_id import LanguageCheck

RULES: Mapping[str, str] = {
    "weight": "the weight of its tag is 0",
    "empty": "a side has no letter and no digit",
    "control": "control characters, U+FFFD, noncharacters, private use characters",
    "length": "a side has too many characters",
    "ratio": "one side is much longer than the other",
    "identical": "both sides are the same, and too long for a name or a number",
    "markup": "entities or wiki marks on one side that the other lacks",
    "language": "a side is in the other side's language, or in a third one",
    "held_out": "a sentence of a test set",
    "duplicate": "the same pair came before",
}
"""The rules, in the order in which they are tried, and what they drop."""

_SPACES = re.compile(r"[ \t\x0b\x0c\r\n\u2028\u2029]+")
_ANY = re.compile(r"[^\W_]")
_CONTROL = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x9f\ud800-\udfff\ue000-\uf8ff\ufdd0-\ufdef\ufff9-\ufffb\ufffd\ufffe\uffff"
    "\U000f0000-\U0010ffff]"
)
_ENTITY = re.compile(r"&(?:#\d{1,7}|#x[0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,30});")
_WIKI = re.compile(r"\[\[|\]\]|\{\||\|\}|'''|={2,}[^=]+={2,}|\[(?:https?:)?//")
_BARE = re.compile(r"[\W_]+")
_SMOOTHING = 12  # characters: short sentences may differ more


@dataclass(frozen=True, kw_only=True)
class CleanSettings:
    """Thresholds of the rules."""

    max_characters: int = 900
    """Characters of the longer side."""
    max_ratio: float = 2.5
    """Characters of the longer side for each of the shorter, both counted 12 longer, so that short ones may differ."""
    length_scale: float = 1.0
    """Characters of target for each of source in good translations: 1.1 for English to German, 0.35 to Chinese."""
    max_identical_words: int = 3
    """Pairs of equal sides may have so many words with letters: names, titles, "OK"."""
    language: bool = True
    """Whether sides in the wrong language are dropped."""
    held_out_words: int = 3
    """A test sentence of fewer words is left out only where source and target both match: "Yes." is no secret."""

    def __post_init__(self) -> None:
        if self.max_characters < 1:
            raise RecipeError(f"max_characters: expected at least 1, found {shown(self.max_characters)}")
        for name in ("max_identical_words", "held_out_words"):
            if getattr(self, name) < 0:
                raise RecipeError(f"{name}: expected 0 or more, found {shown(getattr(self, name))}")
        if self.max_ratio < 1.0:
            raise RecipeError(f"max_ratio: expected at least 1, found {shown(self.max_ratio)}")
        if not 0.01 <= self.length_scale <= 100.0:
            raise RecipeError(f"length_scale: expected 0.01 to 100, found {shown(self.length_scale)}")


class Cleaner:
    """The rules that look at one pair alone.

    :param settings: thresholds.
    :param language: learned from the corpus; None leaves that rule out.
    :param held_out: sentences to leave out.
    """

    def __init__(self, settings: CleanSettings, language: LanguageCheck | None, held_out: HeldOut) -> None:
        self._settings = settings
        self._language = language if settings.language else None
        self._held_out = held_out

    def drops(self, source: str, target: str) -> str | None:
        """The name of the first rule that drops a pair, or None to keep it. White space must be tidy already."""
        settings = self._settings
        if not _ANY.search(source) or not _ANY.search(target):
            return "empty"
        if _has_control(source) or _has_control(target):
            return "control"
        if max(len(source), len(target)) > settings.max_characters:
            return "length"
        expected = len(source) * settings.length_scale + _SMOOTHING
        actual = len(target) + _SMOOTHING
        if max(expected, actual) > settings.max_ratio * min(expected, actual):
            return "ratio"
        if len(source) == len(target) or source[:1] == target[:1]:  # equal but for marks: mostly
            same = _BARE.sub(" ", source).strip().casefold()
            if same == _BARE.sub(" ", target).strip().casefold() and _letter_words(same) > settings.max_identical_words:
                return "identical"
        if _markup(source) != _markup(target):
            return "markup"
        if self._language is not None and self._language.wrong(source, target):
            return "language"
        if self._held_out.has(source, target, settings.held_out_words):
            return "held_out"
        return None


def tidy(text: str) -> str:
    """Runs of white space become one space; none at the ends. A no-break space inside stays."""
    if text.isprintable() and "  " not in text:
        return text.strip()
    return _SPACES.sub(" ", text).strip().removeprefix("\ufeff").strip()


def _has_control(text: str) -> bool:
    if text.isprintable():  # to Python all of them are unprintable but U+FFFD
        return "\ufffd" in text
    return _CONTROL.search(text) is not None


def _markup(text: str) -> tuple[list[str], int]:
    """Entities and the number of wiki marks."""
    entities = [entity for entity in _ENTITY.findall(text) if html.unescape(entity) != entity] if "&" in text else []
    return sorted(entities), len(_WIKI.findall(text))


def _letter_words(text: str) -> int:
    return sum(any(map(str.isalpha, word)) for word in text.split())
