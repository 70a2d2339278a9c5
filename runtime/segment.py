"""Cuts text into pieces a model can take, and keeps the layout between them.

A line (a paragraph, for most texts) is translated whole: the model sees all the context there is. Only a line with
more tokens than the limit is cut, at the best place that lies within the limit: the end of a sentence, else of a
clause, else a space, else between two characters. Nothing is ever dropped: the pieces, put together, are the text.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from mobilenmt.runtime.errors import InputError
from mobilenmt.runtime.text.letters import has_words
from mobilenmt.runtime.text.spans import Kept

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
_LINE = re.compile(f"[^{_BREAKS}]+")

# The look-behind and the possessive quantifiers (++, *+) keep these linear: a run of a million dots is read once.
_CLOSERS = "\"'”’“»›)\\]}"
_SENTENCE = re.compile(
    rf"(?<![.!?…؟۔।])[.!?…؟۔।]++[{_CLOSERS}]*+(?=\s)"  # needs white space behind it: 3.5, mobile.example, ?!
    r"|(?<![。！？｡])[。！？｡]++[」』）”’]*+"  # Chinese and Japanese write none
)
_CLAUSE = re.compile(r"[;:,–—،؛](?=\s)|[，；：、､]")
_SPACE = re.compile(r"(?<=\S)[^\S\xa0\u2007\u202f]")  # not at a no-break space
#: Before a single full stop these end no sentence: initials and "z. B.", German ordinals ("am 3. Mai"), titles.
_ABBREVIATION = re.compile(r"(?<!\w)(?:[^\W\d_]|\d\d?|Mr|Mrs|Ms|Dr|St|Prof|Hr|Fr|Nr|No|vs|etc|bzw|ca)\Z")
_LONGEST_ABBREVIATION = 4  # characters that decide: three letters and what stands before them


class Piece(NamedTuple):
    """A stretch of the text: words to be translated, or layout to be copied as it is."""

    text: str
    ids: Sequence[int] | None = None
    """What the text is encoded as; None for layout."""
    cut: bool = False
    """Whether it is one of several pieces of its line."""
    kept: bool = False
    """Whether it holds letters and is copied all the same."""


Encode = Callable[[str], Sequence[int]]
"""Text to ids."""


def segments(text: str, encode: Encode, limit: int) -> list[Piece]:
    r"""Cut `text` into pieces to translate and layout to keep.

    Layout is what separates lines (``\n`` and every other line end Unicode knows), the white space at both ends of a
    line, a line in which nothing is printable, and the white space at which an overlong line was cut. No two layout
    pieces follow one another.

    Args:
        text: any text, of any length.
        encode: gives the ids of a text. It is called once for a line that fits, about ten times for each piece of one
            that does not, and never with more than 64 characters for each token of the limit.
        limit: most tokens in a piece, 1 or more. Only a single character can exceed it (spelled in bytes).

    Returns:
        The pieces in order; ``"".join(piece.text for piece in pieces) == text``.

    Raises:
        InputError: `limit` is below 1.
    """
    if limit < 1:
        raise InputError(f"the limit of a segment must be at least 1 token, not {limit}")
    pieces: list[Piece] = []
    done = 0
    for start, piece in _words(text, encode, limit):
        if start > done:
            pieces.append(Piece(text[done:start]))
        pieces.append(piece)
        done = start + len(piece.text)
    if done < len(text):
        pieces.append(Piece(text[done:]))
    return pieces


def worded_segments(text: str, encode: Encode, limit: int, language: str, spans: Sequence[Kept]) -> list[Piece]:
    """As :func:`segments`, with what holds no words as layout, and some stretches kept.

    Args:
        text: any text.
        encode: gives the ids of a text.
        limit: most tokens in a piece.
        language: of the text, "" if unknown.
        spans: the stretches to keep, in order.
    """
    plan: list[Piece] = []
    done = 0
    for start, end, _ in [*spans, Kept(len(text), len(text), "")]:
        for piece in segments(text[done:start], encode, limit):
            empty = piece.ids is not None and not has_words(piece.text, language)
            plan.append(Piece(piece.text) if empty else piece)
        if start < end:
            plan.append(Piece(text[start:end], kept=True))
        done = end
    return plan


def _words(text: str, encode: Encode, limit: int) -> Iterator[tuple[int, Piece]]:
    """Yield what is to be translated, with its offset."""
    for match in _LINE.finditer(text):
        line = match.group()
        body = line.strip(_BLANK)
        if not _has_content(body):
            continue
        start = match.start() + len(line) - len(line.lstrip(_BLANK))
        if len(body) <= limit * _CHARACTERS_A_TOKEN and len(ids := encode(body)) <= limit:
            yield start, Piece(body, ids)
            continue
        parts = [part for part in _Cutter(body, encode, limit).cut() if _has_content(part[1].text)]
        for offset, piece in parts:
            yield start + offset, piece._replace(cut=len(parts) > 1)


def _has_content(text: str) -> bool:
    """Whether anything in the text can be seen (lone surrogates count: the tokenizer makes U+FFFD of them)."""
    return any((c.isprintable() and c != " ") or "\ud800" <= c <= "\udfff" for c in text)


class _Cutter:
    """Cuts one overlong line. Its methods speak of offsets into that line."""

    def __init__(self, line: str, encode: Encode, limit: int) -> None:
        self._line = line
        self._encode = encode
        self._limit = limit
        self._encoded: dict[int, Piece] = {}  # what begins where the current piece does, by its end
        # Where a piece may end, from the best kind of place to the worst. A line end ends a sentence too.
        self._ends: tuple[list[int], ...] = (
            [*_sentence_ends(line), len(line)],
            [match.end() for match in _CLAUSE.finditer(line)],
            [match.start() for match in _SPACE.finditer(line)],
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


def _sentence_ends(line: str) -> Iterator[int]:
    for match in _SENTENCE.finditer(line):
        end = match.end()
        if match.group().startswith("."):
            follower = line[end + 1 : end + 2]
            if follower.islower():
                continue  # "approx. five": a sentence does not begin in lower case
            before = line[max(0, match.start() - _LONGEST_ABBREVIATION) : match.start()]
            if len(match.group()) == 1 and _ABBREVIATION.search(before):
                continue
        yield end


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
