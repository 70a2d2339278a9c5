"""What is known of a pack's text, and the short way for a text of which no rule changes anything.

ids -> search, guards -> text; every other text goes through :class:`mobilenmt.runtime.passage.Passage`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from mobilenmt.runtime.hypothesis import Hypothesis, SearchOptions, confidence
from mobilenmt.runtime.manifest import PackManifest
from mobilenmt.runtime.opening import Text
from mobilenmt.runtime.retry import Retry
from mobilenmt.runtime.text.fold import Folder
from mobilenmt.runtime.text.letters import Alphabet, ended, without_inventions
from mobilenmt.runtime.text.lines import is_plain
from mobilenmt.runtime.text.placing import Link, Output
from mobilenmt.runtime.text.target import Targets

if TYPE_CHECKING:
    from mobilenmt.runtime.text.links import Linker
    from mobilenmt.runtime.text.terms.words import Spelling

Find = Callable[[Sequence[Sequence[int]], SearchOptions], list[list[Hypothesis]]]
"""Ids and how to search, to hypotheses of each."""


class Rendering(NamedTuple):
    """One translation of a sentence."""

    text: str
    outputs: tuple[Hypothesis, ...]
    """What the model gave for it: one, or one for each part of it; none for what was copied."""
    flags: tuple[str, ...]
    confidence: float | None = None
    """That it is good, or the least good of its parts; None if it was not asked for, or nothing is known."""
    links: tuple[Link, ...] = ()
    """Words of the sentence and of the text that translate one another, where asked for and known."""
    marks: tuple[tuple[tuple[str, str], ...], ...] = ()
    """Of each output, what its placeholders stand for; empty where there are none."""

    @property
    def shown(self) -> tuple[Hypothesis, ...]:
        """The outputs without those in whose place the source is shown."""
        return tuple(output for output in self.outputs if "kept" not in output.flags)


@dataclass(frozen=True)
class Reader:
    """What is known of a pack's text: made once, used by every call."""

    manifest: PackManifest
    tokenizer: Text
    targets: Targets
    alphabet: Alphabet
    folder: Folder
    retry: Retry

    @classmethod
    def of(cls, manifest: PackManifest, tokenizer: Text, targets: Targets, retry: Retry) -> Reader:
        """Make one."""
        alphabet = Alphabet(tokenizer.knows)
        return cls(manifest, tokenizer, targets, alphabet, Folder(alphabet), retry)

    @cached_property
    def linker(self) -> Linker:
        """Makes links of words; most calls need none."""
        from mobilenmt.runtime.text.links import Linker

        return Linker(self.tokenizer.encode, self.tokenizer.decode, self.tokenizer.pieces)

    @cached_property
    def spelling(self) -> Spelling:
        """Spells terms; likewise."""
        from mobilenmt.runtime.text.terms.words import Spelling

        return Spelling(self.tokenizer, self.manifest.model.target_vocab_size)

    def is_plain(self, text: str) -> bool:
        """Whether a text is one sentence of which no rule changes anything, but perhaps a caller's own."""
        return is_plain(text) and not self.alphabet.missing(text)

    def straight(
        self, text: str, most: int, find: Find, options: SearchOptions, guarded: bool
    ) -> tuple[Sequence[int], Rendering] | None:
        """The ids and the translation of a plain text, as a passage gives it for ten times the work around the model.

        Args:
            text: any text.
            most: tokens that fit.
            find: the search.
            options: how to search; one translation.
            guarded: whether the output is checked, and a bad one tried again.

        Returns:
            None for a text that has to go through a passage.
        """
        if not self.is_plain(text):
            return None
        ids = self.tokenizer.encode(text)
        if len(ids) > most:
            return None
        found = find([ids], options)
        first = found[0][0]
        decoded: str | None = self.tokenizer.decode(first.ids)
        if guarded and (self.retry.is_bad(text, ids, first, decoded) or self.retry.lacks_a_pair(text, first, decoded)):

            def again(bad: Sequence[Sequence[int]], width: int) -> list[list[Hypothesis]]:
                return find(bad, replace(options, beam_size=width, n_best=width))

            first = self.retry.run([(text, ids)], found, 1, again, pairs=True)[0][0]
            decoded = None
        if decoded is not None and not options.alignment and not options.token_scores:
            shown = without_inventions(decoded, text)
            return ids, Rendering(shown if first.flags else ended(shown, text), (first,), first.flags)
        output = self.output(text, ids, first, decoded)
        rating = self.confidence((first,)) if options.token_scores else None
        return ids, Rendering(output.text, (first,), tuple(dict.fromkeys(first.flags)), rating, tuple(output.links))

    def confidence(self, outputs: Sequence[Hypothesis]) -> float | None:
        """That outputs are good: the least of theirs; None where the source is shown for all, or nothing is known."""
        calibration = self.manifest.confidence
        if calibration is None:
            return None
        return min([confidence(output, calibration) for output in outputs if "kept" not in output.flags], default=None)

    def output(self, source: str, ids: Sequence[int], output: Hypothesis, decoded: str | None = None) -> Output:
        """What is shown of an output: never a broken or invisible character that its source lacks, and with its end.

        Args:
            source: the text that the model was given.
            ids: what it was encoded as.
            output: what the model gave.
            decoded: the text of the output, if it is known.
        """
        if "kept" in output.flags:
            return Output(source, (), output)
        if decoded is None:
            decoded = self.tokenizer.decode(output.ids)
        text = without_inventions(decoded, source)
        if not output.flags:
            text = ended(text, source)
        if output.alignment is None:
            return Output(text, (), output)
        links = self.linker.links(source, ids, decoded, output.ids, output.alignment)
        if text != decoded:
            from mobilenmt.runtime.text.links import shown

            links, _ = shown(links, decoded, text, ())
        return Output(text, links, output)
