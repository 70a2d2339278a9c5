"""runtime/guard.py: which outputs count as loops, and what is left of them."""

from __future__ import annotations

import random
import time

import pytest

from mobilenmt.runtime.errors import InputError
from mobilenmt.runtime.guard import Loop, cut_loop, cut_loops, find_loop, is_degenerate, source_repeats

EOS = 0


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        ([7, 5, 5, 5, 5, 5], Loop(1, 1, 5, 6)),
        ([7, 5, 6, 5, 6, 5, 6, 5, 6], Loop(1, 2, 4, 9)),
        ([7, 1, 2, 3, 1, 2, 3, 1, 2, 3], Loop(1, 3, 3, 10)),
        ([*range(20, 60)] * 3, Loop(0, 40, 3, 120)),
        ([7, 5, 6, 5, 6, 5, 6, 5, 6, 5], Loop(1, 2, 4, 10)),  # cut in the middle of a period
        ([7, *[1, 2, 3, 4] * 3, 1, 2], Loop(1, 4, 3, 15)),
        ([7, 5, 5, 5, 5, 5, EOS], Loop(1, 1, 5, 6)),  # left, with something behind
        ([7, *[5, 6] * 5, 5, 8, 9, EOS], Loop(1, 2, 5, 12)),
        ([5] * 100, Loop(0, 1, 100, 100)),  # not period 2
        ([*[5, 5, 5, 5, 5, 6] * 4], Loop(0, 6, 4, 24)),  # the loop that covers most
    ],
)
def test_a_loop_is_found(ids: list[int], expected: Loop) -> None:
    assert find_loop(ids) == expected


@pytest.mark.parametrize(
    "ids",
    [
        [],
        [5],
        [1, 2, 3, 4, 5, 6, EOS],
        [5, 5, 5, 5, EOS],  # "...." or "ha ha ha ha"
        [5, 6, 5, 6, 5, 6, 5, EOS],  # "nein, nein, nein, nein"
        [1, 2, 3, 1, 2, 3, EOS],  # said twice
        [*range(20, 60)] * 2,
        [1, 2, 1, 3, 1, 4, 1, 5, 1, 6, 1, 7],  # every second id, but no period
    ],
)
def test_no_loop_in_honest_text(ids: list[int]) -> None:
    assert find_loop(ids) is None


def test_a_brute_force_search_agrees() -> None:
    """Against the definition, spelled out: the longest stretch with a period that occurs often enough."""

    def brute(ids: list[int]) -> int:
        best = 0
        for start in range(len(ids)):
            for stop in range(start + 1, len(ids) + 1):
                for period in range(1, stop - start):
                    often = (stop - start) // period >= {1: 5, 2: 4}.get(period, 3)
                    if often and all(ids[i] == ids[i + period] for i in range(start, stop - period)):
                        best = max(best, stop - start)
        return best

    rng = random.Random(3)
    found = 0
    for _ in range(400):
        ids = [rng.choice([1, 1, 2]) for _ in range(rng.randrange(18))]
        loop = find_loop(ids)
        assert (loop.stop - loop.start if loop else 0) == brute(ids), ids
        found += loop is not None
    assert found > 20


def test_a_repeated_source_may_be_repeated() -> None:
    source = [50, 51, 50, 51, 50, 51, 50, 51, 50, EOS]  # no, no, no, no, no
    assert source_repeats(source) == 4
    assert not is_degenerate(source, [60, 61, 62] * 5 + [EOS])
    assert is_degenerate(source, [60, 61, 62] * 8 + [EOS])


def test_digits_and_rules_mirror_the_source() -> None:
    zeros = [11, 10, 10, 10, 10, 10, 10, EOS]  # 1000000
    assert not is_degenerate(zeros, zeros)
    rule = [12] * 40
    assert not is_degenerate(rule, [*rule, EOS])


def test_a_source_without_repetition_allows_no_loop() -> None:
    assert is_degenerate([50, EOS], [60] * 5)
    assert is_degenerate([], [60] * 5)
    assert not is_degenerate([50, EOS], [60, 61, 62, EOS])


def test_a_loop_hidden_in_an_allowed_one_is_found() -> None:
    source = [50, 51, 52] * 3
    assert not is_degenerate(source, [60, 61, 62] * 3)
    assert is_degenerate(source, [*[60] * 9, 61] * 3)


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        ([7, 5, 5, 5, 5, 5], [7, 5]),
        ([7, 1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 2], [7, 1, 2, 3]),  # cut by the length limit: the part goes
        ([5, 6, 5, 6, 5, 6, 5, 6, 5, 9, EOS], [5, 6, 5, 9, EOS]),  # left: what follows keeps what leads to it
    ],
)
def test_one_occurrence_is_kept(ids: list[int], expected: list[int]) -> None:
    loop = find_loop(ids)
    assert loop is not None
    assert cut_loop(ids, loop) == expected


def test_more_occurrences_are_kept_on_request() -> None:
    loop = Loop(1, 2, 5, 11)
    assert cut_loop([7, *[5, 6] * 5], loop, keep=3) == [7, 5, 6, 5, 6, 5, 6]
    assert cut_loop([7, *[5, 6] * 5], loop, keep=9) == [7, *[5, 6] * 5]
    with pytest.raises(InputError, match="at least one"):
        cut_loop([7, *[5, 6] * 5], loop, keep=0)


def test_what_is_cut_is_degenerate_no_more() -> None:
    rng = random.Random(5)
    for _ in range(500):
        source = [rng.choice([1, 2, 3]) for _ in range(rng.randrange(12))]
        output = [rng.choice([1, 2]) for _ in range(rng.randrange(5))]
        for _ in range(rng.randrange(4)):
            unit = [rng.choice([1, 2, 3]) for _ in range(rng.randrange(1, 5))]
            output += unit * rng.randrange(1, 12)
        cut = cut_loops(source, output)
        assert not is_degenerate(source, cut)
        assert (cut == output) == (not is_degenerate(source, output))
        assert set(cut) == set(output)


def test_as_many_occurrences_as_the_source_has_stay() -> None:
    assert cut_loops([50, 50, 50, EOS], [60] * 30) == [60, 60, 60]


def test_a_loop_is_checked_when_made() -> None:
    with pytest.raises(InputError, match="not a loop"):
        Loop(0, 2, 5, 6)


def test_long_outputs_are_checked_fast() -> None:
    """The search is quadratic: for the longest output of a usual model it must stay far below the translation."""
    ids = [random.Random(1).randrange(100) for _ in range(256)]
    began = time.process_time()
    for _ in range(10):
        find_loop(ids)
    assert (time.process_time() - began) / 10 < 0.02
