"""The C core's search for outputs that hold phrases is that of the reference, which goes by the definition."""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np
import pytest

from constrained_reference import held, places, search
from native import NativeError
from native_core import ARGUMENT, Core
from native_files import NONE, UINT16, Made
from native_reference import Reference

SOURCES = ([3, 4, 5, 6, 7, 0], [5, 0])


def test_what_a_path_holds_counts_once() -> None:
    """The reference itself, on cases worked out by hand."""
    phrases = [(1, 1, 2), (1, 3), (3,)]
    assert held((1, 1, 1, 2), phrases) == ([1, 2], (), True)
    assert held((1, 1, 3), phrases) == ([0, 2], (), True)
    assert held((3, 1, 1), phrases) == ([0, 1], (1, 1), False)
    assert held((4, 1, 4), phrases) == ([0, 1, 2], (), False)
    assert held((3, 3, 1, 3), [(3,), (3,), (1, 3, 3)]) == ([2], (1, 3), False)
    assert places([9, 9, 9], 4) == [1, 1, 2]
    assert places([9, 1, 0], 4) == [3, 1, 0]
    assert places([1, 1, 9], 8) == [1, 1, 6]
    assert places([2, 3, 4, 9, 0], 4) == [0, 0, 0, 4, 0]


def drawn(random: Random, seed: int) -> list[tuple[int, ...]]:
    """Phrases of one to three tokens that share their beginnings, overlap and repeat."""
    tokens = random.sample(range(2, 14), 3)
    return [tuple(random.choices(tokens, k=random.randint(1, 3))) for _ in range(1 + seed % 4)]


@pytest.mark.parametrize("seed", range(24))
def test_phrases_are_held_as_the_reference_holds_them(core: Core, seed: int) -> None:
    random = Random(seed)
    forced, limit = (NONE, 0)[seed % 2], (8, 12, 16)[seed % 3]
    penalty, bad = (1.0, 0.6, 0.0)[seed % 3], (1,)
    files = Made(
        seed=seed, spread=0.03, output_bias=True, source=12, target=16, bad=bad, forced_eos=forced,
        lexical=UINT16 if seed % 4 == 1 else 0,
    ).files()  # fmt: skip
    model, reference = core.open_memory(*files), Reference(*files)
    continuing = sorted(random.sample(range(2, 16), 4)) if seed % 2 else []
    mask = bytes(token in continuing for token in range(reference.vocabulary))
    for ids in SOURCES:
        phrases = drawn(random, seed)
        reference.encode(ids)
        reference.candidates = np.union1d(reference.candidates, [token for phrase in phrases for token in phrase])

        def scores(path: tuple[int, ...]) -> Any:
            row = reference.log_probabilities(path)
            row[list(bad)] = -np.inf
            return row

        for beams, wanted in ((2, 1), (4, 2), (7, 3)):
            expected = search(
                scores, phrases, start=reference.start, eos=0, limit=limit - 1, beams=beams, wanted=wanted,
                penalty=penalty, continuing=continuing, forced=forced != NONE,
            )  # fmt: skip
            found = model.translate(
                [ids], max_length=limit, beam_size=beams, n_best=wanted, length_penalty=penalty, phrases=[phrases],
                continuing=mask, alignment=1,
            )  # fmt: skip
            for (path, score), output in zip(expected, found, strict=False):
                assert (*output.ids, *(0,) * (output.generated - len(output.ids))) == path
                assert output.score == pytest.approx(score, rel=1e-5)
                assert output.score == pytest.approx(output.token_scores.sum() / output.generated**penalty, rel=1e-4)
