"""Medians, percentiles and ratios are what they say."""

from __future__ import annotations

import numpy as np
import pytest
from benchmarks.report.stats import ratio, summarize


def test_summary_is_numpys_percentiles() -> None:
    values = [3.0, 1.0, 2.0, 10.0, 4.0, 7.0]
    found = summarize([values[:2], values[2:]])
    assert (found.median, found.best) == (3.5, 1.0)
    assert found.p95 == pytest.approx(np.percentile(values, 95))
    with pytest.raises(ValueError, match="no samples"):
        summarize([[]])


def test_ratio_is_paired_by_turn() -> None:
    """A busy machine slows both in a turn: their ratio stays exact, and its interval closed."""
    busy = [1.0, 5.0, 2.0, 9.0, 1.5]
    found = ratio([[3 * value] for value in busy], [[value] for value in busy])
    assert (found.value, found.low, found.high) == pytest.approx((3, 3, 3))


def test_ratio_interval_widens_with_noise() -> None:
    random = np.random.default_rng(0)
    rows = [[[float(value)] for value in random.normal(mean, 0.1, 30)] for mean in (2.0, 1.0)]
    found = ratio(*rows)
    assert found.low < found.value < found.high
    assert 1.8 < found.low < 2 < found.high < 2.2
