"""How far long work has come: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import sys
from typing import Any

SECONDS = 30.0
"""Between two lines where standard error is no terminal."""


class _Lines:
    """What tqdm writes over and over on one line, as lines of their own."""

    def write(self, text: str) -> None:
        if text.strip():
            sys.stderr.write(f"{text.strip()}\n")

    def flush(self) -> None:
        sys.stderr.flush()


def progress(what: str, unit: str, *, total: int | None = None, initial: int = 0, shown: bool = True) -> Any:
    """A tqdm bar that counts ``unit``, for a ``with`` block; not ``shown``, it only counts."""
    from tqdm import tqdm

    terminal = sys.stderr.isatty()
    return tqdm(
        desc=what,
        unit=f" {unit}",
        total=total,
        initial=initial,
        unit_scale=True,
        file=sys.stderr if terminal else _Lines(),
        mininterval=1.0 if terminal else SECONDS,
        miniters=1,
        disable=not shown,
    )
