"""Capitals: TEXT IN CAPITALS and Titles Like This are translated in sentence case, and come back in their own.

Small models see few capitals, and cut them into single letters. Which word keeps a capital (``I LIVE IN BERLIN``) is
asked of the vocabulary: the form that it spells in fewer pieces is the one that was seen more. No list of names has to
be shipped; a short list of acronyms has to (``rules/case.json``).

Work on one sentence at a time: capitals in one say nothing of the next. A sentence with capitals for stress (``This is
VERY important``) stays as it is, and so does a word alone that may be an acronym.
"""

from __future__ import annotations

import enum
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import NamedTuple

from mobilenmt.runtime.text.data import base_language, load

_FEW = 3  # words, of which names are a good part

Cost = Callable[[str], int]
"""Pieces in which the vocabulary spells a word."""


class Case(enum.Enum):
    """How the letters of a sentence are written."""

    PLAIN = "plain"
    UPPER = "upper"
    TITLE = "title"


class _Word(NamedTuple):
    start: int
    end: int
    text: str
    first: bool
    """Whether a sentence begins with it."""
    inner: bool
    """Whether it follows a hyphen."""


def lower(
    text: str, language: str, *, keep: Sequence[tuple[int, int]] = (), cost: Cost | None = None
) -> tuple[str, Case]:
    """The sentence in sentence case, and what it was; of the same length.

    Args:
        text: one sentence.
        language: that of the sentence.
        keep: stretches that are no words (placeholders): neither looked at nor changed; in order.
        cost: pieces of a word in the vocabulary; without it every word but acronyms and fixed ones loses its capital.
    """
    if not _may_be_cased(_blanked(text, keep)):
        return text, Case.PLAIN
    words = list(_words(text, keep))
    case = _case(words, language, cost)
    if case is Case.PLAIN:
        return text, case
    parts = []
    done = 0
    for word in words:
        form = _sentence_form(word.text, case, language, cost)
        if word.first and form[0].islower():
            form = _capital(form)
        parts += [text[done : word.start], form]
        done = word.end
    return "".join(parts) + text[done:], case


def restore(text: str, case: Case, language: str, *, keep: Sequence[tuple[int, int]] = ()) -> str:
    """Write a translation as its source was written.

    Capitals stay capitals (``ß`` becomes ``SS``). A title becomes what the target language writes: English capitalizes
    all but small words; German and most others write titles like sentences, so nothing is done.

    Args:
        text: the translation.
        case: what :func:`lower` said of the source.
        language: that of the translation.
        keep: stretches to leave alone, in order.
    """
    base = base_language(language)
    if case is Case.UPPER:
        parts = []
        done = 0
        for start, end in [*keep, (len(text), len(text))]:
            parts += [_upper(text[done:start], base), text[start:end]]
            done = max(done, end)
        return "".join(parts)
    small = _listed("title_case", base)
    if case is Case.TITLE and small:
        words = list(_words(text, keep))
        parts = []
        done = 0
        for index, word in enumerate(words):
            capital = word.first or index == len(words) - 1 or word.text not in small
            parts += [text[done : word.start], _capital(word.text) if capital else word.text]
            done = word.end
        return "".join(parts) + text[done:]
    return text


def _may_be_cased(text: str) -> bool:
    """Whether no longer word but the first begins with a small letter: a cheap look, with which most are done."""
    if text.isupper():
        return True
    small = sum(part[0].islower() for part in text.split(None, 12)[1:] if len(part) > 4)
    return small == 0 and not text.islower()


def _blanked(text: str, keep: Sequence[tuple[int, int]]) -> str:
    for start, end in keep:
        text = text[:start] + " " * (end - start) + text[end:]
    return text


def _case(words: Sequence[_Word], language: str, cost: Cost | None) -> Case:
    long = [word for word in words if len(word.text) > 1]
    if not long:
        return Case.PLAIN
    if all(word.text.isupper() for word in words):
        acronyms = [word for word in long if _is_acronym(word.text, language)]
        if len(acronyms) == len(long):
            return Case.PLAIN
        if len(words) > 1:
            return Case.UPPER
        text = long[0].text
        known = cost is not None and min(cost(text.lower()), cost(_capital(text.lower()))) < cost(text)
        return Case.UPPER if known else Case.PLAIN
    base = base_language(language)
    if base in load("case")["no_titles_in"].split():
        return Case.PLAIN
    return Case.TITLE if _is_title(words, base, cost) else Case.PLAIN


def _is_title(words: Sequence[_Word], base: str, cost: Cost | None) -> bool:
    """Whether nearly all words have capitals, and not because they are names.

    Counts words behind the first: those seen more in small letters, those seen as often either way, and names. Among
    two or three words the first counts as well if it is a name, and names have to be fewer: ``Mr Green`` is no title.
    """
    small, always = _listed("small_words", base), _listed("always", base)
    common = even = names = 0
    for word in words:
        if word.inner or not _is_capitalized(word.text):
            if word.text.islower() and not word.inner and len(word.text) > 3 and word.text not in small:
                return False
            continue
        low = word.text.lower()
        fixed = word.text in always and len(word.text) > 1
        difference = -1 if fixed else 0 if cost is None else cost(word.text) - cost(low)
        if word.first:
            names += difference < 0 and len(words) <= _FEW
        elif low in small or difference > 0:
            common += 1
        elif difference < 0:
            names += 1
        else:
            even += 1
    most = 2 * common + even - 2 * names
    return (common > 0 or even > 1) and (most > 0 if len(words) <= _FEW else most >= 0)


def _sentence_form(word: str, case: Case, language: str, cost: Cost | None) -> str:
    """A word as it is written within a sentence."""
    low = word.lower()
    if len(low) != len(word):  # İ
        return word
    capital = _capital(low)
    base = base_language(language)
    if re.split("['’]", capital)[0] in _listed("always", base):
        return capital
    if case is Case.TITLE:
        if not _is_capitalized(word):
            return word
        return low if cost is None or cost(low) <= cost(word) else word
    if len(word) == 1:
        words = load("letters")["single_letters"].get(base)
        return low if words is None or low in words else word
    if _is_acronym(word, language):
        return word
    if cost is None:
        return low
    costs = {form: cost(form) for form in (low, capital, word)}
    if costs[word] < min(costs[low], costs[capital]):
        return word
    return capital if costs[capital] < costs[low] else low


def _is_acronym(word: str, language: str) -> bool:
    """Whether a word in capitals is always written so: one of the list, a Roman number, anything with a digit."""
    if word in _acronyms():
        return base_language(language) not in load("case")["words"].get(word, "").split()
    return any(c.isdigit() for c in word) or (len(word) > 1 and re.fullmatch(_ROMAN, word) is not None)


_ROMAN = "X{0,3}(?:IX|IV|V?I{0,3})"


@cache
def _acronyms() -> frozenset[str]:
    return frozenset(load("case")["acronyms"].split())


@cache
def _listed(name: str, base: str) -> frozenset[str]:
    return frozenset(load("case")[name].get(base, "").split())


def _is_capitalized(word: str) -> bool:
    return word[0].isupper() and (word[1:].islower() or len(word) == 1)


def _capital(word: str) -> str:
    first = word[0].title()  # ǆ has a form for this that is not its upper case
    return first + word[1:] if len(first) == 1 else word


def _upper(text: str, base: str) -> str:
    for small, capital in load("case")["upper"].get(base, {}).items():
        text = text.replace(small, capital)
    if base == "el":  # Greek capitals have no accents
        text = unicodedata.normalize("NFC", unicodedata.normalize("NFD", text).replace("\u0301", ""))
    return text.upper()


def _words(text: str, keep: Sequence[tuple[int, int]]) -> Iterator[_Word]:
    """Runs of letters, digits, marks and apostrophes that hold a letter with case, outside what is kept."""
    first = True
    done = 0
    for kept_start, kept_end in [*keep, (len(text), len(text))]:
        place = done
        while place < kept_start:
            start = place
            while place < kept_start and _in_word(text, place, start):
                place += 1
            if place == start:
                first = first or (text[place] in ".!?:" and text[place + 1 : place + 2] in (" ", ""))
                place += 1
                continue
            word = text[start:place]
            if word.upper() != word.lower():
                yield _Word(start, place, word, first, start > 0 and text[start - 1] in "-‐")
            first = False
        first = first and kept_start == kept_end
        done = max(done, kept_end)


def _in_word(text: str, place: int, start: int) -> bool:
    character = text[place]
    if character.isalnum():
        return True
    if place == start:
        return False
    return character in "'’" or (character >= "\u0300" and unicodedata.category(character)[0] == "M")
