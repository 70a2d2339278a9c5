"""From token scores to a confidence: the probability that an output is not bad, fitted on dev text.

Bad is a sentence chrF below 30 against the reference. What is fitted is a logistic regression on what the engine says
for nothing: the mean and the least log-probability of an output's tokens, and their number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mobilenmt.runtime.errors import InputError
from mobilenmt.runtime.hypothesis import Hypothesis, SearchOptions, confidence, evidence
from mobilenmt.runtime.manifest import Confidence
from mobilenmt.runtime.opening import Search, Text

Floats = npt.NDArray[np.float64]
BAD_CHRF = 30.0
LEAST = 200
"""Sentences without which nothing is fitted."""
_RIDGE = 1e-3  # keeps weights finite where good and bad can be told apart without a fault


@dataclass(frozen=True)
class Found:
    """What a threshold finds: outputs of a confidence below it."""

    threshold: float
    flagged: int
    precision: float
    """Share of the flagged that are bad."""
    recall: float
    """Share of the bad that are flagged."""


@dataclass(frozen=True)
class Calibration:
    """Parameters, and how well they do on sentences that they were not fitted on."""

    parameters: Confidence
    sentences: int
    bad: int
    thresholds: tuple[Found, ...]
    expected_error: float
    """Mean distance of confidence and share of good outputs, over ten bins of as many sentences (ECE)."""


def calibrate(engine: Search, tokenizer: Text, pairs: Sequence[tuple[str, str]]) -> Calibration:
    """Translate dev text greedily and fit a confidence to it.

    Every second sentence is held out and judged by parameters fitted on the others, in both directions; those returned
    are fitted on all.

    Raises:
        InputError: too few sentences, or all of them good or bad.
    """
    from sacrebleu.metrics.chrf import CHRF

    most = engine.max_length - 1
    fitting = [(ids, pair) for pair in pairs if len(ids := tokenizer.encode(pair[0])) <= most and ids]
    if len(fitting) < LEAST:
        raise InputError(f"{len(fitting)} sentences are too few to calibrate a confidence: give {LEAST}")
    limits = [min(2 * len(ids) + 11, engine.max_length) for ids, _ in fitting]
    outputs = engine.generate([ids for ids, _ in fitting], limits, SearchOptions(token_scores=True))
    metric = CHRF()
    scores = [
        metric.sentence_score(tokenizer.decode(output.ids), [pair[1]]).score
        for (output,), (_, pair) in zip(outputs, fitting, strict=True)
    ]
    return fit([output for (output,) in outputs], np.array(scores) >= BAD_CHRF)


def fit(outputs: Sequence[Hypothesis], good: npt.NDArray[np.bool_]) -> Calibration:
    """The parameters for outputs with token scores of which it is known whether they are good.

    Raises:
        InputError: all of them are, or none.
    """
    if good.all() or not good.any():
        raise InputError("all outputs are good, or all are bad: a confidence needs both kinds")
    features = np.array([evidence(output) for output in outputs])
    even = np.arange(len(outputs)) % 2 == 0
    held_out = np.zeros(len(outputs))
    for part in (even, ~even):
        parameters = _logistic(features[~part], good[~part])
        held_out[part] = [confidence(output, parameters) for output, mine in zip(outputs, part, strict=True) if mine]
    thresholds = tuple(_found(held_out, good, threshold) for threshold in (0.1, 0.25, 0.5, 0.75, 0.9))
    order = np.argsort(held_out)
    bins = np.array_split(order, 10)
    error = sum(len(some) * abs(held_out[some].mean() - good[some].mean()) for some in bins) / len(order)
    return Calibration(_logistic(features, good), len(outputs), int((~good).sum()), thresholds, float(error))


def _found(values: Floats, good: npt.NDArray[np.bool_], threshold: float) -> Found:
    flagged = values < threshold
    hits = int((flagged & ~good).sum())
    count, bad = int(flagged.sum()), int((~good).sum())
    return Found(threshold, count, hits / count if count else 1.0, hits / bad)


def _logistic(features: Floats, good: npt.NDArray[np.bool_]) -> Confidence:
    """Newton's method (iteratively reweighted least squares) with a small ridge."""
    mean, spread = features.mean(axis=0), features.std(axis=0) + 1e-9
    x = np.concatenate([np.ones((len(features), 1)), (features - mean) / spread], axis=1)
    weights = np.zeros(x.shape[1])
    for _ in range(50):
        p = 1 / (1 + np.exp(-x @ weights))
        gradient = x.T @ (good - p) - _RIDGE * weights
        hessian = (x * (p * (1 - p))[:, None]).T @ x + _RIDGE * np.eye(x.shape[1])
        step = np.linalg.solve(hessian, gradient)
        weights += step
        if np.abs(step).max() < 1e-9:
            break
    slopes = weights[1:] / spread
    bias, *rest = (round(float(value), 6) for value in (weights[0] - slopes @ mean, *slopes))
    return Confidence(bias, rest[0], rest[1], rest[2], BAD_CHRF)
