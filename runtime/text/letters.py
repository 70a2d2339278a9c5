"""What no model should see: lines without words, characters it never saw, words that are none; and the marks that end
what it gives.

All of these come back as they were. A line of digits, signs or emoji has nothing to translate, and models make up words
for it (so ``1,000.50`` stays as it is, too, alone on a line: no rule here writes numbers as another language does). A
character that the vocabulary lacks is spelled in bytes, which small models scramble. And a run of a hundred letters is
base64, a sequence of DNA or a cat on the keyboard.

The rules are ``rules/letters.json``.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Collection, Sequence
from functools import cache, cached_property

from mobilenmt.runtime.text.data import base_language, load
from mobilenmt.runtime.text.kept import Kept

_MARKS = ".!?…"
_CLOSERS = "\"'”“’»«)] "
_GOES_ON = ",;:-–—"
_BRACKETS = (("(", ")"), ("[", "]"), ("{", "}"))
_QUOTES = '"“”„‟«»'
_PAIRING = frozenset(_QUOTES).union(*_BRACKETS)
_OTHER_SCRIPTS = "\u2e80"  # the first character of those with marks of their own
_DOTS = 3  # that an ellipsis stands for

_MOST_REMEMBERED = 20_000  # characters
FEW = 16
"""Characters: a text of no more can run away, as far as its length tells."""

_LONGEST_RATIO = 3
_ALWAYS_ALLOWED = 12
_WORDS = "\u2e80"  # the first character of scripts in which one may be a word
_JOINERS = "\u200c\u200d\u20e3"  # zero-width joiners, and the box around a key


class Alphabet:
    """The characters that a vocabulary has; every other it would spell in bytes, or as unknown.

    Nothing is computed before a character is asked for, and each is asked for once, those of ASCII together. Any
    number of threads may share it.

    Args:
        knows: whether the tokenizer encodes a text without unknowns and bytes.
    """

    def __init__(self, knows: Callable[[str], bool]) -> None:
        self._knows = knows
        self._known: set[str] = set()
        self._missing: set[str] = set()

    @cached_property
    def _ascii(self) -> bool:
        """Whether no printable character of ASCII is missing, as in most vocabularies."""
        return self._knows("".join(map(chr, range(0x20, 0x7F))))

    def __contains__(self, character: object) -> bool:
        return isinstance(character, str) and not self.missing(character)

    def missing(self, text: str) -> Collection[str]:
        """The characters of the text that the vocabulary lacks; quick where all were seen before."""
        if text.isascii() and text.isprintable() and self._ascii:
            return ()
        new = set(text) - self._known
        if not new:
            return ()
        found = new & self._missing
        for character in new - found:
            if self._knows(character):
                if len(self._known) > _MOST_REMEMBERED:
                    self._known = set()
                self._known.add(character)
            else:
                if len(self._missing) > _MOST_REMEMBERED:
                    self._missing = set()
                self._missing.add(character)
                found.add(character)
        return found


def is_runaway(output: str, source: str) -> bool:
    """Whether an output is far longer than a few words can mean: three times as long; 12 characters are always allowed
    ("shy" may be "schüchtern"). A Chinese or Japanese character, which may be a word, counts as three."""
    return len(output) > max(_ALWAYS_ALLOWED, _LONGEST_RATIO * (len(source) + 2 * sum(c >= _WORDS for c in source)))


def has_words(text: str, language: str = "", kept: Sequence[Kept] = ()) -> bool:
    """Whether anything in a line is to be translated.

    Args:
        text: the line.
        language: that of the line. Where its one-letter words are known, another letter alone is no word.
        kept: what is copied in any case.
    """
    if not kept and text[:2].isalpha() and len(text) > 1:
        return True
    letters = ""
    done = 0
    for start, end, *_ in [*kept, Kept(len(text), len(text), "")]:
        for place in range(done, max(start, done)):
            if text[place].isalpha():
                letters += text[place]
                if len(letters) > 1:
                    return True
        done = max(done, end)
    words = load("letters")["single_letters"].get(base_language(language))
    return bool(letters) and (words is None or letters in words)


def long_words(text: str) -> list[Kept]:
    """Runs of letters, digits and the signs of base64 that are too long for a word (``long_word`` in the rules).

    The longest words people write have 60 to 85 letters (*Rindfleischetikettierungsüberwachungsaufgaben…*). Scripts
    that put no spaces between words are left out.
    """
    if len(text) < 100:
        return []
    return [Kept(match.start(), match.end(), "long_word") for match in _long_word().finditer(text)]


@cache
def _long_word() -> re.Pattern[str]:
    return re.compile(load("letters")["long_word"])


def unknown(text: str, alphabet: Alphabet) -> list[Kept]:
    """Stretches of characters that the vocabulary lacks, in order.

    A stretch holds neighbours with only spaces between them (``你好 世界``), the marks, joiners and selectors that
    belong to a character, and, in the scripts of Europe, the whole word around a letter (``Dvořák``): what the model
    made of the rest of the word would fit nowhere.
    """
    missing = alphabet.missing(text)
    if not missing:
        return []
    found: list[Kept] = []
    place = 0
    while place < len(text):
        if text[place] not in missing:
            place += 1
            continue
        start, end = _stretch(text, place, missing)
        if found and (start <= found[-1].end or text[found[-1].end : start].isspace()):
            start = min(found.pop().start, start)
        found.append(Kept(start, end, "unknown"))
        place = end
    return found


def _stretch(text: str, place: int, missing: Collection[str]) -> tuple[int, int]:
    """The stretch around the unknown character at `place`, the first of its run."""
    start, end = place, place
    while start > 0 and _belongs(text[start]):
        start -= 1
    word = start < place and _joined(text[start])
    while end < len(text) and (text[end] in missing or _belongs(text[end]) or (word and _joined(text[end]))):
        word = word or _joined(text[end])
        end += 1
    while word and start > 0 and _joined(text[start - 1]):
        start -= 1
    return start, end


def _belongs(character: str) -> bool:
    """Whether it is part of the character before it: a mark, a joiner, a selector of variants, a skin tone."""
    if character < "\u0300":
        return False
    return (
        character in _JOINERS or "\U0001f3fb" <= character <= "\U0001f3ff" or unicodedata.category(character)[0] == "M"
    )


def _joined(character: str) -> bool:
    """Whether it is a letter or digit of a script that puts spaces between words and no spaces within."""
    code = ord(character)
    return character.isalnum() and any(first <= code <= last for first, last in load("letters")["joined_scripts"])


def halves(text: str, start: int, end: int, kept: Sequence[Kept]) -> list[int]:
    """Where in text[start:end], outside of spans, halves of pairs of brackets stand whose other half is elsewhere."""
    inside = {at for span in kept for at in range(span.start, span.end)}
    lone: list[int] = []
    for opening, closing in _BRACKETS:
        open_ones: list[int] = []
        for at in range(start, end):
            if at in inside or text[at] not in (opening, closing):
                continue
            if text[at] == opening:
                open_ones.append(at)
            elif open_ones:
                open_ones.pop()
            else:
                lone.append(at)
        lone += open_ones
    return sorted(lone)


def has_pair(text: str) -> bool:
    """Whether there is a bracket or quote in a text."""
    if '"' in text or "(" in text or ")" in text or "[" in text or "]" in text or "{" in text or "}" in text:
        return True
    return not text.isascii() and not _PAIRING.isdisjoint(text)


def breaks_a_pair(output: str, source: str, lost: bool = False) -> bool:
    """Whether an output has half of a pair where its source has none, or lacks a pair of () or [], or of quotes too
    where they count (``lost``)."""
    if not has_pair(source) and not has_pair(output):
        return False
    for opening, closing in _BRACKETS:
        wanted, there = source.count(opening), output.count(opening)
        if wanted == source.count(closing) and (there != output.count(closing) or (there < wanted and opening != "{")):
            return True
    wanted, there = sum(map(source.count, _QUOTES)), sum(map(output.count, _QUOTES))
    return wanted % 2 == 0 and (there % 2 == 1 or (lost and there < wanted))


def is_wordless(rest: str, source: str) -> bool:
    """Whether nothing became of the words of the source: "£3.50 each" is more than "£3.50"."""
    return not any(map(str.isalpha, rest)) and sum(map(str.isalpha, source)) > 2


def without_inventions(output: str, source: str) -> str:
    """Take out of an output what is invisible or broken and was not in its source.

    U+FFFD, control and format characters (direction marks), noncharacters, private and unassigned ones: a model that
    spells in bytes now and then spells these.
    """
    if output.isprintable() and "\ufffd" not in output:  # what is none of these categories, and no separator, prints
        return output
    present = set(source)
    wrong = {
        character
        for character in set(output) - present
        if character == "\ufffd" or (not character.isspace() and unicodedata.category(character)[0] == "C")
    }
    return "".join(character for character in output if character not in wrong) if wrong else output


def has_letter(text: str) -> bool:
    """Whether a text has a letter of any script."""
    return text[:1].isalpha() or any(map(str.isalpha, text))


def ended(output: str, source: str) -> str:
    """An output with the marks of its source where it has none, and no more of them than its source.

    Only of a source that ends with ``.``, ``!``, ``?`` or ``…``. Marks inside of closing quotes or brackets count;
    nothing is put behind a comma, a colon or a dash, or a script with full stops of its own.
    """
    if output[-1:] == source[-1:] and output[-2:-1] not in _MARKS:
        return output  # as most end, and so does one without a mark
    bare = source.rstrip(_MARKS)
    marks = source[len(bare) :]
    if not marks or not bare or not output:
        return output
    body = output.rstrip(_MARKS)
    if body != output:
        most = len(marks) + (_DOTS - 1) * marks.count("…")
        return body + marks if body and len(output) - len(body) > most else output
    last = output.rstrip(_CLOSERS)[-1:]
    if not last or last in _MARKS + _GOES_ON or last >= _OTHER_SCRIPTS:
        return output
    return output.rstrip() + marks
