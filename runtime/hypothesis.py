"""What every engine takes and gives: limits of a search, and its outputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mobilenmt.runtime.errors import InputError
from mobilenmt.runtime.manifest import ModelInfo

MAX_BEAMS = 64


@dataclass(frozen=True)
class Hypothesis:
    """One output: ``ids`` without start and end token; ``score`` as ``generate`` defines it."""

    ids: tuple[int, ...]
    score: float
    """Sum of the log-probabilities, ``</s>`` included, over (generated tokens)^length_penalty."""
    generated: int
    """Tokens generated, the ``</s>`` counted."""
    flags: tuple[str, ...] = ()
    """What happened to it: ``truncated`` where the length limit ended it, not the model; a retry adds others."""

    @property
    def at_limit(self) -> bool:
        """Whether the length limit ended it."""
        return "truncated" in self.flags


def most_beams(model: ModelInfo) -> int:
    """The widest beam a search can have."""
    return min(MAX_BEAMS, model.target_vocab_size // 2)


def distinct(found: Sequence[Hypothesis], text: Callable[[Sequence[int]], str]) -> list[Hypothesis]:
    """Those with texts of their own, in order: different ids may decode to one text."""
    first: dict[str, Hypothesis] = {}
    for item in found:
        first.setdefault(text(item.ids), item)
    return list(first.values())


def search_distinct(
    search: Callable[[Sequence[Sequence[int]], int], list[list[Hypothesis]]],
    sources: Sequence[Sequence[int]],
    beams: int,
    n_best: int,
    text: Callable[[Sequence[int]], str],
    widest: int,
) -> list[list[Hypothesis]]:
    """Up to ``n_best`` hypotheses of each source with texts of their own, best first.

    Where a search with ``beams`` has too few, one with twice as many adds what it finds. A source can still have fewer
    in the end, and then fewer are given.

    Args:
        search: gives as many hypotheses of each source as it is told beams.
        sources: ids of each.
        beams: hypotheses kept by the first search.
        n_best: hypotheses wanted.
        text: what ids decode to.
        widest: most beams there can be.
    """
    outputs = [distinct(found, text) for found in search(sources, beams)]
    few = [index for index, found in enumerate(outputs) if len(found) < n_best]
    if few and beams < widest:
        more = search([sources[index] for index in few], min(2 * beams, widest))
        for index, found in zip(few, more, strict=True):
            both = sorted([*outputs[index], *found], key=lambda item: -item.score)
            outputs[index] = distinct(both, text)
    return [found[:n_best] for found in outputs]


def check_search(model: ModelInfo, beam_size: int, n_best: int, max_length: int | None, min_length: int) -> None:
    """Check the numbers of a search, ``max_length`` None where there is no limit but the model's.

    Raises:
        InputError: one is out of range.
    """
    widest = most_beams(model)
    if not 1 <= beam_size <= widest:
        raise InputError(f"beam_size must be from 1 to {widest}, not {beam_size}")
    if not 1 <= n_best <= beam_size:
        raise InputError(f"n_best must be from 1 to beam_size ({beam_size}), not {n_best}")
    limit = model.max_positions if max_length is None else max_length
    if not 2 <= limit <= model.max_positions:
        raise InputError(f"max_length must be from 2 to the model's {model.max_positions}, not {limit}")
    if not 0 <= min_length <= limit:
        raise InputError(f"min_length must be from 0 to max_length ({limit}), not {min_length}")


def check_sources(
    model: ModelInfo,
    sources: Sequence[Sequence[int]],
    max_lengths: Sequence[int],
    min_length: int,
    beam_size: int,
    n_best: int,
) -> None:
    """Check all that a search is given.

    Raises:
        InputError: something is out of range.
    """
    if len(max_lengths) != len(sources):
        raise InputError(f"{len(sources)} sources need as many length limits, not {len(max_lengths)}")
    for limit in {None, *max_lengths}:
        check_search(model, beam_size, n_best, limit, min_length)
    for source in sources:
        if len(source) >= model.max_positions:
            raise InputError(
                f"a source of {len(source)} tokens does not fit the model's {model.max_positions} positions"
            )
        if any(not 0 <= token < model.source_vocab_size for token in source):
            raise InputError(f"source ids must be from 0 to {model.source_vocab_size - 1}")
