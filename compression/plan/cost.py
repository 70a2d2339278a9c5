"""What a sentence costs on a machine: time and memory, as a sum of what a model does, each times a price.

The terms are what the C core does (docs/core/engine.md); their prices are fitted to models of random weights that ran
on the machine (:mod:`~mobilenmt.compression.plan.measure`). No price is negative, so more work never costs less.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mobilenmt.compression.core.errors import PlanError
from mobilenmt.compression.core.settings import from_mapping
from mobilenmt.compression.core.stage import write_json
from mobilenmt.compression.train.student import StudentShape

if TYPE_CHECKING:
    from mobilenmt.compression.pack.shortlist import ShortlistSettings

FORMAT = 1
_SHIPPED = Path(__file__).parent / "data"
DEFAULT_FIT = "epyc-zen5"
"""Of the machine that the figures of the docs are from."""


@dataclass(frozen=True)
class Load:
    """The sentence that is paid for: one at a time, greedy, on one thread of the C core."""

    source_tokens: int = 30
    """Tokens read, the end token counted."""
    target_tokens: int = 30
    """Tokens written, the start token counted."""

    def __post_init__(self) -> None:
        for name in ("source_tokens", "target_tokens"):
            if not 2 <= getattr(self, name) <= 10_000:
                raise PlanError(f"{name}: expected 2 to 10,000 tokens, found {getattr(self, name)}")


def candidates(vocabulary: int, shortlist: ShortlistSettings | None, load: Load) -> int:
    """Target tokens that a step scores."""
    if shortlist is None:
        return vocabulary
    return min(vocabulary, shortlist.common + shortlist.per_token * load.source_tokens)


def latency_terms(
    shape: StudentShape,
    vocabulary: int,
    shortlist: ShortlistSettings | None,
    load: Load,
    cache_bytes: tuple[int, int],
) -> dict[str, Any]:
    """What one sentence takes time for: term -> amount, to be multiplied by seconds.

    The numbers of layers of ``shape`` may be arrays. ``cache_bytes``: of the second and of the last level.
    """
    d, n, m = shape.d_model, load.source_tokens, load.target_tokens - 1
    encoder: Any = shape.encoder_layers
    decoder: Any = shape.decoder_layers
    chosen = candidates(vocabulary, shortlist, load)
    step_bytes = decoder * (6 * d * d + 2 * d * shape.decoder_ffn_dim) + chosen * d
    far, farther = (np.maximum(0, step_bytes - size) for size in cache_bytes)
    width = encoder * (8 * d + 2 * shape.encoder_ffn_dim)
    return {
        "sentence": 1,
        "encoder products": n * (encoder * (4 * d * d + 2 * d * shape.encoder_ffn_dim) + decoder * 2 * d * d),
        "encoder attention": encoder * n * n * d,
        "encoder rows": n * width,
        "encoder layers": encoder,
        "candidates gathered": 0 if shortlist is None else chosen * d,
        "step": m,
        "step layers": m * decoder,
        "step bytes": m * step_bytes,
        "step bytes beyond the second-level cache": m * far,
        "step bytes beyond the last cache": m * farther,
        "step attention": decoder * d * (m * n + m * (m + 1) // 2),
        "step scores": m * chosen,
    }


def memory_terms(
    shape: StudentShape,
    vocabulary: int,
    shortlist: ShortlistSettings | None,
    load: Load,
    native_bytes: int,
) -> dict[str, Any]:
    """What a process holds while it translates: term -> amount, to be multiplied by bytes.

    The numbers of layers of ``shape`` may be arrays. ``native_bytes`` is the size of native.bin.
    """
    d, n, m = shape.d_model, load.source_tokens, load.target_tokens
    wide = _padded(d)
    inner, outer = _padded(shape.encoder_ffn_dim), _padded(shape.decoder_ffn_dim)
    encoder: Any = shape.encoder_layers
    decoder: Any = shape.decoder_layers
    blocks = encoder * (4 * wide * wide + 2 * wide * inner) + decoder * (8 * wide * wide + 2 * wide * outer)
    chosen = candidates(vocabulary, shortlist, load)
    return {
        "process": 1,
        "blocks": blocks + (0 if shortlist else _padded(vocabulary) * wide),
        "tokenizer": native_bytes,
        "embedding": vocabulary * d if shortlist else 0,
        "shortlist": vocabulary * 2 * shortlist.per_token if shortlist else 0,
        "work": 4 * n * (8 * wide + inner) + 8 * decoder * wide * (n + m) + (chosen * d if shortlist else 0),
    }


def _padded(size: int) -> int:
    return -(-size // 16) * 16


@dataclass(frozen=True)
class Residuals:
    """How far a fit is from what was measured, as shares of that."""

    count: int
    median: float
    """Of the absolute errors."""
    largest: float


@dataclass(frozen=True)
class CostFit:
    """Prices of a machine."""

    machine: str
    """Processor, as the system names it."""
    date: str
    kernels: str
    """Set of the C core's kernels that ran."""
    cache_bytes: tuple[int, int]
    """Second-level cache of a core, and the last one: weights beyond them come from further away in every step."""
    versions: Mapping[str, str] = field(default_factory=dict)
    latency: Mapping[str, float] = field(default_factory=dict)
    """Term of :func:`latency_terms` -> seconds."""
    memory: Mapping[str, float] = field(default_factory=dict)
    """Term of :func:`memory_terms` -> bytes; empty where the system does not tell."""
    latency_residuals: Residuals | None = None
    memory_residuals: Residuals | None = None
    format: int = FORMAT

    def seconds(
        self, shape: StudentShape, vocabulary: int, shortlist: ShortlistSettings | None, load: Load | None = None
    ) -> Any:
        """Time of one sentence; an array where the numbers of layers are."""
        terms = latency_terms(shape, vocabulary, shortlist, load or Load(), self.cache_bytes)
        return sum(price * terms[name] for name, price in self.latency.items())

    def bytes(
        self,
        shape: StudentShape,
        vocabulary: int,
        shortlist: ShortlistSettings | None,
        native_bytes: int,
        load: Load | None = None,
    ) -> Any:
        """Memory added to a process; an array where the numbers of layers are. PlanError if it was not measured."""
        if not self.memory:
            raise PlanError(
                f"the fit of {self.machine} has no memory in it; measure on Linux, or plan without --memory"
            )
        terms = memory_terms(shape, vocabulary, shortlist, load or Load(), native_bytes)
        return sum(price * terms[name] for name, price in self.memory.items())

    def save(self, path: Path) -> None:
        """Write it as JSON, atomically. PlanError if the disk refuses."""
        try:
            write_json(path, asdict(self))
        except OSError as error:
            raise PlanError(f"{path} cannot be written: {error.strerror or error}") from None


def shipped_fits() -> tuple[str, ...]:
    """Names of the fits that come with the package."""
    return tuple(sorted(path.stem.removeprefix("fit-") for path in _SHIPPED.glob("fit-*.json")))


def load_fit(name: str | Path = DEFAULT_FIT) -> CostFit:
    """A fit by the name of one that comes with the package, or by its file.

    Raises PlanError: there is none, or it is no fit.
    """
    path = _SHIPPED / f"fit-{name}.json" if str(name) in shipped_fits() else Path(name)
    try:
        raw: Any = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        known = ", ".join(shipped_fits())
        raise PlanError(f"{path}: no such fit; give the JSON of mobilenmt plan --measure, or one of {known}") from None
    except (OSError, ValueError) as error:
        raise PlanError(f"{path} cannot be read as a fit: {getattr(error, 'strerror', None) or error}") from None
    fit = from_mapping(CostFit, raw, f"{path.name}:")
    if fit.format != FORMAT:
        raise PlanError(f"{path}: a fit of format {fit.format}, this version reads {FORMAT}: measure again")
    no_load = Load()
    for values, known_terms in (
        (fit.latency, latency_terms(StudentShape(), 1000, None, no_load, (0, 0))),
        (fit.memory, memory_terms(StudentShape(), 1000, None, no_load, 0)),
    ):
        for term, price in values.items():
            if term not in known_terms:
                raise PlanError(f"{path}: {term!r} is nothing that this version counts: measure again")
            if not (price >= 0 and math.isfinite(price)):
                raise PlanError(f"{path}: the price of {term!r} is {price}; prices are 0 or more")
    if not fit.latency:
        raise PlanError(f"{path}: no price of any time: measure again")
    return fit


def non_negative_least_squares(matrix: Any, target: Any, *, tolerance: float = 1e-10) -> Any:
    """The x >= 0 with the least |matrix x - target|: Lawson and Hanson, Solving Least Squares Problems (1974), ch. 23.

    Args:
        matrix: [rows, columns].
        target: [rows].
        tolerance: of the gradient, for columns of length 1.
    """
    lengths = np.linalg.norm(matrix, axis=0)
    scaled = matrix / np.where(lengths > 0, lengths, 1.0)
    columns = scaled.shape[1]
    x, passive = np.zeros(columns), np.zeros(columns, bool)
    for _ in range(30 * columns):
        gradient = scaled.T @ (target - scaled @ x)
        gradient[passive] = -np.inf
        best = int(np.argmax(gradient))
        if gradient[best] <= tolerance * np.linalg.norm(target):
            break
        passive[best] = True
        while True:
            trial = np.zeros(columns)
            trial[passive] = np.linalg.lstsq(scaled[:, passive], target, rcond=None)[0]
            if (trial[passive] > 0).all():
                break
            falling = passive & (trial <= 0)
            x += min(x[falling] / (x[falling] - trial[falling])) * (trial - x)
            passive &= x > 1e-14
            x[~passive] = 0.0
        x = trial
    return x / np.where(lengths > 0, lengths, 1.0)
