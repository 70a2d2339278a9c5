"""One call in a thread of its own, whose result is awaited later."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

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
