"""Work in threads: one call whose result is awaited later, or the same for several parts at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from mobilenmt.runtime.errors import DeadlineError, StoppedError

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


class Watch:
    """Says when a call has to end: its time is over, somebody wants it to, or a part of it has failed.

    Args:
        seconds: time for all of the call; None for no limit.
        stop: asked now and then, in any thread; true ends the call. What it raises ends it, too.
    """

    def __init__(self, seconds: float | None = None, stop: Callable[[], bool] | None = None) -> None:
        self._seconds, self._stop = seconds, stop
        self._until = None if seconds is None else time.monotonic() + seconds
        self._abandoned = False

    def __bool__(self) -> bool:
        return self._until is not None or self._stop is not None

    @property
    def left(self) -> float | None:
        """Seconds left; None for no limit."""
        return None if self._until is None else self._until - time.monotonic()

    def abandon(self) -> None:
        """Let :meth:`check` raise from now on, wherever it is called."""
        self._abandoned = True

    def check(self) -> None:
        """Raise if the call has to end.

        Raises:
            DeadlineError: its time is over.
            StoppedError: the caller wants it to end.
        """
        if self._abandoned:
            raise StoppedError("stopped, since another part of the call has failed")
        if self._until is not None and time.monotonic() >= self._until:
            raise DeadlineError(f"not done in the {self._seconds:g} seconds that were given")
        if self._stop is not None and self._stop():
            raise StoppedError("stopped by the caller")


def for_each(
    work: Callable[[P], T], parts: Sequence[P], threads: int, abandon: Callable[[], None] = lambda: None
) -> list[T]:
    """The result of ``work`` for each part, in order, on so many threads at most; raises what the first of them did.

    Where one raises, or Ctrl-C comes, ``abandon`` is called, so that the others end soon: they are waited for.
    """
    threads = min(threads, len(parts))
    if threads < 2:
        return [work(part) for part in parts]
    from concurrent.futures import ThreadPoolExecutor  # not before: it costs 5 ms of the start

    with ThreadPoolExecutor(threads) as pool:
        try:
            return list(pool.map(work, parts))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            abandon()
            raise
