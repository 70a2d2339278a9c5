"""Folding: the many ways to write one text become the one that the model was trained on.

In this order: the composed form (Unicode's NFC); invisible characters dropped; every kind of space a plain one, runs of
them one; compatibility forms of letters (ligatures, full-width ASCII, mathematical alphabets) plain; and, only where
the vocabulary lacks them, odd quotes and dashes straight, and accents off small words (``naïve``). A character that the
vocabulary has is never replaced. What looks alike but means something else stays: ``²``, ``½``, ``™``, ``①``, ``×``.

The tables are ``rules/fold.json``; beside them a host needs NFC, which every platform has.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Container, Iterator, Sequence
from typing import NamedTuple

from mobilenmt.runtime.text.data import load
from mobilenmt.runtime.text.kept import Kept

_MOST_ORDINARY = 20_000  # characters remembered as needing nothing: all that a person writes, not all of Unicode

_LONGEST_SMALL = 40  # letters looked at to each side of an accent


class Folded(NamedTuple):
    """A folded text, and where it comes from."""

    text: str
    origin: Sequence[int] | None = None
    """For each character of ``text`` the offset in the source that it came from, and the source's length at the end;
    never falling. None when nothing changed. ``source[origin[a]:origin[b]]`` is what became ``text[a:b]``."""

    def source_span(self, start: int, end: int) -> tuple[int, int]:
        """The stretch of the source that became ``text[start:end]``."""
        return (start, end) if self.origin is None else (self.origin[start], self.origin[end])


class Folder:
    """Folds texts for one vocabulary. Any number of threads may share it.

    Args:
        alphabet: the characters that the vocabulary has; None if that is not known: compatibility forms are folded
            then, quotes, dashes and accents are not.
    """

    def __init__(self, alphabet: Container[str] | None = None) -> None:
        self._alphabet = alphabet
        self._ordinary = set(map(chr, range(0x20, 0x7F)))
        self._table: dict[str, str] = {}

    def fold(self, text: str) -> Folded:
        """The folded text; quick for a text that is plain already."""
        if "  " not in text:
            if text.isascii() and text.isprintable():
                return Folded(text)
            new = set(text) - self._ordinary
            if not new:
                return Folded(text)
            if unicodedata.is_normalized("NFC", text) and not self._any_odd(new):
                return Folded(text)
        folded: list[str] = []
        origin: list[int] = []
        for character, place in self._plain(list(_composed(text))):
            if character == " " and folded and folded[-1] == " ":
                continue
            folded.append(character)
            origin += [place] * len(character)
        result = "".join(folded)
        return Folded(text) if result == text else Folded(result, [*origin, len(text)])

    def _any_odd(self, characters: set[str]) -> bool:
        """Whether one of them is, or may be, replaced; remembers those that never are and never compose."""
        odd = False
        for character in characters:
            if self._replacement(character) != character:
                odd = True
            elif not _composes(character) and unicodedata.is_normalized("NFC", character):
                if len(self._ordinary) > _MOST_ORDINARY:
                    self._ordinary = set(map(chr, range(0x20, 0x7F)))
                self._ordinary.add(character)
        return odd

    def _plain(self, items: list[tuple[str, int]]) -> Iterator[tuple[str, int]]:
        """Each character with its replacement in place of it; nothing for one that is dropped."""
        rules = load("fold")
        present = {character for character, _ in items}
        table = {character: self._replacement(character) for character in present}
        for group in rules["paired"]:  # both quotes of a pair are replaced, or none
            if any(table[character] != character for character in group if character in present):
                table |= {c: self._substitute(c, forced=True) for c in group if c in present}
        for index, (character, place) in enumerate(items):
            found = table[character]
            if found == character:
                yield character, place
            elif character in rules["joiners"] and index and items[index - 1][0] >= chr(rules["joiners_from"]):
                yield character, place  # part of an emoji, or of a word in a script that joins letters
            elif (least := _least(character)) > 1 and not _in_run(items, index, least):
                yield character, place
            elif character.islower() and character.isalpha() and _is_accented(character) and not _small(items, index):
                yield character, place  # of a name, perhaps: the whole word is kept
            elif found:
                yield found, place

    def _replacement(self, character: str) -> str:
        """What stands for a character where it is replaced: itself if it never is."""
        if character in self._ordinary:
            return character
        found = self._table.get(character)
        if found is None:
            if len(self._table) > _MOST_ORDINARY:
                self._table = {}
            found = self._table[character] = self._substitute(character)
        return found

    def _substitute(self, character: str, forced: bool = False) -> str:
        rules = load("fold")
        if character in rules["dropped"] or character in rules["joiners"]:
            return ""
        if character in rules["spaces"]:
            return " "
        known = self._alphabet is not None and character in self._alphabet
        if known and not forced:
            return character
        if character in rules["plain"]:
            return str(rules["plain"][character])
        for cycle in rules["cycles"]:
            if cycle["first"] <= ord(character) <= cycle["last"]:
                plain: str = cycle["plain"]
                return plain[(ord(character) - cycle["first"]) % len(plain)]
        if self._alphabet is None:
            return character
        for group, *choices in rules["lacking"]:
            if character in group:
                for choice in choices:
                    if all(c in self._alphabet for c in choice):
                        return str(choice)
        if _is_accented(character):
            base = unicodedata.normalize("NFD", character)[0]
            if base in self._alphabet:
                return base
        return character


def fold(text: str, alphabet: Container[str] | None = None) -> Folded:
    """Fold one text; see :class:`Folder`, which is quicker for many."""
    return (_DEFAULT if alphabet is None else Folder(alphabet)).fold(text)


_DEFAULT = Folder()


def _composed(text: str) -> Iterator[tuple[str, int]]:
    """The characters of the text in NFC, each with the offset that it came from."""
    if unicodedata.is_normalized("NFC", text):
        yield from ((character, place) for place, character in enumerate(text))
        return
    start = 0
    for end in range(1, len(text) + 1):
        if end < len(text) and text[end] >= "\u0300" and _composes(text[end]):
            continue
        chunk = text[start:end]
        done = unicodedata.normalize("NFC", chunk)
        for index, character in enumerate(done):  # a composition may be longer than its source, too
            yield character, start + min(index, len(chunk) - 1)
        start = end


def _composes(character: str) -> bool:
    """Whether a character may be composed with, or reordered among, what stands before it.

    All that can are marks, or vowels and finals of Hangul; that some of those cannot costs nothing but a moment.
    """
    return "\u1160" <= character <= "\u11ff" or unicodedata.category(character)[0] == "M"


def _least(character: str) -> int:
    """How many of its kind must stand together before one is replaced."""
    if character < "\U0001d400":
        return 1
    for cycle in load("fold")["cycles"]:
        if cycle["first"] <= ord(character) <= cycle["last"]:
            return int(cycle.get("least", 1))
    return 1


def _in_run(items: list[tuple[str, int]], index: int, least: int) -> bool:
    """Whether one of several mathematical letters in a row: somebody's bold type, not a variable."""
    start = end = index
    while start and index - start < least and "\U0001d400" <= items[start - 1][0] <= "\U0001d7ff":
        start -= 1
    while end + 1 < len(items) and end - index < least and "\U0001d400" <= items[end + 1][0] <= "\U0001d7ff":
        end += 1
    return end - start + 1 >= least


def _is_accented(character: str) -> bool:
    """Whether it is a letter of Latin with marks on it."""
    return "\xc0" <= character <= "\u1eff" and "a" <= unicodedata.normalize("NFD", character)[0].lower() <= "z"


def _small(items: list[tuple[str, int]], index: int) -> bool:
    """Whether the word around a letter is in small letters: no name."""
    for step in (-1, 1):
        place = index + step
        while 0 <= place < len(items) and abs(place - index) < _LONGEST_SMALL and items[place][0].isalpha():
            if not items[place][0].islower():
                return False
            place += step
    return True


def unfolded(source: str, folded: Folded, kept: Sequence[Kept]) -> tuple[Folded, list[Kept]]:
    """The folded text with what is kept in it as it was written, and where that stands."""
    parts: list[str] = []
    origin: list[int] = []
    spans = []
    done = length = 0
    for start, end, rule, target in kept:
        first, last = folded.source_span(start, end)
        parts += folded.text[done:start], source[first:last]
        origin += [*(folded.origin or ())[done:start], *range(first, last)]
        length += start - done
        spans.append(Kept(length, length + last - first, rule, target))
        length += last - first
        done = end
    return Folded("".join(parts) + folded.text[done:], [*origin, *(folded.origin or ())[done:]]), spans
