"""Searches that follow a first one: outputs that loop, run away or leave things out are translated again with a beam,
and what is still bad is mended; where several translations are wanted, none is shown twice; and wider ones find what
holds phrases."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

from mobilenmt.runtime.guard import cut_loops, is_degenerate, is_short
from mobilenmt.runtime.hypothesis import Hypothesis, Phrases, SearchOptions, fits, most_beams
from mobilenmt.runtime.manifest import ModelInfo
from mobilenmt.runtime.opening import Text
from mobilenmt.runtime.text.letters import FEW, breaks_a_pair, has_pair, is_runaway

_BEAMS = 4
_END = -1  # stands for the end token, which hypotheses leave out; no piece has this id
_EACH = 2  # beams for hypotheses that hold none of the tokens of phrases, for those that hold one, and so on
_FEWEST, _MOST = 8, 24
_SHORT = 8  # tokens: the token limit alone is no guard for so few


@dataclass(frozen=True)
class Retry:
    """The second try for bad outputs."""

    tokenizer: Text
    brief: Callable[[], AbstractContextManager[None]]
    """A block in which a search with beams takes little memory."""

    def run(
        self,
        segments: Sequence[tuple[str, Sequence[int]]],
        outputs: list[list[Hypothesis]],
        n_best: int,
        search: Callable[[Sequence[Sequence[int]], int], list[list[Hypothesis]]],
        pairs: bool = False,
    ) -> list[list[Hypothesis]]:
        """Translate bad outputs again with a beam and take the best that is not bad; its flags say so (``retried``).

        Without one, loops are cut (``cut``); the longest stands for what is too short (``short``); and of a few words
        that ran away or came to nothing the source itself is to be shown (``kept``). Where all that is not bad lacks
        a bracket or quote, the best of them is shown (``unpaired``).

        Args:
            segments: the text and the ids of each.
            outputs: what was found for each, best first.
            n_best: outputs wanted of each.
            search: gives as many outputs of each source as it is told beams.
            pairs: whether an output that lacks a bracket or quote of its source is tried again, too.
        """

        def is_whole(index: int, output: Hypothesis) -> bool:
            return not (
                self.is_bad(*segments[index], output) or (pairs and self.lacks_a_pair(segments[index][0], output))
            )

        bad = [index for index, found in enumerate(outputs) if not is_whole(index, found[0])]
        if not bad:
            return outputs
        outputs = list(outputs)
        beams = max(_BEAMS, n_best)
        with self.brief():  # it is rare, so memory counts for more than time
            again = search([segments[index][1] for index in bad], beams)
        for index, found in zip(bad, again, strict=True):
            text, source = segments[index]
            good = next((item for item in found if is_whole(index, item)), None)
            first = good or self._unpaired(text, source, [outputs[index][0], *found])
            first = first or self._mend(text, source, [found[0], outputs[index][0]])
            rest = [item for item in found if item is not good]
            ranked = [replace(first, flags=("retried", *first.flags)), *rest]
            outputs[index] = distinct(ranked, self.tokenizer.decode)[:n_best] if n_best > 1 else ranked[:1]
        return outputs

    def is_bad(self, text: str, source: Sequence[int], output: Hypothesis, decoded: str | None = None) -> bool:
        """Whether an output loops, is far longer or far shorter than its source can mean; ``decoded``: its text."""
        return self._is_long(text, source, output, decoded) or self._is_short(source, output, decoded)

    def lacks_a_pair(self, text: str, output: Hypothesis, decoded: str | None = None) -> bool:
        """Whether a bracket or quote of the source, or its other half, is missing in an output."""
        return has_pair(text) and breaks_a_pair(self._text(output, decoded), text, lost=True)

    def _unpaired(self, text: str, source: Sequence[int], outputs: Sequence[Hypothesis]) -> Hypothesis | None:
        """The first output that is not bad but for its brackets or quotes."""
        best = next((item for item in outputs if not self.is_bad(text, source, item)), None)
        return best and replace(best, flags=(*best.flags, "unpaired"))

    def _is_long(self, text: str, source: Sequence[int], output: Hypothesis, decoded: str | None = None) -> bool:
        return is_degenerate(source, output.ids) or self._is_runaway(text, source, output, decoded)

    def _is_short(self, source: Sequence[int], output: Hypothesis, decoded: str | None) -> bool:
        """Far shorter than its source can mean, or nothing at all."""
        if is_short(source, output.ids):
            return True
        return len(output.ids) <= _SHORT and bool(source) and not self._text(output, decoded).strip()

    def _is_runaway(self, text: str, source: Sequence[int], output: Hypothesis, decoded: str | None) -> bool:
        """Far longer than a few words can mean."""
        if not _is_brief(text, source) or len(output.ids) < 2:
            return False
        return is_runaway(self._text(output, decoded), text)

    def _text(self, output: Hypothesis, decoded: str | None) -> str:
        return self.tokenizer.decode(output.ids) if decoded is None else decoded

    def _mend(self, text: str, source: Sequence[int], outputs: Sequence[Hypothesis]) -> Hypothesis:
        """What is shown where no output is good; the last of `outputs` is that of the first try."""
        whole = [item for item in outputs if not self._is_long(text, source, item)]
        if whole:
            best = max(whole, key=lambda item: len(item.ids))
            if self.tokenizer.decode(best.ids).strip():
                return replace(best, flags=(*best.flags, "short"))
            return replace(best, flags=("kept",))
        if _is_brief(text, source):
            return replace(outputs[-1], flags=("kept",))
        candidates = [replace(item, ids=_without_loops(source, item)) for item in outputs]
        return replace(min(candidates, key=lambda item: len(item.ids)), flags=("cut",))


def _is_brief(text: str, source: Sequence[int]) -> bool:
    return len(source) <= _SHORT or len(text) <= FEW  # more tokens in a script that the model hardly knows


def _without_loops(source: Sequence[int], output: Hypothesis) -> tuple[int, ...]:
    if output.at_limit:
        return tuple(cut_loops(source, output.ids))
    # The model ended it: with the end in its place the guard keeps what leads to it ("nein, nein." -> "nein.").
    return tuple(cut_loops(source, [*output.ids, _END]))[:-1]


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
