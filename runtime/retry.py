"""Outputs that are loops or runaways are translated again with a beam; what is still one is cut."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

from mobilenmt.runtime.guard import cut_loops, is_degenerate
from mobilenmt.runtime.hypothesis import Hypothesis
from mobilenmt.runtime.opening import Text

_BEAMS = 4
_LONGEST_RATIO = 5  # characters of output for each byte of a short source, beyond which an output is a runaway
_END = -1  # stands for the end token, which hypotheses leave out; no piece has this id
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
    ) -> list[list[Hypothesis]]:
        """Translate loops and runaways again with a beam; cut what is still one, and say so in its flags.

        Args:
            segments: the text and the ids of each.
            outputs: what was found for each, best first.
            n_best: outputs wanted of each.
            search: gives as many outputs of each source as it is told beams.
        """
        bad = [index for index, found in enumerate(outputs) if self._is_bad(*segments[index], found[0])]
        if not bad:
            return outputs
        outputs = list(outputs)
        beams = max(_BEAMS, n_best)
        with self.brief():  # it is rare, so memory counts for more than time
            again = search([segments[index][1] for index in bad], beams)
        for index, found in zip(bad, again, strict=True):
            text, source = segments[index]
            good = next((item for item in found if not self._is_bad(text, source, item)), None)
            first = good or self._cut(text, source, [found[0], outputs[index][0]])
            rest = [item for item in found if item is not good]
            outputs[index] = [replace(first, flags=("retried", *first.flags)), *rest[: n_best - 1]]
        return outputs

    def _is_bad(self, text: str, source: Sequence[int], output: Hypothesis) -> bool:
        return is_degenerate(source, output.ids) or self._is_runaway(text, source, output.ids)

    def _is_runaway(self, text: str, source: Sequence[int], ids: Sequence[int]) -> bool:
        """Far longer than a few words can mean. Bytes of the source, since a Chinese character may be a word."""
        return len(source) <= _SHORT and len(self.tokenizer.decode(ids)) > _LONGEST_RATIO * len(
            text.encode(errors="replace")
        )

    def _cut(self, text: str, source: Sequence[int], outputs: Sequence[Hypothesis]) -> Hypothesis:
        """The shortest of the outputs once their loops are cut, and no longer than a short source may become."""
        candidates = [replace(item, ids=_without_loops(source, item)) for item in outputs]
        best = min(candidates, key=lambda item: len(item.ids))
        ids = best.ids
        while len(ids) > 1 and self._is_runaway(text, source, ids):
            ids = ids[:-1]
        return replace(best, ids=ids, flags=("cut",))


def _without_loops(source: Sequence[int], output: Hypothesis) -> tuple[int, ...]:
    if output.at_limit:
        return tuple(cut_loops(source, output.ids))
    # The model ended it: with the end in its place the guard keeps what leads to it ("nein, nein." -> "nein.").
    return tuple(cut_loops(source, [*output.ids, _END]))[:-1]
