"""Beam search for outputs that have to hold phrases: what the C core does in ``search/constrained.c``, in the host.

Dynamic beam allocation (Post and Vilar 2018; Hu et al. 2019): the beam is divided among banks of hypotheses that hold
equally many tokens of phrases, so that those that pay for a phrase are not crowded out; only what holds all may end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mobilenmt.runtime.manifest import GenerationDefaults
from mobilenmt.runtime.onnx.rows import DEAD, Array, log_softmax, may_improve, top

if TYPE_CHECKING:
    from mobilenmt.runtime.onnx.rows import Rules, Sentence

Found = list[tuple[float, tuple[int, ...]]]
"""Scores and tokens."""


class Progress(NamedTuple):
    """How far a hypothesis is."""

    held: frozenset[int] = frozenset()
    """The numbers of the phrases it holds."""
    begun: tuple[int, ...] = ()
    """Its last tokens, where they are the first of a phrase that it does not hold."""
    ended: bool = False
    """Its last token ended a phrase."""


class Phrasing:
    """The phrases of a sentence.

    Args:
        phrases: their tokens.
        continuing: as in :class:`mobilenmt.runtime.hypothesis.Phrases`.
    """

    def __init__(self, phrases: Sequence[tuple[int, ...]], continuing: bytes) -> None:
        self.phrases = phrases
        self.tokens = sum(map(len, phrases))
        self.after = np.flatnonzero(np.frombuffer(continuing, np.uint8))

    def bank(self, progress: Progress) -> int:
        """Tokens of phrases that it holds, those of the one it is in counted."""
        return sum(len(self.phrases[index]) for index in progress.held) + len(progress.begun)

    def advance(self, before: Progress, token: int) -> Progress:
        """The progress behind one token more: as many of the last tokens count as are the first of a phrase."""
        for start in range(len(before.begun) + 1):
            last = (*before.begun[start:], token)
            open_ = [index for index, phrase in self._open(before) if phrase[: len(last)] == last]
            whole = next((index for index in open_ if len(self.phrases[index]) == len(last)), None)
            if whole is not None:
                return Progress(before.held | {whole}, (), True)
            if open_:
                return Progress(before.held, last)
        return Progress(before.held)

    def following(self, progress: Progress) -> list[int]:
        """The tokens that lead on in a phrase."""
        size = len(progress.begun)
        return list(
            dict.fromkeys(
                phrase[size]
                for _, phrase in self._open(progress)
                if len(phrase) > size and phrase[:size] == progress.begun
            )
        )

    def _open(self, progress: Progress) -> list[tuple[int, tuple[int, ...]]]:
        return [(index, phrase) for index, phrase in enumerate(self.phrases) if index not in progress.held]

    def forbid(self, scores: Array, progress: Progress, eos: int) -> None:
        """Set the scores [V] of what may not follow to -inf."""
        if self.bank(progress) < self.tokens:
            scores[eos] = -np.inf
        if progress.ended:
            scores[self.after] = -np.inf


def shares(there: Sequence[int], beams: int) -> list[int]:
    """Places of a beam for banks with so many continuations: equal, the rest to the highest.

    What a bank has no use for goes to the one below, from the lowest to the highest again.
    """
    banks = len(there)
    share = [beams // banks] * banks
    share[-1] += beams % banks
    for index in [*range(banks - 1, -1, -1)] * 2:
        spare = max(0, share[index] - there[index])
        share[index] -= spare
        share[index - 1] += spare
    return share


def search(
    sentence: Sentence,
    start: int,
    phrasing: Phrasing,
    rules: Rules,
    own: GenerationDefaults,
    *,
    beams: int,
    wanted: int,
    limit: int,
    penalty: float,
    check: Callable[[], None],
) -> Found:
    """What ended and holds all phrases; where nothing does, what holds the most tokens of them.

    Args:
        sentence: with as many rows as there are beams.
        start: the start token.
        phrasing: the phrases.
        rules: what may come next.
        own: how the pack generates.
        beams: hypotheses kept.
        wanted: hypotheses to find.
        limit: tokens to generate at most.
        penalty: exponent of the length.
        check: called for each token; may raise.
    """
    forced, eos, last = own.forced_eos_token_id, rules.eos, phrasing.tokens
    paths: list[tuple[int, ...]] = [(start,)] * beams
    progress = [Progress()] * beams
    running = np.full(beams, DEAD)
    running[0] = 0.0
    ended = np.full(wanted, DEAD)
    found: Found = []

    def improvable(made: int) -> bool:
        return may_improve(own, running[0], ended[-1], made, limit, penalty)

    made = 0
    while made < (limit if forced is None else limit - 1):
        check()
        logits = sentence.step([path[-1] for path in paths])
        made += 1
        if made <= len(rules.prefix):
            paths = [(*path, rules.prefix[made - 1]) for path in paths]
            progress = [phrasing.advance(state, rules.prefix[made - 1]) for state in progress]
            continue
        scores = np.stack([log_softmax(row) for row in logits])
        for row, path, state in zip(scores, paths, progress, strict=True):
            rules.apply(row, path, phrasing.following(state))
        if own.renormalize_logits:
            scores = np.stack([log_softmax(row) for row in scores])
        for row, state in zip(scores, progress, strict=True):
            phrasing.forbid(row, state, eos)
        total = scores + running[:, None]
        places = {divmod(index, total.shape[1]) for index in top(total.ravel(), 2 * beams).tolist()}
        for parent, (row, state) in enumerate(zip(total, progress, strict=True)):
            places.add((parent, int(row.argmax())))
            places.update((parent, token) for token in phrasing.following(state))
        pool = sorted((-float(total[place]), *place) for place in places if total[place] > DEAD / 2)
        states = [
            progress[parent] if token == eos else phrasing.advance(progress[parent], token) for _, parent, token in pool
        ]
        banks = [phrasing.bank(state) for state in states]
        there = [0] * (last + 1)
        for bank, (_, _, token) in zip(banks, pool, strict=True):
            there[bank] += token != eos
        share = shares(there, beams)
        may_end, whole = share[last] or 1, 0
        going: list[tuple[float, int, int, Progress]] = []
        for state, bank, (negative, parent, token) in zip(states, banks, pool, strict=True):
            rank = whole
            whole += bank == last
            if token == eos and rank >= may_end:
                continue
            if token == eos:
                ended = -np.sort(-np.append(ended, -negative / made**penalty))[:wanted]
            elif not share[bank]:
                continue
            else:
                share[bank] -= 1
                going.append((-negative, parent, token, state))
            if bank == last and (token == eos or (forced is None and made == limit)):
                found.append((-negative / made**penalty, (*paths[parent][1:], token)))
        going += [(DEAD, 0, eos, Progress())] * (beams - len(going))
        running = np.array([score for score, *_ in going])
        paths = [(*paths[parent], token) for _, parent, token, _ in going]
        progress = [state for *_, state in going]
        sentence.follow([parent for _, parent, _, _ in going])
        if not improvable(made):
            break
    banks = [phrasing.bank(state) if score > DEAD / 2 else -1 for state, score in zip(progress, running, strict=True)]
    ending = () if forced is None or made + 1 < limit else (forced,)
    if ending and improvable(made):
        found += _ended(running, paths, banks, last, ending, penalty)
    return found or _ended(running, paths, banks, max(0, *banks), ending, penalty)


def _ended(
    running: Array,
    paths: Sequence[tuple[int, ...]],
    banks: Sequence[int],
    wanted: int,
    ending: tuple[int, ...],
    penalty: float,
) -> Found:
    """The hypotheses of a bank, as if they ended here."""
    return [
        (float(score) / (len(path) - 1 + len(ending)) ** penalty, (*path[1:], *ending))
        for score, path, bank in zip(running, paths, banks, strict=True)
        if bank == wanted
    ]
