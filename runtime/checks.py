"""Checks on values that come from outside: JSON of any origin, and what stands in it.

Every complaint is a :class:`PackError` that begins with the key it is about.
"""

from __future__ import annotations

import json
import math
from typing import Any

from mobilenmt.runtime.errors import PackError

_DEEPEST = 32  # json.dumps(indent=...) recurses in Python: what is read here must be printable later


def parse_json(content: bytes) -> object:
    """Read JSON strictly.

    Raises:
        PackError: another encoding than UTF-8, broken or deeply nested JSON, a key given twice, NaN or infinity, a
            number of thousands of digits, or a lone surrogate.
    """
    try:
        data: object = json.loads(
            content.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_refuse, parse_float=_finite
        )
        _check_depth(data, _DEEPEST)
        json.dumps(data, ensure_ascii=False).encode("utf-8")  # a lone surrogate could be neither printed nor written
    except RecursionError:
        raise PackError("the JSON is nested too deeply") from None
    except ValueError as error:  # JSONDecodeError, UnicodeError and int's limit of digits are all ValueErrors
        raise PackError(f"not valid JSON in UTF-8: {error}") from None
    return data


def _check_depth(value: object, left: int) -> None:
    if isinstance(value, dict | list):
        if left == 0:
            raise PackError("the JSON is nested too deeply")
        for child in value.values() if isinstance(value, dict) else value:
            _check_depth(child, left - 1)


def json_object(key: str, value: object) -> dict[str, Any]:
    """Return ``value`` if it is a JSON object."""
    if not isinstance(value, dict):
        raise PackError(f"{key}: expected an object, found {shown(value)}")
    return value


def integer(key: str, value: object, low: int, high: int) -> int:
    """Return ``value`` if it is an integer from ``low`` to ``high``."""
    # bool is an int to Python, and true in place of 1 is a sign of a broken writer
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise PackError(f"{key}: expected an integer from {low} to {high}, found {shown(value)}")
    return value


def number(key: str, value: object, low: float, high: float) -> float:
    """Return ``value`` if it is a number from ``low`` to ``high``."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise PackError(f"{key}: expected a number from {low:g} to {high:g}, found {shown(value)}")
    return float(value)


def text(key: str, value: object) -> str:
    """Return ``value`` if it is one line of printable text."""
    if not isinstance(value, str) or not 0 < len(value) <= 200 or not value.isprintable():
        raise PackError(f"{key}: expected one line of text of up to 200 characters, found {shown(value)}")
    return value


def shown(value: object) -> str:
    """A short form of any value for a message; never long, never recursive, always printable."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, int):
        return str(value) if -(10**20) < value < 10**20 else "a huge integer"
    if isinstance(value, str):
        return json.dumps(value if len(value) <= 60 else value[:60] + "…")
    if isinstance(value, float):
        return repr(value)
    return (
        "an object" if isinstance(value, dict) else "a list" if isinstance(value, list) else f"a {type(value).__name__}"
    )


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # readers differ in which of two equal keys they take: one file must not mean two things
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise PackError(f"the JSON gives the key {shown(key)} twice")
        found[key] = value
    return found


def _refuse(constant: str) -> Any:
    raise PackError(f"{constant} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise PackError(f"the number {text[:40]} is too large")
    return value
