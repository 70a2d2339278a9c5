"""Parts of a call on several threads: their order, and what becomes of the others where one fails."""

from __future__ import annotations

import _thread
import threading
import time
from collections.abc import Callable

import pytest

from mobilenmt import EngineError
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


def test_a_system_that_starts_no_more_threads_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that were started end, and are waited for."""
    start, left, ended = _thread.start_new_thread, iter(range(1)), threading.Event()
    begun, abandoned = threading.Event(), threading.Event()

    def refuse(work: Callable[[], None], arguments: tuple[()]) -> int:
        if next(left, None) is None:
            begun.wait(30)
            raise RuntimeError("can't start new thread")
        return start(work, arguments)

    def work(part: int) -> None:
        begun.set()
        abandoned.wait(30)
        ended.set()

    monkeypatch.setattr(_thread, "start_new_thread", refuse)
    with pytest.raises(EngineError, match="a thread was needed: can't start new thread"):
        for_each(work, range(9), 3, abandoned.set)
    assert ended.is_set()
    with pytest.raises(EngineError, match="a thread was needed"):
        Background(lambda: 1)
