"""Forms: how one matrix of a pack is stored. All but fp32 are integers times scales, the same in both engines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mobilenmt.runtime.errors import InputError

Clipping = Literal["max", "percentile", "mse"]
Granularity = Literal["channel", "tensor"]

LEVELS = 63
"""Largest stored magnitude. Kernels of processors without VNNI add pairs of products of an 8-bit activation and a
weight in 16 bits: 2 * 255 * 63 fits, 2 * 255 * 127 overflows and gives wrong results silently."""
WIDE_LEVELS = 127
"""Likewise where no kernel that reads the matrix adds in 16 bits."""
NIBBLE_LEVELS = 7
"""Largest magnitude of 4 bits."""
MULTIPLIERS = LEVELS // NIBBLE_LEVELS
"""Largest multiplier of a block of 4 bits, so that the products are the integers of ``int8``."""
BLOCKS = (16, 32, 64, 128)
"""Inputs that may share a multiplier: what ONNX Runtime's kernels take."""
_LARGEST_BLOCKS = tuple(reversed(BLOCKS))  # 128 is the fastest there; 16 the smallest


@dataclass(frozen=True)
class Form:
    """How one matrix is stored.

    ``int8``: ``scale[row] * q``, q from -63 to 63. ``int8-wide``: likewise, from -127 to 127.
    ``int4-B``: ``scale[row] * m[row, block] * q``, q from -7 to 7 and m from 1 to 9 for each block of B inputs ("double
    quantization", Dettmers et al. 2023, with multipliers that are integers). ``fp32``: as it is.
    """

    name: str
    kind: Literal["int8", "int8-wide", "int4", "fp32"]
    block: int = 0
    """Inputs that share a multiplier; 0 where there are none."""

    @property
    def levels(self) -> int:
        """Largest magnitude of what the scale of a row is multiplied with; 0 for fp32."""
        return {"int8": LEVELS, "int8-wide": WIDE_LEVELS, "int4": LEVELS, "fp32": 0}[self.kind]

    def bytes(self, rows: int, columns: int) -> list[int]:
        """Bytes of each tensor that a matrix [rows, columns] is stored as, its bias not counted.

        ``int8`` is what the encoder's have; where the decoder runs, and in tables, kernels want more scales
        (``compression/pack/estimate.py``).
        """
        if self.kind == "fp32":
            return [4 * rows * columns]
        if self.kind == "int8":
            return [rows * columns, 4 * rows]
        size = self.block or block_size(columns)
        blocks = -(-columns // size)
        if self.kind == "int8-wide":
            return [rows * blocks * size, 4 * rows]
        return [rows * blocks * size // 2, rows * blocks, 4 * rows]


FORMS: dict[str, Form] = {
    form.name: form
    for form in (
        Form("int8", "int8"),
        Form("int8-wide", "int8-wide"),
        *(Form(f"int4-{block}", "int4", block) for block in BLOCKS),
        Form("fp32", "fp32"),
    )
}
"""By name."""


def find_form(name: object) -> Form:
    """The form called ``name``.

    Raises:
        InputError: there is none.
    """
    form = FORMS.get(name) if isinstance(name, str) else None
    if form is None:
        raise InputError(f"there is no form {name!r} of a matrix; forms: {', '.join(FORMS)}")
    return form


def block_size(columns: int) -> int:
    """The largest block that divides a row of ``columns`` values, or the smallest block if none does."""
    return next((size for size in _LARGEST_BLOCKS if columns % size == 0), _LARGEST_BLOCKS[-1])
