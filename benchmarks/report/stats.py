"""Medians, percentiles, and ratios with their uncertainty."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Turns = Sequence[Sequence[float]]
"""Samples grouped by turn; engines take turns one after the other, so that turn i of two engines belong together."""

_RESAMPLES = 2000


@dataclass(frozen=True)
class Summary:
    """Summary of samples of one quantity; percentiles are interpolated."""

    median: float
    p95: float
    best: float


def summarize(turns: Turns) -> Summary:
    """Summary of all samples of all turns; ValueError if there are none."""
    values = np.array([value for turn in turns for value in turn], float)
    if not values.size:
        raise ValueError("no samples")
    return Summary(float(np.median(values)), float(np.percentile(values, 95)), float(values.min()))


@dataclass(frozen=True)
class Ratio:
    """How many times larger one median is than another, with the 95 % interval of a bootstrap over turns."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} ({self.low:.2f}-{self.high:.2f})"


def ratio(slow: Turns, fast: Turns, seed: int = 0) -> Ratio:
    """Ratio of the medians of the turns' medians, ``slow`` over ``fast``.

    Where both have the same number of turns they were taken in alternation, so that a turn in which the machine was
    busy is drawn for both at once (paired bootstrap, Efron and Tibshirani 1993, chapter 8); else each is drawn alone.
    """
    random = np.random.default_rng(seed)
    rows = [np.array([np.median(turn) for turn in turns], float) for turns in (slow, fast)]
    value = float(np.median(rows[0]) / np.median(rows[1]))
    first = random.integers(0, len(rows[0]), (_RESAMPLES, len(rows[0])))
    second = first if len(rows[0]) == len(rows[1]) else random.integers(0, len(rows[1]), (_RESAMPLES, len(rows[1])))
    drawn = np.median(rows[0][first], axis=1) / np.median(rows[1][second], axis=1)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Ratio(value, float(low), float(high))
