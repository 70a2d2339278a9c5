"""Cuts text into pieces a model can take, and keeps the layout between them.

A line is cut at columns and, if asked for, at the ends of its sentences; marks at its beginning (bullets, numbering,
quoting) are layout. Only a piece with more tokens than the limit is cut further, at the best place that lies within the
limit: the end of a sentence, else of a clause, else a space, else between two characters. Nothing is ever dropped: the
pieces, put together, are the text.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from mobilenmt.runtime.errors import InputError
from mobilenmt.runtime.text.letters import has_words, long_words
from mobilenmt.runtime.text.lines import cells, is_code, is_fence
from mobilenmt.runtime.text.sentences import split

#: Longest text, in characters for each token of the limit, that is encoded at all. No tokenizer reaches 64 characters a
#: token on average (4 are usual), so a longer text is over the limit, and no call of `encode` sees a megabyte.
_CHARACTERS_A_TOKEN = 64

_BREAKS = "\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"  # what str.splitlines takes for the end of a line
_INVISIBLE = "\ufeff\u200b"  # byte order mark, zero-width space: layout as well, at the edges of a line
#: Every character that str.isspace accepts (a test compares), and the invisible ones.
_BLANK = (
    f"{_BREAKS}\t\x1f \xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"
    f"{_INVISIBLE}"
)

_CLAUSE = r"[;:,–—،؛](?=\s)|[，；：、､]"
_SPACE = r"(?<=\S)[^\S\xa0\u2007\u202f]"  # not at a no-break space


#: Behind these a sentence or clause goes on without a space, as the scripts they are of write it.
_NO_SPACE = "。！？｡，；：、､」』）】》〉］"


class Piece(NamedTuple):
    """A stretch of the text: words to be translated, or layout to be copied as it is."""

    text: str
    ids: Sequence[int] | None = None
    """What the text is encoded as; None for layout."""
    cut: bool = False
    """Whether it is a part of something too long for the limit."""
    start: int = 0
    """Where it begins in the text."""
    line: int = 0
    """The line it begins in, from 0, as ``str.splitlines`` counts."""


Encode = Callable[[str], Sequence[int]]
"""Text to ids."""


def segments(
    text: str, encode: Encode, limit: int, *, sentences: bool = False, language: str | None = None
) -> list[Piece]:
    r"""Cut `text` into pieces to translate and layout to keep.

    Layout is what separates lines (``\n`` and every other line end Unicode knows), the white space at both ends of a
    line, bullets, numbering and marks of quoting at its beginning, what holds no words (figures, signs, emoji), tabs,
    bars and commas between columns (:func:`~mobilenmt.runtime.text.lines.cells`), and the white space at which a line
    was cut. No two layout pieces follow one another.

    Args:
        text: any text, of any length.
        encode: gives the ids of a text. It is called once for a piece that fits, about ten times for each part of one
            that does not, and never with more than 64 characters for each token of the limit.
        limit: most tokens in a piece, 1 or more. Only a single character can exceed it (spelled in bytes).
        sentences: whether each sentence of a line is a piece of its own.
        language: code of the text's language, for its abbreviations; None takes the rules for all languages.

    Returns:
        The pieces in order; ``"".join(piece.text for piece in pieces) == text``.

    Raises:
        InputError: `limit` is below 1.
    """
    if limit < 1:
        raise InputError(f"the limit of a segment must be at least 1 token, not {limit}")
    pieces: list[Piece] = []
    done = line_of_done = 0
    for piece in _words(text, encode, limit, sentences, language or ""):
        if piece.start > done:
            pieces.append(Piece(text[done : piece.start], None, False, done, line_of_done))
        pieces.append(piece)
        done, line_of_done = piece.start + len(piece.text), piece.line
    if done < len(text):
        pieces.append(Piece(text[done:], None, False, done, line_of_done))
    return pieces


def between(before: Piece | None, piece: Piece, translation: str) -> str:
    """What the translations of two neighbouring pieces need between them: a space or nothing.

    Chinese and Japanese sentences follow one another without a space; in most other languages there must be one.

    Args:
        before: the piece before this one, None for the first.
        piece: this one.
        translation: the translation of the one before.
    """
    if before is None or before.ids is None or piece.ids is None or not translation:
        return ""
    source, target = before.text[-1], translation[-1]
    return " " if not source.isascii() and source in _NO_SPACE and target not in _NO_SPACE else ""


def _words(text: str, encode: Encode, limit: int, sentences: bool, language: str) -> Iterator[Piece]:
    """Yield what is to be translated."""
    offset = 0
    for number, line in enumerate(text.splitlines(keepends=True)):
        body = line.strip(_BLANK)
        start = offset + len(line) - len(line.lstrip(_BLANK)) if body else offset
        offset += len(line)
        if not _has_content(body) or is_fence(body) or is_code(body):
            continue
        for begin, cell in cells(body, language):
            before = 0
            for end in split(cell, language) if sentences else (len(cell),):
                part = cell[before:end]
                before = end
                for shift, here in _readable(part, limit * _CHARACTERS_A_TOKEN):
                    yield from _fitting(here, encode, limit, language, start + begin + end - len(part) + shift, number)


def _readable(part: str, most: int) -> Iterator[tuple[int, str]]:
    """Yield what of a sentence is to be translated, and its offset: words of more than `most` letters are none."""
    done = 0
    for word in [*(long_words(part) if len(part) > most else ()), None]:
        stretch = part[done : word.start if word else None]
        here = stretch.lstrip(_BLANK)
        yield done + len(stretch) - len(here), here.rstrip(_BLANK)
        done = word.end if word else done


def _fitting(here: str, encode: Encode, limit: int, language: str, at: int, number: int) -> Iterator[Piece]:
    """Yield a sentence in as many pieces as it needs; nothing where it holds no words."""
    if not _has_content(here) or not has_words(here, language):
        return
    if len(here) <= limit * _CHARACTERS_A_TOKEN and len(ids := encode(here)) <= limit:
        yield Piece(here, ids, False, at, number)
        return
    parts = [cut for cut in _Cutter(here, encode, limit, language).cut() if _has_content(cut[1].text)]
    for shift, piece in parts:
        yield piece._replace(cut=len(parts) > 1, start=at + shift, line=number)


def _has_content(text: str) -> bool:
    """Whether anything in the text can be seen (lone surrogates count: the tokenizer makes U+FFFD of them)."""
    return any((c.isprintable() and c != " ") or "\ud800" <= c <= "\udfff" for c in text)


class _Cutter:
    """Cuts one overlong line. Its methods speak of offsets into that line."""

    def __init__(self, line: str, encode: Encode, limit: int, language: str) -> None:
        self._line = line
        self._encode = encode
        self._limit = limit
        self._encoded: dict[int, Piece] = {}  # what begins where the current piece does, by its end
        # Where a piece may end, from the best kind of place to the worst.
        self._ends: tuple[list[int], ...] = (
            split(line, language),
            [match.end() for match in re.finditer(_CLAUSE, line)],
            [match.start() for match in re.finditer(_SPACE, line)],
        )
        # How far the last piece reached at each level (in places, at the last level in characters): the next one
        # reaches about as far, so the search begins there.
        self._reach = [1, 1, 1, limit]

    def cut(self) -> Iterator[tuple[int, Piece]]:
        """Yield the offset of each piece and the piece, without the white space around it."""
        line = self._line
        start = 0
        while start < len(line):
            end = self._end_of_piece(start)
            yield start, self._piece(start, end)
            self._encoded.clear()
            start = end
            while start < len(line) and line[start] in _BLANK:
                start += 1

    def _end_of_piece(self, start: int) -> int:
        """Give the end of the longest piece from `start` that fits and ends at the best kind of place there is."""
        beyond = len(self._line) + 1  # no place from here on needs to be tried: it was too far already
        for level, ends in enumerate(self._ends):
            low = bisect_right(ends, start)
            high = bisect_left(ends, beyond)
            if low == high:
                continue
            best = self._furthest(start, ends, low, high, level)
            if best is not None:
                return best
            beyond = ends[low]
        characters = range(start + 1, min(beyond, start + self._limit * _CHARACTERS_A_TOKEN + 1))
        best = self._furthest(start, characters, 0, len(characters), 3)
        if best is None:
            return start + 1  # one character of several bytes and a limit below that: go on all the same
        end = best
        while end > start + 1 and not _between_characters(self._line, start, end):
            end -= 1
        # Without a boundary inside (a tower of combining marks), or if fewer characters are more tokens: at `best`.
        return end if _between_characters(self._line, start, end) and self._fits(start, end) else best

    def _furthest(self, start: int, ends: Sequence[int], low: int, high: int, level: int) -> int | None:
        """Give the last of ends[low:high] up to which the text fits, or None if not even the first does.

        Gallops from where the last piece ended, then halves: O(log n) encodings. A tokenizer is only nearly monotone
        (one more character can be one token less), so what is returned was itself encoded.
        """
        good, bad = low - 1, high  # the invariant: good fits (or is before all), bad does not (or is behind all)
        probe = min(low + self._reach[level] - 1, high - 1)
        step = max(1, self._reach[level] // 8)
        while bad - good > 1:
            if self._fits(start, ends[probe]):
                good = probe
            else:
                bad = probe
            if bad == high:
                probe = min(good + step, high - 1)
                step *= 2
            elif good < low:
                probe = max(bad - step, low)
                step *= 2
            else:
                probe = (good + bad) // 2
        if good < low:
            self._reach[level] = 1 if level < 3 else self._limit
            return None
        self._reach[level] = good - low + 1
        return ends[good]

    def _fits(self, start: int, end: int) -> bool:
        if end - start > self._limit * _CHARACTERS_A_TOKEN:
            return False
        return len(self._piece(start, end).ids or ()) <= self._limit

    def _piece(self, start: int, end: int) -> Piece:
        if end not in self._encoded:
            text = self._line[start:end].rstrip(_BLANK)
            self._encoded[end] = Piece(text, self._encode(text))
        return self._encoded[end]


def _between_characters(line: str, start: int, at: int) -> bool:
    """Whether a reader sees a boundary between line[at - 1] and line[at].

    The core of Unicode's grapheme clusters (UAX #29) without its tables: marks, joiners, variation selectors, skin
    tones and tags stay with what they follow, flags (two regional indicators) and Hangul syllables stay whole.
    """
    if at >= len(line):
        return True
    before, after = line[at - 1], line[at]
    if after < "\u0300":
        return before != "\u200d"
    if before == "\u200d" or after in "\u200c\u200d" or unicodedata.category(after)[0] == "M":
        return False
    if "\U0001f3fb" <= after <= "\U0001f3ff" or "\U000e0020" <= after <= "\U000e007f":
        return False
    if "\u1160" <= after <= "\u11ff":  # Hangul vowels and finals
        return not "\u1100" <= before <= "\u11ff" and not "\uac00" <= before <= "\ud7a3"
    if _is_regional(before) and _is_regional(after):
        first = at - 1
        while first > start and _is_regional(line[first - 1]):
            first -= 1
        return (at - first) % 2 == 0
    return True


def _is_regional(character: str) -> bool:
    return "\U0001f1e6" <= character <= "\U0001f1ff"
