"""Which pairs are in the wrong languages, told by scripts and by small words.

The scripts of a side are learned from the beginning of each file; a sentence mostly in others is wrong. Where the
languages are ones that :mod:`mobilenmt.compression.corpus.function_words` lists, a sentence is also wrong that has
several small words of another language and hardly one of its own. Words that stand on both sides of a pair do not
count, unless nearly all do: names of products and titles stay as they are in good translations.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache

from mobilenmt.compression.core.errors import CorpusError
from mobilenmt.compression.corpus.function_words import FUNCTION_WORDS, small_words

_WORD = re.compile(r"[^\W\d_]+")
_MAIN_SCRIPT = 0.1  # share of the letters of a side
SMALLEST_SAMPLE = 200
"""Pairs below which nothing is learned and nothing is dropped."""


class LanguageCheck:
    """Tells pairs with a side in another language.

    :param pairs: (source, target) to learn from: some ten thousand.
    :param languages: their codes.
    """

    def __init__(self, pairs: Iterable[tuple[str, str]], languages: tuple[str, str]) -> None:
        self._languages = tuple(language[:2].lower() for language in languages)
        self._words: tuple[Counter[str], Counter[str]] = (Counter(), Counter())
        letters: tuple[Counter[str], Counter[str]] = (Counter(), Counter())
        sample = 0
        for pair in pairs:
            sample += 1
            for side in (0, 1):
                self._words[side].update(_WORD.findall(pair[side].lower()))
                letters[side].update(pair[side])
        self._enabled = sample >= SMALLEST_SAMPLE
        self._scripts = [_main_scripts(count) for count in letters]

    def verify(self) -> None:
        """Compare the sides with the languages they are said to be in.

        :raises CorpusError: a side is plainly in another language.
        """
        if not self._enabled:
            return
        for name, declared, words in zip(("source", "target"), self._languages, self._words, strict=True):
            scores = {language: sum(words[word] for word in known) for language, known in FUNCTION_WORDS.items()}
            best = max(scores, key=lambda language: scores[language])
            told = scores[best] > 0.1 * words.total()  # text without sentences tells nothing
            if declared in scores and told and scores[best] > 2 * scores[declared]:
                raise CorpusError(
                    f"the {name} side is said to be {declared!r} but reads like {best!r}; are the columns or the "
                    "languages of the recipe swapped?"
                )

    def wrong(self, source: str, target: str) -> bool:
        """Whether a side is in another language than it should be. Sides of a few words are never judged."""
        if not self._enabled:
            return False
        words = [set(_WORD.findall(text.lower())) for text in (source, target)]
        return any(
            self._foreign_script(text, side) or self._foreign_words(words[side], words[1 - side], side)
            for side, text in enumerate((source, target))
        )

    def _foreign_script(self, text: str, side: int) -> bool:
        if text.isascii() and "LATIN" in self._scripts[side]:
            return False
        letters = [letter for letter in text if letter.isalpha()]
        foreign = sum(_script(letter) not in self._scripts[side] for letter in letters)
        return foreign > max(4.0, 0.6 * len(letters))

    def _foreign_words(self, words: set[str], opposite: set[str], side: int) -> bool:
        own = FUNCTION_WORDS.get(self._languages[side])
        if own is None or len(words & own) >= 4:
            return False
        rest = words - opposite
        if len(words) >= 8 and len(rest) <= 0.25 * len(words):  # hardly translated
            rest = words
        if len(rest) < 5:
            return False
        language, count = small_words(rest)
        if language == self._languages[side] or count < max(3.0, 0.2 * len(rest)):
            return False
        return len(words & own) < 0.4 * count


@lru_cache(maxsize=10_000)
def _script(letter: str) -> str:
    """The script of a letter, as its Unicode name begins: LATIN, CYRILLIC, CJK."""
    name = unicodedata.name(letter, "").replace("-", " ").partition(" ")[0]
    return "CJK" if name in ("HIRAGANA", "KATAKANA", "FULLWIDTH", "HALFWIDTH", "IDEOGRAPHIC") else name


def _main_scripts(letters: Counter[str]) -> frozenset[str]:
    scripts: Counter[str] = Counter()
    for letter, count in letters.items():
        if letter.isalpha():
            scripts[_script(letter)] += count
    return frozenset(script for script, count in scripts.items() if count >= _MAIN_SCRIPT * scripts.total())
