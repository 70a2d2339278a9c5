"""Which pairs are in the wrong languages: told by what the corpus itself holds, so any two languages will do.

From the beginning of each file it is learned which frequent words mark a side: those that are ten times as frequent
there as on the other (``the`` and ``und``, not ``Windows``; pairs of characters where a script has no spaces), and
which scripts a side is written in. A few sentences on the wrong side do no harm to that. A sentence is wrong if it
holds several marks of the other side and hardly one of its own. A third language is told by its small words
(:mod:`mobilenmt.compression.corpus.function_words`), where it is one that we list.

Words that stand on both sides of a pair count less: names of products and titles stay as they are in good translations.
"""

from __future__ import annotations

import bisect
import re
from collections import Counter
from collections.abc import Iterable, Sequence

from mobilenmt.compression.core.errors import CorpusError
from mobilenmt.compression.corpus.function_words import FUNCTION_WORDS, best_match

_WORD = re.compile(r"[^\W\d_]+")
_NO_SPACES = re.compile("[\u0e00-\u0e7f\u0f00-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\U00020000-\U0002ffff]")
_SCRIPTS: Sequence[tuple[int, str]] = (
    (0x0000, "Latin"),
    (0x0370, "Greek"),
    (0x0400, "Cyrillic"),
    (0x0530, "Armenian"),
    (0x0590, "Hebrew"),
    (0x0600, "Arabic"),
    (0x0900, "Indic"),
    (0x0E00, "Thai and its neighbours"),
    (0x10A0, "Georgian"),
    (0x1100, "Hangul"),
    (0x1200, "Ethiopic"),
    (0x1780, "Khmer"),
    (0x1E00, "Latin"),
    (0x1F00, "Greek"),
    (0x2000, "signs"),
    (0x2E80, "Han and Kana"),
    (0xAC00, "Hangul"),
    (0xD7B0, "Han and Kana"),
    (0xFB00, "Latin"),
    (0xFB50, "Arabic"),
    (0xFF00, "Han and Kana"),
    (0x10000, "ancient scripts"),
    (0x1D000, "signs"),
    (0x20000, "Han and Kana"),
)
_SCRIPT_STARTS = [start for start, _ in _SCRIPTS]
_MARKS = 250  # the most frequent words of a side, among which its marks are
_TIMES = 10.0
_MAIN_SCRIPT = 0.1  # share of the letters of a side
SMALLEST_SAMPLE = 200
"""Pairs below which nothing is learned and nothing is dropped."""


class LanguageCheck:
    """Tells pairs with a side in another language.

    :param pairs: (source, target) to learn from: some ten thousand.
    :param languages: their codes; for messages and for the small words.
    """

    def __init__(self, pairs: Iterable[tuple[str, str]], languages: tuple[str, str]) -> None:
        self.languages = languages
        words: tuple[Counter[str], Counter[str]] = (Counter(), Counter())
        letters: tuple[Counter[str], Counter[str]] = (Counter(), Counter())
        self.sample = 0
        for pair in pairs:
            self.sample += 1
            for side in (0, 1):
                words[side].update(_features(pair[side]))
                letters[side].update(pair[side])
        self.enabled = self.sample >= SMALLEST_SAMPLE
        self._totals = [sum(count.values()) + 1.0 for count in words]
        self._top = [count.most_common(2000) for count in words]
        self._marks: list[frozenset[str]] = []
        for side in (0, 1):
            there = words[1 - side]
            ratio = _TIMES * self._totals[side] / self._totals[1 - side]
            frequent = self._top[side][:_MARKS]
            self._marks.append(frozenset(word for word, count in frequent if count > ratio * (there[word] + 0.5)))
        self._own = [
            marks | FUNCTION_WORDS.get(language[:2], frozenset())
            for marks, language in zip(self._marks, languages, strict=True)
        ]
        self._foreign = [_foreign_letters(count) for count in letters]

    def verify(self) -> None:
        """Compare the sides with the languages they are said to be in.

        :raises CorpusError: a side is plainly in another language.
        """
        if not self.enabled:
            return
        for side, name in ((0, "source"), (1, "target")):
            declared = self.languages[side][:2]
            top = dict(self._top[side])
            scores = {language: sum(top.get(word, 0) for word in known) for language, known in FUNCTION_WORDS.items()}
            best = max(scores, key=lambda language: scores[language])
            told = scores[best] > 0.1 * self._totals[side]  # text without sentences tells nothing
            if declared in scores and told and scores[best] > 2 * scores[declared]:
                raise CorpusError(
                    f"the {name} side is said to be {declared!r} but reads like {best!r}; are the columns or the "
                    "languages of the recipe swapped?"
                )

    def wrong(self, source: str, target: str) -> bool:
        """Whether a side is in another language than it should be. Sides of a few words are never judged."""
        if not self.enabled:
            return False
        for side, text in ((0, source), (1, target)):
            foreign = self._foreign[side]
            if foreign is not None:
                found = foreign.findall(text)
                if len(found) >= 5 and sum(map(str.isalpha, found)) > max(4.0, 0.6 * sum(map(str.isalpha, text))):
                    return True
        words = source.lower().split(), target.lower().split()
        for side in (0, 1):
            # Most sentences hold two marks of their side among what spaces separate, and are done with here.
            own, other = self._marks[side], self._marks[1 - side]
            different = set(words[side])
            if (len(different & own) < 2 or len(different & other) > 2) and self._is_wrong((source, target), side):
                return True
        return False

    def _is_wrong(self, pair: tuple[str, str], side: int) -> bool:
        words = _features(pair[side])
        if len(words) < 4:
            return False
        opposite = set(_features(pair[1 - side]))
        own = sum(word in self._marks[side] for word in words)
        other = [word for word in words if word in self._marks[1 - side]]
        rest = [word for word in words if word not in opposite]
        copied = len(words) >= 8 and len(rest) <= 0.1 * len(words)  # not translated at all
        weight = sum(0.5 if word in opposite and not copied else 1.0 for word in other)
        if len(set(other)) >= 3 and weight >= max(2.0, 0.2 * len(words)) and own <= 0.25 * len(other):
            return True
        if len(rest) < 5:
            return False
        language, count = best_match(rest)
        if language in (self.languages[0][:2], self.languages[1][:2]) or count < 3 or count < 0.2 * len(rest):
            return False
        return sum(word in self._own[side] for word in words) < 0.4 * count


def _features(text: str) -> list[str]:
    words = _WORD.findall(text.lower())
    if text.isascii() or not _NO_SPACES.search(text):
        return words
    found: list[str] = []
    for word in words:
        if _NO_SPACES.search(word):
            found += [word[at : at + 2] for at in range(max(1, len(word) - 1))]
        else:
            found.append(word)
    return found


def _foreign_letters(letters: Counter[str]) -> re.Pattern[str] | None:
    """A pattern for letters of scripts that a side is not written in."""
    scripts: Counter[str] = Counter()
    for letter, count in letters.items():
        if letter.isalpha():
            scripts[_SCRIPTS[bisect.bisect_right(_SCRIPT_STARTS, ord(letter)) - 1][1]] += count
    least = _MAIN_SCRIPT * sum(scripts.values())
    main = {script for script, count in scripts.items() if count >= least}
    ends = [*_SCRIPT_STARTS[1:], 0x30000]
    ranges = [
        f"{chr(start)}-{chr(end - 1)}"
        for (start, script), end in zip(_SCRIPTS, ends, strict=True)
        if script not in main and script not in ("Latin", "signs")
    ]
    if "Latin" not in main:
        ranges += ["A-Z", "a-z", "\u00c0-\u024f"]
    return re.compile(f"[{''.join(ranges)}]") if main and ranges else None
