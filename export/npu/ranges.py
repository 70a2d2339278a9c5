"""How activations become integers: asymmetric, one scale and one zero point for a tensor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mobilenmt.export.weights import Array
from mobilenmt.runtime.errors import ExportError

PERCENTILES = (99.9, 99.99, 100.0)
"""Of the values on either side that an 8-bit range may hold; which of them, the squared error says."""
MARGIN = 1.25
"""A 16-bit range is wider than what was seen: that costs a third of one of its bits, and clipping costs words."""
BITS = (8, 16)


@dataclass(frozen=True)
class Range:
    """Values from ``low`` to ``high`` as unsigned integers of ``bits`` bits; zero is one of them exactly."""

    low: float
    high: float
    bits: int

    def __post_init__(self) -> None:
        if self.bits not in BITS:
            raise ExportError(f"activations take 8 or 16 bits, not {self.bits}")
        if not (np.isfinite(self.low) and np.isfinite(self.high)) or self.low > 0 or self.high < 0:
            raise ExportError(f"a range of activations holds zero and ends, unlike {self.low} to {self.high}")

    @property
    def scale(self) -> float:
        """Of one step, a number that fp32 has."""
        return float(np.float32(max(self.high - self.low, 1e-6) / (2**self.bits - 1)))

    @property
    def zero_point(self) -> int:
        """What stands for zero."""
        return int(np.clip(np.rint(-self.low / self.scale), 0, 2**self.bits - 1))

    def round(self, values: Array) -> Array:
        """What QuantizeLinear and DequantizeLinear make of fp32 values."""
        steps = np.rint(values / np.float32(self.scale)) + self.zero_point
        kept = np.clip(steps, 0, 2**self.bits - 1) - self.zero_point
        found: Array = (kept * np.float32(self.scale)).astype(np.float32)
        return found


def choose_range(rows: Array, low: float, high: float, bits: int, percentiles: Sequence[float] = PERCENTILES) -> Range:
    """The range for an activation.

    Args:
        rows: some of its values.
        low, high: the least and the greatest of all.
        bits: 8: the one of ``percentiles`` with the least squared error on ``rows``; 16: all that was seen, and a
            margin.
    """
    low, high = min(low, 0.0), max(high, 0.0)
    if bits == 16:
        return Range(low * MARGIN, high * MARGIN, bits)
    tried = []
    for percentile in percentiles:
        if percentile >= 100.0:
            ends = low, high
        else:
            ends = (
                max(low, min(0.0, float(np.percentile(rows, 100 - percentile)))),
                min(high, max(0.0, float(np.percentile(rows, percentile)))),
            )
        found = Range(*ends, bits)
        tried.append((float(np.square(found.round(rows) - rows).mean()), found))
    return min(tried, key=lambda item: item[0])[1]
