"""Beam search with dynamic beam allocation by its definition: what a path holds is read off the path each time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

Path = tuple[int, ...]
Scores = Callable[[Path], npt.NDArray[np.float32]]
"""Log-probabilities of all tokens behind a path, -inf for what may not come next."""


def held(path: Path, phrases: Sequence[Path]) -> tuple[list[int], Path, bool]:
    """The phrases that stand in a path, the tokens at its end that begin another, whether its end ends a phrase.

    From left to right: a phrase counts where it is complete first, and what belongs to it is used up.
    """
    open_ = list(range(len(phrases)))
    begun: Path = ()
    whole = False
    for token in path:
        longest = (*begun, token)
        ends = [longest[i:] for i in range(len(longest))]
        begun, whole = (), False
        for end in ends:
            complete = [i for i in open_ if phrases[i] == end]
            if complete:
                open_.remove(complete[0])
                whole = True
                break
            if any(phrases[i][: len(end)] == end for i in open_):
                begun = end
                break
    return open_, begun, whole


def places(counts: list[int], beams: int) -> list[int]:
    """Places in the beam for each bank: an equal share; what is left over falls from bank to bank, twice around."""
    wanted = [beams // len(counts)] * len(counts)
    extra = beams - sum(wanted)
    given = [0] * len(counts)
    for _ in range(2):
        for bank in reversed(range(len(counts))):
            extra += wanted[bank]
            wanted[bank] = 0
            given[bank], extra = (both := min(counts[bank], given[bank] + extra)), given[bank] + extra - both
    return given


def search(
    scores: Scores, phrases: Sequence[Path], *, start: int, eos: int, limit: int, beams: int, wanted: int,
    penalty: float, continuing: Sequence[int] = (), forced: bool = False,
) -> list[tuple[Path, float]]:  # fmt: skip
    """The best that hold all phrases, end token included where there is one; or those that hold the most of them.

    Args:
        scores: the model.
        phrases: what has to be held.
        start, eos: ids.
        limit: tokens at most, without the start token.
        beams: hypotheses kept.
        wanted: hypotheses looked for.
        penalty: exponent of the length.
        continuing: ids that may not follow a phrase.
        forced: whether the last token at the limit is the end token.
    """
    total = sum(map(len, phrases))

    def bank(path: Path) -> int:
        open_, begun, _ = held(path, phrases)
        return total - sum(len(phrases[i]) for i in open_) + len(begun)

    beam: list[tuple[Path, float]] = [((), 0.0)]
    done: list[tuple[Path, float]] = []
    for made in range(1, limit + (0 if forced else 1)):
        pool: dict[Path, float] = {}
        everything: list[tuple[float, Path]] = []
        for path, score in beam:
            row = scores((start, *path)).copy()
            open_, begun, whole = held(path, phrases)
            if open_:
                row[eos] = -np.inf
            if whole:
                row[list(continuing)] = -np.inf
            row = (row + np.float32(score)).astype(np.float32)
            everything += [(float(value), (*path, token)) for token, value in enumerate(row) if value > -np.inf]
            leading = {phrases[i][len(begun)] for i in open_ if phrases[i][: len(begun)] == begun}
            for token in {int(row.argmax()), *leading}:
                if row[token] > -np.inf:
                    pool[(*path, token)] = float(row[token])
        order = {path: number for number, (path, _) in enumerate(beam)}

        def place(item: tuple[Path, float], order: dict[Path, int] = order) -> tuple[float, int, int]:
            return -item[1], order[item[0][:-1]], item[0][-1]

        everything.sort(key=lambda item: place((item[1], item[0])))
        pool.update({path: value for value, path in everything[: 2 * beams]})
        ranked = sorted(pool.items(), key=place)
        counts = [sum(path[-1] != eos and bank(path) == b for path, _ in ranked) for b in range(total + 1)]
        room = places(counts, beams)
        complete = [(path, score) for path, score in ranked if bank(tuple(t for t in path if t != eos)) == total]
        ending = [item for item in complete[: room[total] or 1] if item[0][-1] == eos]
        beam = []
        for path, score in ranked:
            if path[-1] != eos and room[bank(path)]:
                room[bank(path)] -= 1
                beam.append((path, score))
        done += [(path, score / made**penalty) for path, score in ending]
        if made == limit:
            done += [(path, score / made**penalty) for path, score in beam if bank(path) == total]
        best = sorted((score for _, score in done), reverse=True)
        best_running = beam[0][1] / made**penalty if beam else -np.inf
        if not beam or (len(best) >= wanted and best_running <= best[wanted - 1]):
            break
    if forced and beam and made == limit - 1 and (len(best) < wanted or best_running > best[wanted - 1]):
        done += [((*path, eos), score / limit**penalty) for path, score in beam if bank(path) == total]
    if not done:
        most = max(bank(path) for path, _ in beam)
        ends = (eos,) if forced and made == limit - 1 else ()
        kept = [(path, score) for path, score in beam if bank(path) == most]
        done = [((*path, *ends), score / len((*path, *ends)) ** penalty) for path, score in kept]
    return sorted(done, key=lambda item: -item[1])[:wanted]
