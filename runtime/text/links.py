"""Links of words: from the source position that each token of an output looks at, to characters of both texts.

A link joins two words, stretches between white space (single characters in scripts that write none). Nothing here
guesses: where tokens cannot be told to belong to a word, or a word is not found again, it has no link.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate

from mobilenmt.runtime.text.kept import Kept
from mobilenmt.runtime.text.placeholders import Protected
from mobilenmt.runtime.text.placing import Link

_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\U00020000-\U0003ffff"
_WORD = re.compile(f"[{_UNSPACED}]|[^\\s{_UNSPACED}]+")
_SPACED = re.compile("[\0-\u0dff\u2000-\u2fff]*")  # characters of scripts that write spaces
_RUN = re.compile(r"\S+")
_MARKS = ".,;:!?…"
_FARTHEST = 24  # characters, beyond what the text grew by, that are passed over to find the next word

Span = tuple[int, int]
Spans = list[Span | None]
"""For each token the words it is of, in characters; None for none."""


class Linker:
    """Makes links of alignments, with the tokenizer of a model. Any number of threads may share it.

    Args:
        encode: text to ids.
        decode: ids to text.
        pieces: ids to pieces, ``▁`` for a space.
    """

    def __init__(
        self,
        encode: Callable[[str], Sequence[int]],
        decode: Callable[[Sequence[int]], str],
        pieces: Callable[[Sequence[int]], list[str]],
    ) -> None:
        self._encode, self._decode, self._read = encode, decode, pieces
        self._known: dict[int, str] = {}

    def links(
        self,
        source: str,
        source_ids: Sequence[int],
        decoded: str,
        ids: Sequence[int],
        alignment: Sequence[int] | None,
    ) -> list[Link]:
        """The words of a text that the words of an output look at; none where tokens and words cannot be matched.

        Args:
            source: the text that the model was given.
            source_ids: what it was encoded as, with or without something in front (the code of a language).
            decoded: the text of ``ids``.
            ids: the output.
            alignment: for each of ``ids`` the position in ``source_ids``, or their number for none.
        """
        if alignment is None or len(alignment) != len(ids):  # a loop was cut out of the ids
            return []
        begun, ended = self._begun(source, source_ids), self._begun(decoded, ids)
        if begun is not None and ended is not None and max(alignment, default=0) <= len(source_ids):
            (starts, numbers), (begins, of_targets) = begun, ended
            numbers.append(0)  # of the place that says none
            joined = sorted(set(zip(map(numbers.__getitem__, alignment), of_targets, strict=True)))
            return [(starts[a - 1], starts[a] - 1, begins[b - 1], begins[b] - 1) for a, b in joined if a]
        here, there = self._of_source(source, source_ids), self._of_output(decoded, ids)
        if here is None:
            return []
        pairs = set()
        for place, target in zip(alignment, there, strict=True):
            word = here[place] if place < len(here) else None
            if word is not None and target is not None:
                pairs.add((*word, *target))
        return sorted(pairs)

    def _pieces(self, ids: Sequence[int]) -> list[str]:
        known = self._known
        try:
            return [known[i] for i in ids]
        except KeyError:
            known.update(zip(ids, self._read(ids), strict=True))
            return [known[i] for i in ids]

    def _begun(self, text: str, ids: Sequence[int]) -> tuple[list[int], list[int]] | None:
        """Where the words of a text begin, one place behind its end, and of each token the number of its word, from
        1, where each word begins a piece and one space parts them, as is usual and quick; None elsewhere."""
        pieces = self._pieces(ids)
        if "".join(pieces) != "▁" + text.replace(" ", "▁") or "▁" in pieces:
            return None
        if not (text.isprintable() and (text.isascii() or _SPACED.fullmatch(text))):
            return None
        words, numbers = text.split(" "), list(accumulate([1 if piece[:1] == "▁" else 0 for piece in pieces]))
        if numbers[-1] != len(words):
            return None
        return list(accumulate([len(word) + 1 for word in words], initial=0)), numbers

    def _of_source(self, text: str, ids: Sequence[int]) -> Spans | None:
        found = by_pieces(text, self._pieces(ids)) or by_words(text, len(ids), lambda word: len(self._encode(word)))
        if found is not None:
            return found
        plain = self._encode(text)
        lead = len(ids) - len(plain)
        if lead > 0 and list(ids[lead:]) == list(plain):  # the code of a language stands before it
            found = self._of_source(text, plain)
            return None if found is None else [*[None] * lead, *found]
        return by_prefixes(text, ids, self._decode) if self._decode(ids) == text else None

    def _of_output(self, text: str, ids: Sequence[int]) -> Spans:
        return by_pieces(text, self._pieces(ids)) or by_prefixes(text, ids, self._decode)


def by_pieces(text: str, pieces: Sequence[str]) -> Spans | None:
    """The words of tokens whose pieces, put together, are the text; None if they are not."""
    whole = "".join(pieces).replace("▁", " ")
    lead = len(whole) - len(text)
    if lead not in (0, 1) or whole[:lead].strip() or whole[lead:] != text:
        return None
    ends = []
    at = -lead
    for piece in pieces:
        at += len(piece)
        ends.append(at)
    return _in_words(text, ends)


def by_words(text: str, count: int, tokens: Callable[[str], int]) -> Spans | None:
    """The words of tokens, where the words of a text take as many tokens one by one as together; None elsewhere."""
    spans: Spans = []
    for match in _RUN.finditer(text):
        spans += [match.span()] * tokens(match[0])
        if len(spans) > count:
            return None
    return spans if len(spans) == count else None


def by_prefixes(text: str, ids: Sequence[int], decode: Callable[[Sequence[int]], str]) -> Spans:
    """The words of tokens by what they add to the text."""
    ends: list[int] = []
    for number in range(1, len(ids) + 1):
        begun = decode(ids[:number])
        before = ends[-1] if ends else 0
        ends.append(max(before, len(begun)) if text.startswith(begun) else before)  # half a character adds nothing
    return _in_words(text, ends)


def _in_words(text: str, ends: Sequence[int]) -> Spans:
    """Widen tokens, of which each ends where the next one begins, to the words they have a character of."""
    words = [match.span() for match in _WORD.finditer(text)]
    spans: Spans = []
    at = start = 0
    for end in ends:
        while at < len(words) and words[at][1] <= start:
            at += 1
        last = at
        while last < len(words) and words[last][0] < end:
            last += 1
        spans.append((words[at][0], words[last - 1][1]) if last > at and end > start else None)
        start = max(start, end)
    return spans


def unprotected(
    links: Iterable[Link], protected: Protected, kept: Sequence[Kept], start: int = 0, length: int | None = None
) -> list[Link]:
    """Links of a text with placeholders as links of the text that they were put into.

    Args:
        links: in characters of ``protected.text``.
        protected: the text with placeholders.
        kept: the spans that its marks stand for.
        start: where the text begins in the one that the links are to be of.
        length: how much of it stands there; the rest (a mark put behind it) has no links. None for all.
    """
    if not protected.marks and not start and (length is None or length >= len(protected.text)):
        return list(links)
    # Stretches of the protected text and where they come from; the space that may part a span and a word is of neither.
    stretches: list[tuple[int, int, int, int]] = []
    done = origin = 0
    for mark, span in zip(protected.marks, kept, strict=True):
        stretches += [(done, mark.start, origin, span.start), (mark.start, mark.end, span.start, span.end)]
        done, origin = mark.end, span.end
    stretches.append((done, len(protected.text), origin, origin + len(protected.text) - done))

    def back(place: int, is_end: bool) -> int:
        for index, (first, last, source, source_end) in enumerate(stretches):
            if place < last or (place == last and is_end) or index == len(stretches) - 1:
                if index % 2:  # a placeholder: all of its span
                    return source_end if is_end else source
                lead = (
                    1 if index and protected.marks[index // 2 - 1].spaced and last - first > source_end - source else 0
                )
                return min(source_end, source + max(0, place - first - lead))
        return place

    found = ((back(a, False), back(b, True), c, d) for a, b, c, d in links)
    most = origin + len(protected.text) - done if length is None else length
    return [(a + start, min(b, most) + start, c, d) for a, b, c, d in found if a < min(b, most)]


def shown(
    links: Sequence[Link], output: str, text: str, marks: Sequence[tuple[str, str]], start: int = 0
) -> tuple[list[Link], int]:
    """Links to an output as links to the text that is shown of it: its words are found there one after the other.

    Args:
        links: in characters of ``output``.
        output: what the model gave.
        text: what became of it: spans for placeholders, other capitals, a mark more or less at the end.
        marks: placeholders and what they became.
        start: where in the text to begin.

    Returns:
        The links of words that were found, and where the last of them ends.
    """
    if text == output:
        return list(links), len(text)
    words = _expected(output, marks)
    most = abs(len(text) - start - len(output)) + _FARTHEST
    places: dict[int, Span] = {}
    ends: dict[int, Span] = {}
    for first, last, word in words:
        found = _next(word, text, start, most if any(map(str.isalnum, word)) else 1)
        if found is not None:
            places[first] = ends[last] = found
            start = found[1]
    moved = []
    for a, b, c, d in links:
        inside = [word for word in words if word[0] < d and c < word[1]]
        found_inside = [places[word[0]] for word in inside if word[0] in places]
        if found_inside:
            moved.append((a, b, found_inside[0][0], found_inside[-1][1]))
    return moved, start


def _expected(output: str, marks: Sequence[tuple[str, str]]) -> list[tuple[int, int, str]]:
    """The words of an output, where they stand, and what they are in the text that is shown."""
    changed = []
    done = 0
    for placeholder, span in marks:
        at = output.find(placeholder) if placeholder != span else -1
        if at >= 0:
            changed.append((at, at + len(placeholder), span))
    words: list[tuple[int, int, str]] = []
    for at, end, span in sorted(changed):
        if at < done:
            continue
        words += [(m.start(), m.end(), m[0]) for m in _WORD.finditer(output, done, at)]
        words.append((at, end, span))
        done = end
    return [*words, *((m.start(), m.end(), m[0]) for m in _WORD.finditer(output, done))]


def _next(word: str, text: str, start: int, most: int) -> Span | None:
    """Where a word stands next, by itself: as it is, with a capital, in capitals, or without the mark behind it."""
    bare = word.rstrip(_MARKS)
    for form in dict.fromkeys((word, bare, *(f(w) for w in (word, bare) for f in (_capital, str.upper)))):
        at = text.find(form, start, start + most + len(form)) if form else -1
        while at >= 0:
            end = at + len(form)
            within = (form[0].isalnum() and text[at - 1 : at].isalnum()) if at else False
            if not within and not (form[-1].isalnum() and text[end : end + 1].isalnum()):
                return at, end
            at = text.find(form, at + 1, start + most + len(form))
    return None


def _capital(word: str) -> str:
    return word[:1].upper() + word[1:]
