"""How long a command may take, and how far it has come."""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from mobilenmt.runtime.errors import DeadlineError, InputError

_CLEAR = "\r\x1b[K"


class Meter:
    """The time limit of a run of ``translate``, and its progress on a terminal.

    Args:
        seconds: for the whole run, from now on; None for no limit.
        output: the file that is written, for the message where time is over; None for standard output.

    Raises:
        InputError: ``seconds`` is no time.
    """

    def __init__(self, seconds: float | None, output: Path | None = None) -> None:
        if seconds is not None and not 0 < seconds < math.inf:
            raise InputError(f"--time-limit must be a number of seconds above 0, not {seconds:g}")
        self._seconds, self._output = seconds, output
        self._until = None if seconds is None else time.monotonic() + seconds
        self.shown = False
        self._done = 0

    @contextlib.contextmanager
    def showing(self, wanted: bool) -> Iterator[None]:
        """Tell of the progress in the block on standard error, if that is a terminal; the line is empty behind it."""
        self.shown = wanted and sys.stderr is not None and sys.stderr.isatty()
        try:
            yield
        finally:
            self._show("")
            self.shown = False

    @contextlib.contextmanager
    def limited(self) -> Iterator[float | None]:
        """The seconds that are left for a call in the block.

        Raises:
            DeadlineError: none are left, before or in it; the message is about the run, not about the call.
        """
        left = None if self._until is None else self._until - time.monotonic()
        try:
            if left is not None and left <= 0:
                raise DeadlineError
            yield left
        except DeadlineError:
            what = f"{self._output} was not written" if self._output else f"{self._done:,} lines are done"
            raise DeadlineError(f"not done in the {self._seconds:g} seconds of --time-limit: {what}") from None

    def add(self, lines: int) -> None:
        """So many lines more are done."""
        self._done += lines
        self._show(f"mobilenmt: {self._done:,} lines")

    def sentences(self, done: int, count: int) -> None:
        """So many sentences of a text are done, of all of them."""
        self._show(f"mobilenmt: {done:,} of {count:,} sentences")

    def _show(self, text: str) -> None:
        if self.shown:
            print(f"{_CLEAR}{text}", end="", file=sys.stderr, flush=True)
