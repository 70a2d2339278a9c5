"""Finds outputs that repeat themselves, the most reported fault of small translation models, and those too short.

A greedy decoder can enter a cycle ("nein, nein, nein, …") and stay in it up to the length limit. Such an output is
periodic in its ids, exactly, so an exact check of periods finds it; nothing here looks at text or at probabilities.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from mobilenmt.runtime.errors import InputError

#: Complete occurrences of a unit of 1, of 2 and of more tokens, from which a run counts as a loop.
#:
#: A unit of one token is repeated in honest text the most often: "...", "!!!", the zeros of 10000, "ha ha ha ha"; five
#: of them are rare. Of two tokens ("bla" in two pieces, "nein ,") three are usual ("nein, nein, nein, nein" holds three
#: complete ones), four are not. Three times the same three words or more in a row do not occur in speech unless the
#: source says them, and then `is_degenerate` lets them pass. Twice proves nothing: people repeat themselves once.
_LEAST_COUNT = (5, 4, 3)

#: A source that repeats something itself allows that many occurrences and half as many again, plus one: "no no no" may
#: become "nein, nein, nein, nein", and tokens that hold several signs ("----") are not cut alike on both sides.
_MARGIN_FACTOR = 1.5
_MARGIN = 1

#: Tokens of output for each of the source, below which a translation counts as too short, and the shortest source that
#: says anything.
_LEAST_SHARE = 0.45
_SHORTEST = 6


@dataclass(frozen=True)
class Loop:
    """A stretch ids[start:stop] made of one unit of `period` ids, `count` times and perhaps a part of it again."""

    start: int
    """Index of the first id of the first occurrence."""
    period: int
    """Ids in the unit."""
    count: int
    """Complete occurrences."""
    stop: int
    """Index behind the last id that continues the cycle: up to period - 1 ids behind the last complete occurrence."""

    def __post_init__(self) -> None:
        if self.start < 0 or self.period < 1 or self.count < 1 or self.count != (self.stop - self.start) // self.period:
            raise InputError(f"not a loop: {self.start=}, {self.period=}, {self.count=}, {self.stop=}")


def find_loop(ids: Sequence[int], allowed: float = 0) -> Loop | None:
    """Find the loop with more than `allowed` occurrences that covers most of `ids`, or None.

    Nearly always it is the end of the output, cut by the length limit in the middle of a period; but a decoder also
    gets out of a loop and goes on (a full stop, a closing quote, </s>), so a loop with something behind it is found
    too. The unit is the shortest one: "a a a a a a" has period 1, not 2.

    Takes O(n^2) steps for n ids, and O(n) if no four of them in a row occur twice, as in most translations.
    """
    best: Loop | None = None
    for period in _periods(ids):
        least = _least_count(period)
        loop = _longest_run(ids, period)
        often = loop.count > allowed and loop.count >= least
        if often and (best is None or loop.stop - loop.start > best.stop - best.start):
            best = loop
    return best


def source_repeats(source_ids: Sequence[int]) -> int:
    """Give the most complete occurrences in a row of any unit of the source: 1 if nothing is repeated."""
    return max(
        (_longest_run(source_ids, period).count for period in range(1, len(source_ids) // 2 + 1)),
        default=1,
    )


def is_degenerate(source_ids: Sequence[int], output_ids: Sequence[int]) -> bool:
    """Whether the output loops without, or far beyond, a repetition in the source.

    "no no no no no no" may be translated by as many words, "-----" and 1000000 by as many signs: what counts is how
    often the source repeats anything, of whatever period, since periods differ between languages.

    Args:
        source_ids: the ids of the source, with or without </s>.
        output_ids: the ids of the output, with or without </s>, without the start token.
    """
    return find_loop(output_ids) is not None and find_loop(output_ids, _allowed(source_ids)) is not None


def is_short(source_ids: Sequence[int], output_ids: Sequence[int]) -> bool:
    """Whether the output is so short for its source that something was left out.

    Of 12,000 human translations between English and German, both ways, one in a thousand is below the share that is
    asked for here. A source that repeats something may be told in fewer words, and a few words say nothing of lengths.

    Args:
        source_ids: the ids of the source, without </s>.
        output_ids: the ids of the output, without </s>.
    """
    count = len(source_ids)
    if not output_ids:
        return count > 0
    return count >= _SHORTEST and len(output_ids) < _LEAST_SHARE * count and source_repeats(source_ids) <= 2


def cut_loop(ids: Sequence[int], loop: Loop, keep: int = 1) -> list[int]:
    """Give `ids` with `keep` occurrences of the loop's unit left.

    A loop that ran into the end loses the part of a unit that was cut off there. One that was left keeps it, as it
    leads to what follows: "nein , nein , nein , nein , nein ." becomes "nein , nein .", not "nein , .". So pass the
    ids with their </s>, if the model ended the output itself.

    Raises:
        InputError: `keep` is below 1.
    """
    if keep < 1:
        raise InputError(f"cut_loop keeps at least one occurrence, not {keep}")
    removed = max(0, loop.count - keep) * loop.period
    if loop.stop == len(ids):
        return list(ids[: loop.start + loop.count * loop.period - removed])
    return [*ids[: loop.start], *ids[loop.start + removed :]]


def cut_loops(source_ids: Sequence[int], output_ids: Sequence[int]) -> list[int]:
    """Cut loops until the output is not degenerate any more; a repeated source leaves as many occurrences as it has.

    Ends because every round removes something: a degenerate loop has more occurrences than are kept.
    """
    ids = list(output_ids)
    keep = source_repeats(source_ids)
    allowed = _allowed(source_ids)
    while (loop := find_loop(ids, allowed)) is not None:
        ids = cut_loop(ids, loop, keep)
    return ids


def _periods(ids: Sequence[int]) -> list[int]:
    """The periods that a loop may have: four ids in a row come again a period later, in a loop of any kind."""
    if len(ids) - len(set(ids)) < 4:
        return []
    if len(ids) - len(set(itertools.pairwise(ids))) < 4:
        return []  # quicker: five times the same id hold four equal pairs, and every other loop more
    runs = list(zip(ids, ids[1:], ids[2:], ids[3:], strict=False))
    if len(set(runs)) == len(runs):
        return []
    places: dict[tuple[int, ...], list[int]] = {}
    periods: set[int] = set()
    for place, run in enumerate(runs):
        before = places.setdefault(run, [])
        periods.update(place - other for other in before)
        before.append(place)
    return sorted(period for period in periods if period <= len(ids) // min(_LEAST_COUNT))


def _allowed(source_ids: Sequence[int]) -> float:
    """Give the most occurrences a loop may have; a source without repetition allows no loop at all."""
    repeats = source_repeats(source_ids)
    return repeats * _MARGIN_FACTOR + _MARGIN if repeats > 1 else 1


def _least_count(period: int) -> int:
    return _LEAST_COUNT[min(period, len(_LEAST_COUNT)) - 1]


def _longest_run(ids: Sequence[int], period: int) -> Loop:
    """Find the longest stretch with the given period, the last one of equally long ones.

    Where ids[i] == ids[i + period] holds for m indices in a row, m + period ids have that period.
    """
    longest, end, run = 0, period, 0
    for index, same in enumerate([a == b for a, b in zip(ids, ids[period:], strict=False)]):
        run = run + 1 if same else 0
        if same and run >= longest:
            longest, end = run, index + 1 + period
    start = end - longest - period
    return Loop(start, period, (end - start) // period, end)
