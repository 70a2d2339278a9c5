"""A statistical word aligner: IBM model 2 with few parameters, as fast_align has it, in numpy.

Dyer, Chahuneau and Smith, "A Simple, Fast, and Effective Reparameterization of IBM Model 2" (NAACL 2013): a target word
is from a source word near the diagonal, or from none; translation probabilities have a sparse Dirichlet prior and are
estimated by variational Bayes. Both directions are put together by grow-diag-final-and (Koehn et al. 2005).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.generic]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Pair = tuple[Sequence[int], Sequence[int]]
Links = frozenset[tuple[int, int]]
"""Places of a source and a target word that belong together."""

_FROM_NONE = 0.08  # probability that a token is from none
_TENSION = 4.0  # how near the diagonal
_SPARSE = 0.01  # of the Dirichlet prior
_ITERATIONS = 6
_NEIGHBOURS = ((-1, 0), (0, -1), (1, 0), (0, 1), (-1, -1), (-1, 1), (1, -1), (1, 1))


def align(pairs: Sequence[Pair], iterations: int = _ITERATIONS) -> list[Links]:
    """Links of each pair of numbered words, learned from all of them: some thousands are needed."""
    forward = _directed(pairs, iterations)
    backward = _directed([(target, source) for source, target in pairs], iterations)
    return [
        symmetrize(
            {(int(i), j) for j, i in enumerate(one) if i >= 0},
            {(j, int(i)) for j, i in enumerate(other) if i >= 0},
            len(source),
            len(target),
        )
        for (source, target), one, other in zip(pairs, forward, backward, strict=True)
    ]


def _directed(pairs: Sequence[Pair], iterations: int) -> list[Ints]:
    """For each target token the place of its source token, -1 for none."""
    if not pairs:
        return []
    words = 1 + max((token for source, _ in pairs for token in source), default=0)
    targets = 1 + max((token for _, target in pairs for token in target), default=0)
    shapes = [(len(source), len(target)) for source, target in pairs]
    # One cell for each target token and each source token that it may be from; the first cell stands for none.
    given = [np.tile(np.array([words, *source], np.int64), len(target)) for source, target in pairs]
    made = [np.repeat(np.array(target, np.int64), len(source) + 1) for source, target in pairs]
    key, which = np.unique(np.concatenate(given) * targets + np.concatenate(made), return_inverse=True)
    source_of = key // targets
    prior = np.concatenate([_prior(*shape) for shape in shapes])
    sizes = np.concatenate([np.full(target, source + 1) for source, target in shapes]).astype(np.int64)
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)
    rows = np.repeat(np.arange(len(sizes)), sizes)
    table = np.ones(len(key))
    chance = prior * table[which]
    for _ in range(iterations):
        share = chance / np.add.reduceat(chance, starts)[rows]
        counts = np.bincount(which, share, len(key)) + _SPARSE
        totals = np.maximum(np.bincount(source_of, counts, words + 1), _SPARSE)  # of what is no source token, too
        table = np.exp(_digamma(counts) - _digamma(totals)[source_of])
        chance = prior * table[which]
    # The best cell of each row: within a row cells are in order, so the place is that in the row, minus one.
    best = np.maximum.reduceat(chance, starts)
    first = np.flatnonzero(chance == best[rows])
    places = np.full(len(sizes), -1, np.int64)
    places[rows[first[::-1]]] = (first - starts[rows[first]])[::-1] - 1
    ends = np.cumsum([target for _, target in shapes])
    return np.split(places, ends[:-1])


def _prior(source: int, target: int) -> Floats:
    """Of each cell of a pair, [target * (source + 1)]."""
    if not source or not target:
        return np.full(target * (source + 1), 1.0)
    i, j = (np.arange(source) + 1) / source, (np.arange(target) + 1) / target
    near = np.exp(-_TENSION * np.abs(i[None, :] - j[:, None]))
    near *= (1 - _FROM_NONE) / near.sum(axis=1, keepdims=True)
    cells: Floats = np.concatenate([np.full((target, 1), _FROM_NONE), near], axis=1).ravel()
    return cells


def _digamma(x: Floats) -> Floats:
    """By the asymptotic series of x + 6 (Abramowitz and Stegun 6.3.5 and 6.3.18)."""
    found = np.zeros_like(x)
    for _ in range(6):
        found -= 1 / x
        x = x + 1
    inverse = 1 / (x * x)
    found += np.log(x) - 0.5 / x - inverse * (1 / 12 - inverse * (1 / 120 - inverse / 252))
    return found


def symmetrize(forward: set[tuple[int, int]], backward: set[tuple[int, int]], source: int, target: int) -> Links:
    """Grow-diag-final-and: begin with what both say, add neighbours that one says, then what links two free tokens."""
    union = forward | backward
    links = forward & backward
    sources, targets = {i for i, _ in links}, {j for _, j in links}

    def add(i: int, j: int) -> None:
        links.add((i, j))
        sources.add(i)
        targets.add(j)

    grown = True
    while grown:
        grown = False
        for i, j in sorted(links):
            for a, b in _NEIGHBOURS:
                near = (i + a, j + b)
                if near in union and near not in links and (near[0] not in sources or near[1] not in targets):
                    add(*near)
                    grown = True
    for some in (forward, backward):
        for i, j in sorted(some):
            if i not in sources and j not in targets:
                add(i, j)
    return frozenset(link for link in links if link[0] < source and link[1] < target)


def error_rate(found: Sequence[Links], wanted: Sequence[Links]) -> float:
    """Alignment error rate (Och and Ney 2003), all wanted links being sure: 1 minus their F1 over all sentences."""
    both = sum(len(one & other) for one, other in zip(found, wanted, strict=True))
    total = sum(len(one) + len(other) for one, other in zip(found, wanted, strict=True))
    return 1 - 2 * both / total if total else 0.0
