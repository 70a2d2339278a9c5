"""Batches: every sentence once, within the budget, the same again from the same seed."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from mobilenmt.compression.core.errors import TrainingError
from mobilenmt.compression.dataset.batches import EpochPlan, derive_seed, make_batch, plan_epoch, prefetch, share
from training_data import MemoryDataset

PAD = 50


def lengths(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    target = generator.integers(2, 60, count).astype(np.int32)
    return np.maximum(2, target + generator.integers(-5, 6, count)).astype(np.int32), target


def plan(count: int = 3000, **changes: Any) -> EpochPlan:
    source, target = lengths(count)
    options: dict[str, Any] = {
        "batch_tokens": 2000,
        "accumulation": 4,
        "max_tokens": 50,
        "seed": 1,
        "epoch": 0,
        **changes,
    }
    return plan_epoch(source, target, **options)


def test_every_sentence_that_is_short_enough_comes_once() -> None:
    source, target = lengths(3000)
    found = plan()
    taken = np.concatenate([piece for update in range(found.updates) for piece in found.pieces(update)])
    assert sorted(taken) == np.flatnonzero((source <= 50) & (target <= 50)).tolist()
    assert all(len(found.pieces(update)) == 4 for update in range(found.updates - 1))
    assert 1 <= len(found.pieces(found.updates - 1)) <= 4


def test_pieces_keep_within_the_budget_and_hold_hardly_any_padding() -> None:
    source, target = lengths(3000)
    found = plan()
    pieces = [found.order[first:last] for first, last in found.bounds]
    tokens = np.array([target[piece].sum() for piece in pieces])
    padded = np.array([len(piece) * target[piece].max() for piece in pieces])
    padded_source = np.array([len(piece) * source[piece].max() for piece in pieces])
    assert tokens.max() <= 500
    assert padded_source.max() <= 1000
    assert tokens.sum() / padded.sum() > 0.95
    assert source[np.concatenate(pieces)].sum() / padded_source.sum() > 0.85
    assert np.median(tokens) > 450


def test_a_long_source_in_a_batch_of_short_targets_is_bounded() -> None:
    source = np.array([5] * 200 + [400] * 200, np.int32)
    target = np.full(400, 5, np.int32)
    found = plan_epoch(source, target, batch_tokens=1000, accumulation=1, max_tokens=400, seed=1, epoch=0)
    pieces = [source[found.order[first:last]] for first, last in found.bounds]
    assert sorted(map(len, pieces)) == [5] * 40 + [200]  # 5 * 400 padded tokens, and 200 * 5 target tokens
    assert max(len(piece) * piece.max() for piece in pieces) == 2000


def test_plan_follows_from_seed_and_epoch() -> None:
    first, again, other_epoch, other_seed = plan(), plan(), plan(epoch=1), plan(seed=2)
    assert np.array_equal(first.order, again.order)
    assert np.array_equal(first.bounds, again.bounds)
    for other in (other_epoch, other_seed):
        assert not np.array_equal(first.order, other.order)
        assert not np.array_equal(first.bounds, other.bounds)


def test_nothing_short_enough_is_an_error() -> None:
    with pytest.raises(TrainingError, match=r"none of the 100 pairs has at most 1 tokens.*raise max_tokens"):
        plan(100, max_tokens=1)


def test_a_sentence_above_the_budget_of_a_piece_comes_alone() -> None:
    length = np.array([40, 40, 40], np.int32)
    found = plan_epoch(length, length, batch_tokens=40, accumulation=4, max_tokens=50, seed=1, epoch=0)
    assert sorted((last - first) for first, last in found.bounds) == [1, 1, 1]


@pytest.mark.parametrize(("accumulation", "world"), [(4, 2), (4, 4), (2, 4), (3, 2), (1, 3)])
def test_processes_share_an_update_without_loss(accumulation: int, world: int) -> None:
    found = plan(200, accumulation=accumulation)
    assert found.updates >= 3
    for update in range(found.updates):
        pieces = found.pieces(update)
        shares = [share(pieces, accumulation, rank, world) for rank in range(world)]
        assert len({len(part) for part in shares}) == 1
        taken = np.concatenate([part.indices for mine in shares for part in mine if part.counts])
        assert sorted(taken) == sorted(np.concatenate(pieces))
        assert all(len(part.indices) for mine in shares for part in mine)


def test_batch_shifts_the_target_and_finds_its_labels() -> None:
    dataset = MemoryDataset([[7, 8, 0], [9, 0]], [[4, 0], [5, 6, 0]])
    batch = make_batch(dataset, np.array([0, 1]), PAD, None)
    assert batch.source.tolist() == [[7, 8, 0], [9, 0, PAD]]
    assert batch.source_mask is not None
    assert batch.source_mask.tolist() == [[True, True, True], [True, True, False]]
    assert batch.decoder_input.tolist() == [[PAD, 4, 0], [PAD, 5, 6]]
    assert batch.positions is not None
    assert batch.positions.tolist() == [0, 1, 3, 4, 5]
    assert batch.labels.tolist() == [4, 0, 5, 6, 0]
    assert batch.tokens == 5


def test_batch_without_padding_needs_no_mask() -> None:
    batch = make_batch(MemoryDataset([[7, 0], [9, 0]], [[4, 0], [5, 0]]), np.array([1, 0]), PAD, None)
    assert batch.source_mask is None
    assert batch.positions is None
    assert batch.labels.tolist() == [5, 0, 4, 0]


def test_prefetch_keeps_the_order_and_passes_errors_on() -> None:
    def items() -> Iterator[int]:
        yield from range(50)
        raise ValueError("broken")

    found = []
    with pytest.raises(ValueError, match="broken"):
        for item in prefetch(items(), 3):
            found.append(item)
    assert found == list(range(50))
    assert list(prefetch(iter("abc"), 2)) == ["a", "b", "c"]


def test_prefetch_stops_its_thread_when_it_is_closed() -> None:
    before = threading.active_count()
    stream = prefetch(iter(range(10**9)), 2)
    assert next(stream) == 0
    stream.close()
    time.sleep(0.01)
    assert threading.active_count() == before


def test_seeds_differ_by_name() -> None:
    seeds = {derive_seed(1, "dropout", 3, 4), derive_seed(1, "dropout", 34), derive_seed(2, "dropout", 3, 4)}
    assert len(seeds) == 3
    assert derive_seed(1, "dropout", 3, 4) == 6586659593007535904  # another one would change every run that goes on
    assert all(0 <= seed < 2**63 for seed in seeds)
