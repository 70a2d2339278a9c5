"""Deals a translation out to the pieces its source came in: cues of subtitles, and lines of a cue."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Sequence

from mobilenmt.runtime.text.markup.document import Link, Result
from mobilenmt.runtime.text.markup.spans import Span, spans
from mobilenmt.runtime.text.markup.weave import TEXT, Piece
from mobilenmt.runtime.text.markup.words import words

_WORD = re.compile(r"\S+")
_PAUSES = ".,;:!?…–—。，、！？"
#: How far from its place, as a share of the whole, a cut may go to fall behind a comma, and where links pull it.
_NEAR = 0.12
_FARTHEST = 0.25


def deal(sources: Sequence[str], result: Result) -> list[Result]:
    """Cut a translation where its source was cut.

    A cut goes where the fewest words come into another piece than their source, though not so far from its place in
    proportion that one could not read it in time, then where it is nearest to that; every piece gets a word as long as
    there are enough.

    Args:
        sources: the pieces of the source. The links of the result speak of them joined by single spaces.
        result: the translation of all.

    Returns:
        As many results as pieces, without the white space at the cuts.
    """
    target = result.text
    places = _together([match.span() for match in _WORD.finditer(target)], spans(target))
    if len(places) < len(sources):
        places = [(word.start, word.end) for word in words(target)]
    total = sum(map(len, sources)) + len(sources) - 1
    links = [link for link in result.links if link[0] < link[1] and link[2] < link[3]]
    cuts = [0]  # words before each cut
    offset = 0
    for number, source in enumerate(sources[:-1]):
        offset += len(source) + 1
        low = min(cuts[-1] + 1, len(places))
        high = max(low, len(places) - (len(sources) - 1 - number))
        cuts.append(_best_cut(target, places, low, min(high, len(places)), links, offset, offset / max(1, total)))
    cuts.append(len(places))
    shares = []
    begin = 0
    for number, source in enumerate(sources):
        first, last = cuts[number], cuts[number + 1]
        start = places[first][0] if first < last else 0
        end = places[last - 1][1] if first < last else 0
        mine = [
            (max(a - begin, 0), min(b - begin, len(source)), max(c, start) - start, min(d, end) - start)
            for a, b, c, d in links
            if a < begin + len(source) and b > begin and c < end and d > start
        ]
        shares.append(Result(target[start:end], mine))
        begin += len(source) + 1
    return shares


def _best_cut(
    target: str, places: Sequence[Span], low: int, high: int, links: Sequence[Link], offset: int, share: float
) -> int:
    """Give how many words stand before a cut: `low` to `high`."""
    starts = [start for start, _ in places]
    # change[g]: how many more links cross a cut before word g than one before word g - 1
    change = [0] * (len(places) + 1)
    for a, _, c, _ in links:
        word = max(0, bisect_left(starts, c + 1) - 1)
        change[word + 1 if word < len(places) else word] += -1 if a < offset else 1
    crossing = 0
    best, least = low, (True, len(links) + 1, 1.0)
    for cut in range(high + 1):
        crossing += change[cut]
        if cut < low or not cut:
            continue
        end = places[cut - 1][1]
        away = abs(end / max(1, len(target)) - share)
        near = max(0.0, away - _NEAR) if target[end - 1] in _PAUSES else away
        cost = (away > _FARTHEST, crossing, near)
        if cost < least:
            best, least = cut, cost
    return best


def _together(found: Sequence[Span], whole: Sequence[Span]) -> list[Span]:
    """Words, those of one kept span as one."""
    joined: list[Span] = []
    ends = {at for a, b in whole for at in range(a + 1, b)}
    for start, end in found:
        if joined and start in ends:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    return joined


def break_lines(pieces: Sequence[Piece], lines: int) -> list[Piece]:
    """Break the words of a cue into lines of about one length; tags stay where they are.

    A line feed takes the place of a space. Fewer lines come out where there are fewer words.
    """
    if lines < 2:
        return list(pieces)
    shown = "".join(text for text, kind in pieces if kind == TEXT)
    held = {at for a, b in spans(shown) for at in range(a, b)}  # "3.5 km" stays on a line
    spaces = [match.start() for match in re.finditer(r"(?<=\S)\s(?=\S)", shown) if match.start() not in held]
    chosen: list[int] = []
    reach = len(shown) / lines / 2
    for number in range(1, lines):
        goal = len(shown) * number / lines
        after = bisect_right(spaces, chosen[-1]) if chosen else 0
        low, high = bisect_left(spaces, goal - reach, after), bisect_right(spaces, goal + reach, after)
        best = -1.0
        for at in spaces[low:high] or spaces[after : after + 1]:
            gain = len(shown) - abs(at - goal) + (_NEAR * len(shown) if shown[at - 1] in _PAUSES else 0)
            if gain > best:
                best, at_best = gain, at
        if best >= 0:
            chosen.append(at_best)
    out: list[Piece] = []
    done = following = 0
    for text, kind in pieces:
        if kind != TEXT:
            out.append((text, kind))
            continue
        letters = list(text)
        while following < len(chosen) and chosen[following] < done + len(text):
            letters[chosen[following] - done] = "\n"
            following += 1
        out.append(("".join(letters), kind))
        done += len(text)
    return out
