"""Work in threads: one call whose result is awaited later, or the same for several parts at once."""

from __future__ import annotations

import _thread
import queue
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from mobilenmt.runtime.errors import DeadlineError, EngineError, StoppedError

P = TypeVar("P")
T = TypeVar("T")

_LOOK_UP = 0.05  # seconds; on Windows Ctrl-C does not get through to a thread that waits without end


class Ended:
    """Runs ``work`` in a thread at once; :meth:`wait` returns when it is over.

    The locks of threading are written in Python: what a handler of signals raises can fall into them, and comes out as
    another exception or leaves them locked. A bare lock is waited for in C, which what is raised simply ends.

    Raises:
        EngineError: the system starts no more threads.
    """

    def __init__(self, work: Callable[[], None]) -> None:
        self._running = _thread.allocate_lock()
        self._running.acquire()
        self._over = False

        def run() -> None:
            try:
                work()
            finally:
                self._over = True
                self._running.release()

        try:
            _thread.start_new_thread(run, ())
        except RuntimeError as error:  # no memory, or as many as the system allows
            raise EngineError(f"a thread was needed: {error}") from None

    def wait(self) -> None:
        """Return when it is over."""
        while not self._over:  # not the lock alone: a signal may come before it is given back
            if self._running.acquire(timeout=_LOOK_UP):
                self._running.release()


class Background(Generic[T]):
    """Starts ``work`` at once; :meth:`result` waits for it and returns or raises what it did.

    concurrent.futures does the same, but its import costs a tenth of a whole cold start.
    """

    def __init__(self, work: Callable[[], T]) -> None:
        self._work = work
        self._results: list[T] = []
        self._error: BaseException | None = None
        self._ended = Ended(self._run)

    def _run(self) -> None:
        try:
            self._results.append(self._work())
        except BaseException as error:  # handed to the thread that asks for the result
            self._error = error

    def result(self) -> T:
        """Wait, then return what the call returned or raise what it raised."""
        self._ended.wait()
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
    """The result of ``work`` for each part, in order, on so many threads at most; raises what failed first.

    Where one raises, or a handler of a signal does, ``abandon`` is called, so that the others end soon: they are waited
    for.
    """
    threads = min(threads, len(parts))
    if threads < 2:
        return [work(part) for part in parts]
    todo, results = deque(range(len(parts))), dict[int, T]()
    ended: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()

    def run() -> None:
        try:
            while (index := _take(todo)) is not None:
                results[index] = work(parts[index])
            ended.put(None)
        except BaseException as error:  # handed to the thread that called
            ended.put(error)

    running: list[Ended] = []
    try:
        for _ in range(threads):
            running.append(Ended(run))
        for _ in range(threads):
            error = next_of(ended)
            if error is not None:
                raise error
    except BaseException:
        todo.clear()
        abandon()
        raise
    finally:
        for thread in running:
            thread.wait()
    return [results[index] for index in range(len(parts))]


def next_of(items: queue.SimpleQueue[T]) -> T:
    """Wait for the next item; handlers of signals run meanwhile, and what they raise ends it."""
    while True:
        try:
            return items.get(timeout=_LOOK_UP)
        except queue.Empty:
            pass


def _take(items: deque[T]) -> T | None:
    try:
        return items.popleft()
    except IndexError:  # another thread may have taken the last one
        return None
