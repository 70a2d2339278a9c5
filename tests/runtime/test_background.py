"""Parts of a call on several threads: their order, and what becomes of the others where one fails."""

from __future__ import annotations

import threading
import time

import pytest

from mobilenmt.runtime.background import Background, for_each


@pytest.mark.parametrize("threads", [1, 2, 5, 50])
def test_results_come_in_order(threads: int) -> None:
    def work(part: int) -> int:
        time.sleep(0.001 * (part % 3))
        return part * part

    assert for_each(work, range(30), threads) == [part * part for part in range(30)]
    assert for_each(work, range(0), threads) == []


def test_where_one_fails_the_others_end_and_are_waited_for() -> None:
    """The rest is not begun, and what failed first is what comes out."""
    abandoned = threading.Event()
    begun: list[int] = []
    ended: list[int] = []

    def work(part: int) -> None:
        begun.append(part)
        if part == 1:
            raise KeyError("one")
        assert abandoned.wait(30)
        ended.append(part)
        raise ValueError("told to end")

    with pytest.raises(KeyError, match="one"):
        for_each(work, range(100), 3, abandoned.set)
    assert set(begun) - {1} == set(ended)
    assert len(begun) < 10


def test_a_background_gives_its_result_as_often_as_it_is_asked() -> None:
    def fail() -> int:
        raise KeyError("no")

    found, failed = Background(lambda: 5), Background(fail)
    assert found.result() == found.result() == 5
    for _ in range(2):
        with pytest.raises(KeyError, match="no"):
            failed.result()
