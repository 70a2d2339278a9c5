"""The variant of a pack for NPUs: graphs of fixed shapes beside the usual ones, and which of them are there."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from mobilenmt.runtime.checks import integer, json_object, shown
from mobilenmt.runtime.errors import PackError
from mobilenmt.runtime.sections import Section

STATIC_SINCE = (2, 2)
"""The format version of packs that have it."""
_MOST_BUCKETS = 16
_KNOWN_FORMS = ("qdq", "float")


@dataclass(frozen=True)
class Variant(Section):
    """The key ``variant`` of pack.json, since format 2.2."""

    kind: Literal["static"]
    source: tuple[int, ...]
    """Source tokens that there are graphs for, the end token counted, ascending: the buckets."""
    target: tuple[int, ...]
    """Steps that the decoder of each has room for."""
    forms: tuple[str, ...]
    """``qdq``: activations rounded between QuantizeLinear and DequantizeLinear; ``float``: not rounded."""
    bits: dict[str, int] = field(default_factory=dict)
    """Bits of activations -> matrices of ``qdq`` that have so many; 32 for those in floating point."""

    def __post_init__(self) -> None:
        if self.kind != "static":
            raise PackError(f'kind: expected "static", found {shown(self.kind)}')
        for key in ("source", "target"):
            values = getattr(self, key)
            if not isinstance(values, list | tuple) or not 1 <= len(values) <= _MOST_BUCKETS:
                raise PackError(f"{key}: expected 1 to {_MOST_BUCKETS} numbers, found {shown(values)}")
            object.__setattr__(self, key, tuple(integer(key, value, 2, 2**20) for value in values))
        if len(self.target) != len(self.source) or list(self.source) != sorted(set(self.source)):
            raise PackError("source: expected ascending numbers, and a target for each")
        forms = self.forms
        if not isinstance(forms, list | tuple) or not forms or any(not isinstance(form, str) for form in forms):
            raise PackError(f"forms: expected names, found {shown(forms)}")
        object.__setattr__(
            self, "forms", tuple(form for form in forms if form in _KNOWN_FORMS)
        )  # later ones are known later
        for bits, count in json_object("bits", self.bits).items():
            integer(f"bits.{shown(bits)}", count, 0, 2**20)

    def bucket(self, source: int, steps: int, least: int = 0) -> int | None:
        """The smallest bucket, an index, for a source of so many tokens and an output of so many steps."""
        for index in range(least, len(self.source)):
            if source <= self.source[index] and steps <= self.target[index]:
                return index
        return None


def static_file(part: str, form: str, source: int) -> str:
    """The file of a static graph."""
    return f"static-{part}.{form}.{source}.onnx"
