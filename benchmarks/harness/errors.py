"""What can go wrong in a benchmark that a person can mend."""

from __future__ import annotations

from mobilenmt.runtime.errors import MobileNMTError


class BenchmarkError(MobileNMTError):
    """A benchmark cannot be run: a file, a peer or a setting is missing or wrong."""


def expect(condition: bool, otherwise: str) -> None:
    """BenchmarkError with what went wrong, unless the condition holds."""
    if not condition:
        raise BenchmarkError(otherwise)
