"""The search: every shape of a space whose pack, latency and memory keep within a budget, and the best of them.

Exhaustive. Bytes, time and logarithms of quality are sums over parts of a model, so all depths of one width are worked
out at once, and a width whose shallowest model is too large ends its branch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from types import SimpleNamespace
from typing import Any, cast

import numpy as np

from mobilenmt.compression.core.errors import PlanError
from mobilenmt.compression.pack.estimate import native_bytes, pack_parts
from mobilenmt.compression.plan.cost import CostFit, Load
from mobilenmt.compression.plan.quality import Prediction, Quality
from mobilenmt.compression.plan.space import Space, with_layers
from mobilenmt.compression.plan.units import show_seconds
from mobilenmt.compression.train.size import count_parameters
from mobilenmt.compression.train.student import StudentShape

ALIKE = 0.003
"""Predicted BLEU that far apart, as a share, counts as equal: then the faster one is chosen."""
_BINS = 24
_COLUMNS = ("quality", "bytes", "seconds", "memory", "slice", "vocabulary", "encoder", "decoder")


@dataclass(frozen=True)
class Budget:
    """What a model may take."""

    bytes: int
    """All files of the pack."""
    seconds: float | None = None
    """One sentence of the load, one thread."""
    memory: int | None = None
    """Bytes added to a process while it translates."""

    def __post_init__(self) -> None:
        for name in ("bytes", "seconds", "memory"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise PlanError(f"{name}: expected more than 0, found {value}")


@dataclass(frozen=True)
class Candidate:
    """A shape within the budget, and what it is expected to take."""

    shape: StudentShape
    vocabulary: int
    """Pieces."""
    shortlist: bool
    bytes: int
    seconds: float
    memory: int | None
    """None where the machine's fit does not tell."""
    parameters: int
    quality: Prediction

    def to_dict(self) -> dict[str, Any]:
        """As JSON's own types."""
        return asdict(self)

    def block(self) -> str:
        """The sections of a recipe that make it."""
        lines = [f"{key} = {value!r}".replace("'", '"') for key, value in asdict(self.shape).items()]
        return "\n".join(("[vocabulary]", f"size = {self.vocabulary}", "", "[student]", *lines))


def search(
    budget: Budget, space: Space, fit: CostFit, quality: Quality, load: Load | None = None
) -> tuple[Candidate, ...]:
    """Candidates within a budget, the recommended one first, then those that nothing else beats in everything.

    Quality counts by the lower end of its interval, so that among shapes of equal promise one that is like those that
    were trained goes first. The recommended one is the fastest of those within :data:`ALIKE` of the best; of parts of a
    model, the one that takes least from it. The others are a front of Pareto, thinned: of models about as large and as
    fast as each other the best one.

    Args:
        budget: what it may take.
        space: what may be chosen.
        fit: prices of the machine.
        quality: predicts BLEU.
        load: the sentence that latency and memory are of.

    Raises:
        PlanError: nothing fits; it says what the smallest (fastest, leanest) takes.
    """
    load = load or Load()
    slices = list(space.slices())
    longest = slices[0].max_position_embeddings
    if max(load.source_tokens, load.target_tokens) > longest:
        raise PlanError(f"a sentence of so many tokens is longer than the model's positions, {longest}")
    encoder, decoder = np.array(space.layers("encoder"))[:, None], np.array(space.layers("decoder"))[None, :]
    least: dict[str, tuple[float, StudentShape, int]] = {}
    found: list[Any] = []
    for vocabulary in space.vocabularies:
        shortlist = space.shortlist_for(vocabulary)
        files, table = space.tokenizers.get(vocabulary, (None, None))
        for place, shape in enumerate(slices):
            parts = pack_parts(
                shape,
                vocabulary,
                space.precision,
                shortlist=shortlist,
                tokenizer_bytes=files,
                table_bytes=table,
                quantization=space.quantization,
            )
            sizes = parts.fixed + parts.encoder * encoder + parts.decoder * decoder
            shallow = with_layers(shape, encoder[0, 0], decoder[0, 0])
            _note(least, "bytes", float(sizes[0, 0]), shallow, vocabulary)
            if sizes[0, 0] > budget.bytes:
                continue
            # the same dimensions, all depths at once: the formulas take arrays for numbers of layers
            many = cast(
                StudentShape,
                SimpleNamespace(**{**asdict(shape), "encoder_layers": encoder, "decoder_layers": decoder}),
            )
            seconds = fit.seconds(many, vocabulary, shortlist, load) + 0.0 * sizes
            native = native_bytes(many, vocabulary, table)
            memory = fit.bytes(many, vocabulary, shortlist, native, load) + 0.0 * sizes if fit.memory else 0.0 * sizes
            fits = sizes <= budget.bytes
            _note(least, "seconds", float(seconds[0, 0]), shallow, vocabulary)
            if budget.seconds is not None:
                fits &= seconds <= budget.seconds
            if budget.memory is not None:
                if not fit.memory:
                    fit.bytes(shape, vocabulary, shortlist, native, load)  # raises
                _note(least, "memory", float(memory[0, 0]), shallow, vocabulary)
                fits &= memory <= budget.memory
            if fits.any():
                rows, columns = np.nonzero(fits)
                count = np.ones(len(rows))
                depths = encoder[rows, 0], decoder[0, columns]
                expected = quality.low(shape, vocabulary, *depths)
                places = (place * count, vocabulary * count)
                found.append(np.stack([expected, sizes[fits], seconds[fits], memory[fits], *places, *depths]))
    if not found:
        raise PlanError(_impossible(budget, least))
    table_of_all = np.concatenate(found, axis=1)

    def candidate(column: int) -> Candidate:
        row = dict(zip(_COLUMNS, table_of_all[:, column], strict=True))
        vocabulary = int(row["vocabulary"])
        shape = with_layers(slices[int(row["slice"])], row["encoder"], row["decoder"])
        return Candidate(
            shape=shape,
            vocabulary=vocabulary,
            shortlist=space.shortlist_for(vocabulary) is not None,
            bytes=int(row["bytes"]),
            seconds=float(row["seconds"]),
            memory=int(row["memory"]) if fit.memory else None,
            parameters=count_parameters(shape, vocabulary),
            quality=quality.predict(shape, vocabulary),
        )

    if space.inside is None:
        best = _recommended(table_of_all, ALIKE)
    else:
        best = _nearest(table_of_all, slices, space.inside)
    return tuple(candidate(column) for column in (best, *(i for i in _front(table_of_all) if i != best)))


def _note(
    least: dict[str, tuple[float, StudentShape, int]], what: str, value: float, shape: StudentShape, vocabulary: int
) -> None:
    if what not in least or value < least[what][0]:
        least[what] = (value, shape, vocabulary)


def _impossible(budget: Budget, least: dict[str, tuple[float, StudentShape, int]]) -> str:
    size, shape, vocabulary = least["bytes"]
    if size > budget.bytes:
        return (
            f"{budget.bytes:,} bytes are too few: the smallest possible pack takes about {int(size):,} "
            f"({describe(shape, vocabulary)})"
        )
    told = []
    if budget.seconds is not None and least["seconds"][0] > budget.seconds:
        seconds, shape, vocabulary = least["seconds"]
        told.append(f"the fastest takes about {show_seconds(seconds)} ({describe(shape, vocabulary)})")
    if budget.memory is not None and least["memory"][0] > budget.memory:
        memory, shape, vocabulary = least["memory"]
        told.append(f"the leanest takes about {int(memory):,} bytes of memory ({describe(shape, vocabulary)})")
    reason = " and ".join(told) or "what keeps one part of the budget breaks another"
    return f"no shape within {budget.bytes:,} bytes keeps the rest of the budget: {reason}"


def describe(shape: StudentShape, vocabulary: int) -> str:
    """In a few words."""
    return (
        f"{shape.d_model} wide, FFN {shape.encoder_ffn_dim} and {shape.decoder_ffn_dim}, "
        f"{shape.encoder_layers}+{shape.decoder_layers} layers, {vocabulary:,} pieces"
    )


def _recommended(table: Any, alike_within: float) -> int:
    quality, seconds = table[0], table[2]
    alike = np.flatnonzero(quality >= quality.max() - alike_within)
    return int(alike[np.argmin(seconds[alike])])


def _nearest(table: Any, slices: Sequence[StudentShape], whole: StudentShape) -> int:
    """The column of the part of a model that is easiest on it; of those alike in that, the largest.

    What a proxy of trained shapes says is no guide here: what is pruned away is lost. In shares that go, width is
    missed most, then layers, and inner widths least (docs/compress/prune.md).
    """
    row = dict(zip(_COLUMNS, table, strict=True))
    place = row["slice"].astype(int)

    def gone(name: str) -> Any:
        return 1 - np.array([getattr(shape, name) for shape in slices])[place] / getattr(whole, name)

    layers = [1 - row[side] / getattr(whole, f"{side}_layers") for side in ("encoder", "decoder")]
    hardship = 8 * gone("d_model") ** 2 + 4 * layers[0] ** 2 + 4 * layers[1] ** 2
    hardship += gone("encoder_ffn_dim") ** 2 / 2 + gone("decoder_ffn_dim") ** 2 / 2
    return int(np.lexsort((-row["bytes"], np.round(hardship, 1)))[0])


def _front(table: Any) -> Sequence[int]:
    """Columns that no other beats in quality, bytes, time and memory at once, best first; the best of each bin of size
    and time."""
    quality, costs = table[0], table[1:4]
    bins = []
    for values in (costs[0], costs[1]):
        logs = np.log(values)
        span = max(float(np.ptp(logs)), 1e-9)
        bins.append(np.minimum(_BINS - 1, (logs - logs.min()) / span * _BINS).astype(int))
    key = bins[0] * _BINS + bins[1]
    order = np.lexsort((costs[1], -quality, key))
    first = order[np.flatnonzero(np.diff(key[order], prepend=-1))]

    def beaten(i: int) -> bool:
        there = (quality[first] >= quality[i]) & (costs[:, first] <= costs[:, [i]]).all(axis=0)
        better = (quality[first] > quality[i]) | (costs[:, first] < costs[:, [i]]).any(axis=0)
        return bool((there & better).any())

    kept = [int(i) for i in first if not beaten(i)]
    return sorted(kept, key=lambda i: -float(quality[i]))
