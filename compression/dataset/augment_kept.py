"""Placeholders as the runtime puts them in for what must be kept: several in a sentence, numbered from 0.

The runtime (``mobilenmt.runtime.text.keeper``) takes any span out of a sentence, not only names. So words that
translate one another give way here: a dictionary of single words says which do; names and numbers that both sides share
need none. What is kept stands for a thing, nearly always: where the target writes nouns with a capital, only they give
way. Several at once are what a small model loses first, so most sentences with room for one alone are passed over.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable
from random import Random

from mobilenmt.compression.core.pairs import Pair
from mobilenmt.compression.dataset.augment_copy import shared_tokens
from mobilenmt.compression.dataset.augment_text import COPIED
from mobilenmt.runtime.text.forms import TRAINED_FORM

_WORD = re.compile(r"[^\W\d_]+(?:[-'’][^\W\d_]+)*|\d+")
_FORMS = ("{#}", "[#]", "{{#}}")
"""Forms of others, besides ours."""
_OURS = 0.7
_COUNTS = (1, 1, 2, 2, 3, 3, 4, 5)
_PASSED_OVER = 7  # in ten
_QUOTED = 0.15
_SIGNS = (('"', '"'), ('"', '"'), ("“", "”"), ("(", ")"))
_CAPITAL_NOUNS = ("de", "lb")
_SHORT = 4  # letters: shorter words are mostly such as hold a sentence together
_GERMAN = {"“": "„", "”": "“"}


class KeptMaker:
    """Puts placeholders in the place of words that translate one another.

    :param words: pairs of single words, in any number; a source word may have several.
    :param target_language: decides which quotation marks the target has.
    """

    def __init__(self, words: Iterable[Pair], target_language: str = "") -> None:
        self._translations: dict[str, set[str]] = {}
        self._target_language = target_language
        for pair in words:
            self._translations.setdefault(pair.source.lower(), set()).add(pair.target.lower())

    def __call__(self, pair: Pair, random: Random) -> Pair | None:
        """The pair with placeholders; None where no word of it can give way."""
        if COPIED.search(pair.source) or COPIED.search(pair.target):
            return None
        places = self._places(pair)
        wanted = random.choice(_COUNTS)
        # by the pair: the generator is the same for every pair that is tried until one lends itself
        if not places or (len(places) < wanted and zlib.crc32(pair.source.encode()) % 10 < _PASSED_OVER):
            return None
        chosen = sorted(random.sample(places, min(len(places), wanted)))
        form = TRAINED_FORM if random.random() < _OURS else random.choice(_FORMS)
        quoted = random.randrange(len(chosen)) if random.random() < _QUOTED else -1
        signs = random.choice(_SIGNS)
        changes: tuple[list[tuple[int, int, str]], list[tuple[int, int, str]]] = ([], [])
        for index, (source, target) in enumerate(chosen):
            placeholder = form.replace("#", str(index))
            for side, place in enumerate((source, target)):
                left, right = signs if index == quoted else ("", "")
                if side and self._target_language[:2] == "de":
                    left, right = _GERMAN.get(left, left), _GERMAN.get(right, right)
                changes[side].append((*place, f"{left}{placeholder}{right}"))
        return pair._replace(source=_changed(pair.source, changes[0]), target=_changed(pair.target, changes[1]))

    def _places(self, pair: Pair) -> list[tuple[tuple[int, int], tuple[int, int]]]:
        """Where words stand that translate one another, each once in its side."""
        sources, targets = _once(pair.source), _once(pair.target)
        found: list[tuple[tuple[int, int], tuple[int, int]]] = []
        taken: set[str] = set()
        capitals = self._target_language[:2] in _CAPITAL_NOUNS
        shared = {token.lower() for token in shared_tokens(pair)}
        for word, place in sources.items():
            fits = [other for other in targets if other in self._translations.get(word, ())]
            if word in shared and word in targets:
                fits = [word]
            else:
                fits = [other for other in fits if len(word) >= _SHORT or not word.isalpha()]
                fits = [other for other in fits if not capitals or pair.target[targets[other][0]].isupper()]
            if len(fits) == 1 and fits[0] not in taken:  # of two translations nobody knows which
                taken.add(fits[0])
                found.append((place, targets[fits[0]]))
        return found


def _once(text: str) -> dict[str, tuple[int, int]]:
    """Words that stand once in a text, in small letters, and where."""
    places: dict[str, list[tuple[int, int]]] = {}
    for match in _WORD.finditer(text):
        places.setdefault(match[0].lower(), []).append(match.span())
    return {word: spans[0] for word, spans in places.items() if len(spans) == 1}


def _changed(text: str, changes: list[tuple[int, int, str]]) -> str:
    for start, end, new in sorted(changes, reverse=True):
        text = text[:start] + new + text[end:]
    return text
