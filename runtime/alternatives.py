"""Wider searches: for several translations of one sentence, none shown twice, and for those that hold phrases."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from mobilenmt.runtime.hypothesis import Hypothesis, Phrases, SearchOptions, fits, most_beams
from mobilenmt.runtime.manifest import ModelInfo

_EACH = 2  # beams for hypotheses that hold none of the tokens of phrases, for those that hold one, and so on
_FEWEST, _MOST = 8, 24


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


def find_holding(
    find: Callable[[Sequence[Sequence[int]], SearchOptions], list[list[Hypothesis]]],
    sources: Sequence[Sequence[int]],
    phrases: Sequence[Sequence[tuple[int, ...]] | None],
    options: SearchOptions,
    model: ModelInfo,
    longest: int,
    continuing: bytes,
) -> list[list[Hypothesis]]:
    """Hypotheses that hold phrases and ended by themselves; none for sources without phrases.

    Args:
        find: the search.
        sources: ids of each.
        phrases: of each; None to leave it out, as happens where they are too many or too long.
        options: how to search; the beam is made wider.
        model: what the search runs.
        longest: length limit of the outputs.
        continuing: as in :class:`Phrases`.
    """
    results: list[list[Hypothesis]] = [[] for _ in sources]
    groups: dict[int, list[tuple[int, tuple[tuple[int, ...], ...]]]] = {}
    for index, of in enumerate(phrases):
        if of and fits(of, longest):
            banks = 1 + sum(map(len, of))
            beams = max(min(max(_FEWEST, _EACH * banks), _MOST), 2 * options.n_best, options.beam_size)
            groups.setdefault(min(beams, most_beams(model)), []).append((index, tuple(of)))
    for beams, group in groups.items():
        wanted = Phrases(tuple(of for _, of in group), continuing)
        found = find([sources[index] for index, _ in group], replace(options, beam_size=beams, phrases=wanted))
        for (index, _), items in zip(group, found, strict=True):
            results[index] = [item for item in items if not item.at_limit]
    return results
