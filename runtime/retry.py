"""Outputs that loop, run away or leave things out are translated again with a beam; what is still bad is mended."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

from mobilenmt.runtime.alternatives import distinct
from mobilenmt.runtime.guard import cut_loops, is_degenerate, is_short
from mobilenmt.runtime.hypothesis import Hypothesis
from mobilenmt.runtime.opening import Text

_BEAMS = 4
_LONGEST_RATIO = 3  # characters of output for each byte of a short source, beyond which an output is a runaway
_ALWAYS_ALLOWED = 12  # characters of output: "shy" may be "schüchtern"
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
        """Translate bad outputs again with a beam and take the best that is not bad; its flags say so (``retried``).

        Without one, loops are cut (``cut``); the longest stands for what is too short (``short``); and of a few words
        that ran away or came to nothing the source itself is to be shown (``kept``).

        Args:
            segments: the text and the ids of each.
            outputs: what was found for each, best first.
            n_best: outputs wanted of each.
            search: gives as many outputs of each source as it is told beams.
        """
        bad = [index for index, found in enumerate(outputs) if self.is_bad(*segments[index], found[0])]
        if not bad:
            return outputs
        outputs = list(outputs)
        beams = max(_BEAMS, n_best)
        with self.brief():  # it is rare, so memory counts for more than time
            again = search([segments[index][1] for index in bad], beams)
        for index, found in zip(bad, again, strict=True):
            text, source = segments[index]
            good = next((item for item in found if not self.is_bad(text, source, item)), None)
            first = good or self._mend(text, source, [found[0], outputs[index][0]])
            rest = [item for item in found if item is not good]
            ranked = [replace(first, flags=("retried", *first.flags)), *rest]
            outputs[index] = distinct(ranked, self.tokenizer.decode)[:n_best] if n_best > 1 else ranked[:1]
        return outputs

    def is_bad(self, text: str, source: Sequence[int], output: Hypothesis) -> bool:
        """Whether an output loops, runs away, or leaves out too much."""
        return self._is_long(text, source, output) or self._is_short(source, output)

    def _is_long(self, text: str, source: Sequence[int], output: Hypothesis) -> bool:
        return is_degenerate(source, output.ids) or self._is_runaway(text, source, output)

    def _is_short(self, source: Sequence[int], output: Hypothesis) -> bool:
        """Far shorter than its source can mean, or nothing at all."""
        if is_short(source, output.ids):
            return True
        return len(output.ids) <= _SHORT and bool(source) and not self.tokenizer.decode(output.ids).strip()

    def _is_runaway(self, text: str, source: Sequence[int], output: Hypothesis) -> bool:
        """Far longer than a few words can mean. Bytes of the source, since a Chinese character may be a word."""
        if len(source) > _SHORT or len(output.ids) < 2:
            return False
        most = max(_ALWAYS_ALLOWED, _LONGEST_RATIO * len(text.encode(errors="replace")))
        return len(self.tokenizer.decode(output.ids)) > most

    def _mend(self, text: str, source: Sequence[int], outputs: Sequence[Hypothesis]) -> Hypothesis:
        """What is shown where no output is good; the last of `outputs` is that of the first try."""
        whole = [item for item in outputs if not self._is_long(text, source, item)]
        if whole:
            best = max(whole, key=lambda item: len(item.ids))
            if self.tokenizer.decode(best.ids).strip():
                return replace(best, flags=(*best.flags, "short"))
            return replace(best, flags=("kept",))
        if len(source) <= _SHORT:
            return replace(outputs[-1], flags=("kept",))
        candidates = [replace(item, ids=_without_loops(source, item)) for item in outputs]
        return replace(min(candidates, key=lambda item: len(item.ids)), flags=("cut",))


def _without_loops(source: Sequence[int], output: Hypothesis) -> tuple[int, ...]:
    if output.at_limit:
        return tuple(cut_loops(source, output.ids))
    # The model ended it: with the end in its place the guard keeps what leads to it ("nein, nein." -> "nein.").
    return tuple(cut_loops(source, [*output.ids, _END]))[:-1]
