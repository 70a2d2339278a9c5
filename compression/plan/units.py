"""Sizes and times as people write them: 10MB, 9.5 MiB, 20ms."""

from __future__ import annotations

import re

from mobilenmt.compression.core.errors import PlanError
from mobilenmt.compression.core.settings import shown

_BYTES = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
_SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "μs": 1e-6}
_NUMBER = re.compile(r"\s*(\d+(?:[_,]\d{3})*(?:\.\d+)?|\.\d+)\s*([A-Za-zµμ]*)\s*", re.ASCII | re.IGNORECASE)


def parse_bytes(text: str, what: str = "size") -> int:
    """``10MB`` is 10,000,000, ``10MiB`` 10,485,760, ``5000000`` and ``5,000,000`` themselves. Raises PlanError."""
    number, unit = _split(text)
    if unit.lower() not in _BYTES:
        raise PlanError(f"{what}: expected bytes, as in 10MB or 9.5MiB, found {shown(text)}")
    found = int(number * _BYTES[unit.lower()]) if number < 1e15 else 0
    if found < 1:
        raise PlanError(f"{what}: expected 1 byte or more, found {shown(text)}")
    return found


def parse_seconds(text: str, what: str = "latency") -> float:
    """``20ms`` is 0.02, ``0.5s`` 0.5; the unit must be there. Raises PlanError."""
    number, unit = _split(text)
    if unit.lower() not in _SECONDS:
        raise PlanError(f"{what}: expected a time, as in 20ms or 0.5s, found {shown(text)}")
    if not 0 < number < 1e9:
        raise PlanError(f"{what}: expected more than no time, found {shown(text)}")
    return number * _SECONDS[unit.lower()]


def show_bytes(size: float) -> str:
    """As in 9.37 MB."""
    return f"{size / 1e6:.2f} MB"


def show_seconds(seconds: float) -> str:
    """As in 1.23 ms."""
    return f"{1e3 * seconds:.2f} ms"


def _split(text: str) -> tuple[float, str]:
    found = _NUMBER.fullmatch(text)
    if found is None:
        return -1.0, "?"
    return float(found[1].replace("_", "").replace(",", "")), found[2]
