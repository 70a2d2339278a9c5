"""What stages before the export know of how the pack stores its matrices. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from mobilenmt.export.quantize.settings import Quantization


@dataclass(frozen=True)
class PackForms:
    """How a pack stores the matrices of a student."""

    quantization: Quantization = field(default_factory=Quantization)
    """Forms and rounding."""
    shortlist: bool = False
    """Whether it has a shortlist: then a table of 8 bits has the levels of the other matrices, else all 127."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {**self.quantization.to_dict(), "shortlist": self.shortlist}
