"""How good a shape will be, by what trained ones of other shapes were: a ranking with its uncertainty, no promise.

BLEU on dev text is taken as a product of powers of the dimensions, ``ln BLEU = a + sum of b_k ln(dimension_k)``, for
models of one text and one training (a group has its own ``a``). So what is predicted is one shape's share of another's
BLEU if both are trained alike. The exponents are those of a Bayesian linear regression (Bishop 2006, section 3.3): a
normal prior, and trained points.

The prior is the paper's design (MobileNMT, Lin et al. 2023: small vocabulary, narrow, deep encoder, shallow decoder),
taken at its word: at the size of its 10 MB model no dimension may be worth another's bytes, or the paper's model would
be another. With ``N`` parameters that fixes every exponent, ``b_k = s * d ln N / d ln(dimension_k)``, up to the worth
``s`` of all bytes together, for which its 10 and 20 MB models stand (:data:`WORTH`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mobilenmt.compression.core.errors import PlanError
from mobilenmt.compression.core.settings import from_mapping
from mobilenmt.compression.train.size import count_in_matrices
from mobilenmt.compression.train.student import StudentShape

Vector = npt.NDArray[np.float64]

FORMAT = 1
DIMENSIONS = ("d_model", "encoder_layers", "decoder_layers", "encoder_ffn_dim", "decoder_ffn_dim", "vocabulary")
REFERENCE = StudentShape(256, 12, 2, 4, 4, 512, 512)
"""The paper's 10 MB model, as recalled: its BLEU is 100 %."""
REFERENCE_VOCABULARY = 8000
WORTH = 0.111
"""ln(27.09 / 25.08) / ln 2: BLEU of the paper's 20 and 10 MB models, as recalled."""
DOUBT = 0.5
"""Deviation of an exponent of the prior, as a share of it."""
NOISE = 0.03
"""Deviation of ln BLEU between two models of one shape, where a point does not tell its own; 1 of 33 BLEU."""
_NORMAL_90 = 1.645
_SHIPPED = Path(__file__).parent / "data" / "points.json"


@dataclass(frozen=True)
class Point:
    """A model that was trained and scored."""

    group: str
    """Models of one group saw the same text as often and were scored on the same lines."""
    shape: StudentShape
    vocabulary: int
    bleu: float
    """On dev text, never a test set; the mean over seeds if there are several."""
    source: str
    """Where the figure is from, and how to get it again."""
    deviation: float | None = None
    """Standard deviation of ``bleu`` between seeds; None: not known."""

    def __post_init__(self) -> None:
        if not (self.bleu > 0 and math.isfinite(self.bleu)):
            raise PlanError(f"bleu: expected more than 0, found {self.bleu}")
        if self.deviation is not None and not 0 <= self.deviation < self.bleu:
            raise PlanError(f"deviation: expected 0 up to the BLEU, found {self.deviation}")
        if self.vocabulary < 2:
            raise PlanError(f"vocabulary: expected 2 or more pieces, found {self.vocabulary}")


@dataclass(frozen=True)
class Prediction:
    """BLEU as a share of the reference's, were both trained alike."""

    share: float
    low: float
    """Nine of ten models that are trained lie between this, as far as the proxy is right,"""
    high: float
    """and this."""


class Quality:
    """Predicts shares of BLEU.

    Args:
        points: trained models; a group of one says nothing.
    """

    def __init__(self, points: Sequence[Point] = ()) -> None:
        mean = prior_exponents()
        groups = sorted({point.group for point in points})
        rows = np.zeros((len(points), len(mean) + len(groups)))
        values, weights = np.zeros(len(points)), np.zeros(len(points))
        for row, point in enumerate(points):
            rows[row, : len(mean)] = logs(point.shape, point.vocabulary)
            rows[row, len(mean) + groups.index(point.group)] = 1.0
            values[row] = math.log(point.bleu)
            noise = NOISE if point.deviation is None else max(point.deviation / point.bleu, NOISE / 3)
            weights[row] = 1 / noise**2
        self.surprises = _surprises(points, rows[:, : len(mean)], values, weights, mean)
        """Groups that the prior does not foresee -> by how much the deviation of their points is raised."""
        weights /= np.array([self.surprises.get(point.group, 1.0) for point in points]) ** 2
        precision = np.zeros((rows.shape[1], rows.shape[1]))
        precision[: len(mean), : len(mean)] = np.diag(1 / (DOUBT * mean) ** 2)  # none on the groups' own level
        pull = precision @ np.concatenate([mean, np.zeros(len(groups))])
        precision += rows.T @ (weights[:, None] * rows)
        covariance = np.linalg.inv(precision)
        found = covariance @ (pull + rows.T @ (weights * values))
        self.points = len(points)
        self.informative = sum(sum(other.group == point.group for other in points) > 1 for point in points)
        """Points that share their group with another, and so say something about shapes."""
        self.exponents: Vector = found[: len(mean)]
        """Of :data:`DIMENSIONS`."""
        self._covariance: Vector = covariance[: len(mean), : len(mean)]

    def predict(self, shape: StudentShape, vocabulary: int) -> Prediction:
        """A shape's share of the reference's BLEU, and the interval of nine in ten."""
        distance = logs(shape, vocabulary) - logs(REFERENCE, REFERENCE_VOCABULARY)
        mean = float(self.exponents @ distance)
        spread = _NORMAL_90 * math.sqrt(NOISE**2 + float(distance @ self._covariance @ distance))
        return Prediction(math.exp(mean), math.exp(mean - spread), math.exp(mean + spread))

    def low(self, shape: StudentShape, vocabulary: int, encoder: Vector, decoder: Vector) -> Vector:
        """Logarithms of the lower ends of predictions for many depths [n] of one width."""
        distances = np.tile(logs(shape, vocabulary), (len(encoder), 1))
        distances[:, 1], distances[:, 2] = np.log(encoder), np.log(decoder)
        distances -= logs(REFERENCE, REFERENCE_VOCABULARY)
        spread = np.sqrt(NOISE**2 + np.einsum("ni,ij,nj->n", distances, self._covariance, distances))
        found: Vector = distances @ self.exponents - _NORMAL_90 * spread
        return found


def _surprises(
    points: Sequence[Point], rows: Vector, values: Vector, weights: Vector, mean: Vector
) -> dict[str, float]:
    """Groups whose differences are three deviations or more beyond what the prior and their noise let expect.

    Such a group is of models for which the prior does not speak: much smaller ones, or ones that have hardly begun to
    learn. A regression that took it at its word would carry its powers to sizes that nobody trained. So its deviation
    is raised by Birge's ratio (1932), the root of chi-square over the degrees of freedom.
    """
    found = {}
    for name in {point.group for point in points}:
        one = np.array([point.group == name for point in points])
        freedom = int(one.sum()) - 1
        if freedom < 1:
            continue
        differences = rows[one][1:] - rows[one][0]  # the group's own level falls out
        off = values[one][1:] - values[one][0] - differences @ mean
        noise = np.diag(1 / weights[one][1:]) + 1 / weights[one][0]
        expected = noise + (differences * (DOUBT * mean) ** 2) @ differences.T
        square = float(off @ np.linalg.solve(expected, off))
        if square > freedom + 3 * math.sqrt(2 * freedom):
            found[name] = math.sqrt(square / freedom)
    return found


def prior_exponents() -> Vector:
    """Exponents at which the paper's 10 MB model is the best of its size, in the order of :data:`DIMENSIONS`."""
    d, vocabulary = REFERENCE.d_model, REFERENCE_VOCABULARY
    encoder, decoder = REFERENCE.encoder_layers, REFERENCE.decoder_layers
    inner, outer = 2 * d * encoder * REFERENCE.encoder_ffn_dim, 2 * d * decoder * REFERENCE.decoder_ffn_dim
    squares = {"encoder": 4 * d * d * encoder, "decoder": 8 * d * d * decoder}
    parts = {
        "d_model": 2 * (squares["encoder"] + squares["decoder"]) + inner + outer + vocabulary * d,
        "encoder_layers": squares["encoder"] + inner,
        "decoder_layers": squares["decoder"] + outer,
        "encoder_ffn_dim": inner,
        "decoder_ffn_dim": outer,
        "vocabulary": vocabulary * d,
    }
    return WORTH * np.array([parts[name] for name in DIMENSIONS]) / count_in_matrices(REFERENCE, vocabulary)


def logs(shape: StudentShape, vocabulary: int) -> Vector:
    """Logarithms of the dimensions."""
    return np.log([*(getattr(shape, name) for name in DIMENSIONS[:-1]), vocabulary]).astype(np.float64)


def load_points(path: Path | None = None) -> tuple[Point, ...]:
    """Trained points of a file, or those that come with the package.

    The file is a JSON object: ``format`` 1, ``points`` a list of objects with the fields of :class:`Point`.

    Raises PlanError: it cannot be read, or a point makes no sense.
    """
    path = path or _SHIPPED
    try:
        raw: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PlanError(f"{path} cannot be read as points: {getattr(error, 'strerror', None) or error}") from None
    if not isinstance(raw, dict) or raw.get("format") != FORMAT or not isinstance(raw.get("points"), list):
        raise PlanError(f'{path}: expected an object with "format": {FORMAT} and a list "points"')
    known = {item.name for item in fields(Point)}
    return tuple(
        from_mapping(Point, {key: value for key, value in item.items() if key in known} if isinstance(item, dict)
                     else item, f"{path.name}: points[{index}]")
        for index, item in enumerate(raw["points"])
    )  # fmt: skip
