"""Batches by tokens: which sentences go together in which update, and the arrays of them, ahead of time if wanted.

The order follows from the seed and the epoch alone, so a run that goes on in the middle of an epoch meets the batches
that it would have met. Sentences of one length go together (little padding), and pieces of different lengths make one
update (less bias than an update of one length).
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from mobilenmt.compression.core.errors import TrainingError

Array = npt.NDArray[Any]
T = TypeVar("T")

_PADDED = 2
"""A piece may take this many times its tokens with padding, on either side; beyond it is cut."""


class Pairs(Protocol):
    """What is needed of a ``PackedDataset``."""

    @property
    def source_lengths(self) -> Array:
        """Tokens of each source sentence, ``</s>`` included."""

    @property
    def target_lengths(self) -> Array:
        """Tokens of each target sentence, ``</s>`` included."""

    def __len__(self) -> int: ...

    def gather(self, indices: Array, pad: int) -> tuple[Array, Array]:
        """Padded int64 arrays [B, S] and [B, T] of some sentences."""


def derive_seed(seed: int, *names: object) -> int:
    """A 63-bit seed for one thing, from the recipe's seed and the thing's names."""
    text = "\0".join(map(str, (seed, *names)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


@dataclass(frozen=True)
class EpochPlan:
    """The pieces of one pass over the text, in order. An update is ``accumulation`` pieces that follow one another."""

    order: Array
    """int64 indices of sentences; a piece is a slice of it."""
    bounds: Array
    """int64 [pieces, 2], start and end of each piece in ``order``, shuffled."""
    accumulation: int
    """Pieces of an update; the last one of an epoch may have fewer."""

    @property
    def updates(self) -> int:
        """Updates in this epoch."""
        return -(-len(self.bounds) // self.accumulation)

    def pieces(self, update: int) -> list[Array]:
        """Indices of the sentences of each piece of an update."""
        start = update * self.accumulation
        return [self.order[first:last] for first, last in self.bounds[start : start + self.accumulation]]


def plan_epoch(
    source_lengths: Array,
    target_lengths: Array,
    *,
    batch_tokens: int,
    accumulation: int,
    max_tokens: int,
    seed: int,
    epoch: int,
) -> EpochPlan:
    """Divide an epoch into pieces of at most batch_tokens / accumulation target tokens (at least one sentence each).

    Raises TrainingError if no sentence is short enough.
    """
    kept = np.flatnonzero((source_lengths <= max_tokens) & (target_lengths <= max_tokens))
    if not len(kept):
        raise TrainingError(
            f"none of the {len(source_lengths):,} pairs has at most {max_tokens} tokens on both sides; raise max_tokens"
        )
    random = np.random.default_rng(derive_seed(seed, "batches", epoch))
    # Sorted by target length, then source length, then chance: hardly any padding, another company in each epoch.
    key = target_lengths[kept].astype(np.uint64) << np.uint64(48)
    key |= source_lengths[kept].astype(np.uint64) << np.uint64(32)
    key |= random.integers(0, 2**32, len(kept), dtype=np.uint64)
    order = kept[np.argsort(key)].astype(np.int64)
    bounds = np.array(_cut(source_lengths[order], target_lengths[order], batch_tokens // accumulation), np.int64)
    random.shuffle(bounds, axis=0)
    return EpochPlan(order, bounds, accumulation)


def _cut(source: Array, target: Array, budget: int) -> list[tuple[int, int]]:
    """Slices of sorted sentences: at most ``budget`` target tokens, and _PADDED * budget padded ones a side."""
    total = np.concatenate(([0], np.cumsum(target, dtype=np.int64)))
    bounds = []
    start, end = 0, len(target)
    while start < end:
        stop = max(int(np.searchsorted(total, total[start] + budget, side="right")) - 1, start + 1)
        longest = np.maximum.accumulate(np.maximum(source[start:stop], target[start:stop]).astype(np.int64))
        fits = int(np.searchsorted(longest * np.arange(1, stop - start + 1), _PADDED * budget, side="right"))
        stop = start + max(fits, 1)
        bounds.append((start, stop))
        start = stop
    return bounds


def by_length(lengths: Array, tokens: int, sentences: int = 1 << 20) -> Iterator[Array]:
    """Indices of sentences, those of similar length together: at most ``tokens`` a batch, padding counted."""
    order = np.argsort(lengths, kind="stable")
    longest = lengths[order].astype(np.int64)
    start = 0
    while start < len(order):
        fits = longest[start : start + sentences] * np.arange(1, min(sentences, len(order) - start) + 1)
        stop = start + max(1, int(np.searchsorted(fits, tokens, side="right")))
        yield order[start:stop]
        start = stop


@dataclass(frozen=True)
class Batch:
    """One piece, ready for the model; int64 arrays."""

    source: Array
    """[B, S], padded."""
    source_mask: Array | None
    """bool [B, S], False at padding; None without padding."""
    decoder_input: Array
    """[B, T]: ``<pad>``, then the target without its last token."""
    positions: Array | None
    """[N]: where ``labels`` lie in the flattened [B * T]; None if every position has one."""
    labels: Array
    """[N]: the target tokens, padding left out."""
    soft_ids: Array | None = None
    """[N, K]: pieces of the teacher's distribution."""
    soft_logprobs: Array | None = None
    """float32 [N, K]: their log-probabilities."""

    @property
    def tokens(self) -> int:
        """Target tokens, ``</s>`` included."""
        return len(self.labels)


def make_batch(dataset: Pairs, indices: Array, pad: int, soft: Callable[[Array], tuple[Array, Array]] | None) -> Batch:
    """Read some sentences. ``soft`` gives the teacher's stored distributions of them, token after token."""
    source, target = dataset.gather(indices, pad)
    mask = source != pad
    decoder_input = np.empty_like(target)
    decoder_input[:, 0] = pad
    decoder_input[:, 1:] = target[:, :-1]
    flat = target.reshape(-1)
    positions = np.flatnonzero(flat != pad)
    full = len(positions) == len(flat)
    soft_ids, soft_logprobs = (None, None) if soft is None else soft(indices)
    return Batch(
        source,
        None if mask.all() else mask,
        decoder_input,
        None if full else positions,
        flat if full else flat[positions],
        soft_ids,
        soft_logprobs,
    )


@dataclass(frozen=True)
class Share:
    """What one process does of a piece."""

    number: int
    """Which piece of the update; dropout is drawn by it."""
    indices: Array
    """Its sentences."""
    counts: bool = True
    """False: nothing is left for this process, and it takes part in the exchange of gradients with a zero."""


def share(pieces: list[Array], accumulation: int, rank: int, world: int) -> list[Share]:
    """The part of an update that process ``rank`` of ``world`` does.

    If the processes divide the pieces of an update, each takes whole pieces: then dropout, drawn by piece, is the
    same for any number of processes. Otherwise each takes its share of the sentences of every piece. Every process
    gets equally many entries, because the exchange of gradients is a collective operation.
    """
    idle = Share(0, pieces[0][:1], counts=False)
    if accumulation % world == 0:
        mine = [Share(number, pieces[number]) for number in range(rank, len(pieces), world)]
        return mine + [idle] * (-(-len(pieces) // world) - len(mine))
    shares = [piece[rank::world] for piece in pieces]
    return [Share(number, rows) if len(rows) else idle for number, rows in enumerate(shares)]


def prefetch(items: Iterator[T], depth: int) -> Generator[T, None, None]:
    """Iterate in a thread of its own, ``depth`` items ahead, so that a GPU need not wait; errors come through."""
    end = object()
    with ThreadPoolExecutor(1, "batches") as pool:
        waiting = deque(pool.submit(next, items, end) for _ in range(depth))
        try:
            while (item := waiting.popleft().result()) is not end:
                waiting.append(pool.submit(next, items, end))
                yield item  # type: ignore[misc]
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
