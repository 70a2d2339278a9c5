"""Work in threads: one call whose result is awaited later, or the same for several parts at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

P = TypeVar("P")
T = TypeVar("T")


class Background(Generic[T]):
    """Starts ``work`` at once; :meth:`result` waits for it and returns or raises what it did.

    concurrent.futures does the same, but its import costs a tenth of a whole cold start.
    """

    def __init__(self, work: Callable[[], T]) -> None:
        self._work = work
        self._results: list[T] = []
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._results.append(self._work())
        except BaseException as error:  # handed to the thread that asks for the result
            self._error = error

    def result(self) -> T:
        """Wait, then return what the call returned or raise what it raised."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._results[0]


def for_each(work: Callable[[P], T], parts: Sequence[P], threads: int) -> list[T]:
    """The result of ``work`` for each part, in order, on so many threads at most; raises what the first of them did."""
    threads = min(threads, len(parts))
    if threads < 2:
        return [work(part) for part in parts]
    from concurrent.futures import ThreadPoolExecutor  # not before: it costs 5 ms of the start

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(work, parts))
