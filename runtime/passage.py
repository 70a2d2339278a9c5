"""Sentences in, sentences out, for one call: what is done to each before and after the model, and the search between.

sentence -> folded -> capitals gone -> placeholders -> ids -> search, guards -> text -> all of it undone
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from mobilenmt.runtime.hypothesis import Hypothesis, SearchOptions, most_beams
from mobilenmt.runtime.reader import Find, Reader, Rendering
from mobilenmt.runtime.retry import find_holding, search_distinct
from mobilenmt.runtime.text.case import Case, lower, restore
from mobilenmt.runtime.text.edges import has_shell
from mobilenmt.runtime.text.fold import unfolded
from mobilenmt.runtime.text.kept import Kept, Rules, default_rules, gather
from mobilenmt.runtime.text.letters import has_letter, long_words, unknown
from mobilenmt.runtime.text.placing import Link, Output, Result, find_places

if TYPE_CHECKING:
    from mobilenmt.runtime.text.glossary import Glossary
    from mobilenmt.runtime.text.keeper import Keeper

_NOTHING: nullcontext[None] = nullcontext()


class Prepared(NamedTuple):
    """A sentence ready for the model, but for placeholders."""

    source: str
    text: str
    case: Case
    kept: Sequence[Kept]
    origin: Sequence[int] | None
    """As in :class:`Folded`."""
    simple: bool
    """Whether it goes through the model as a whole, and comes out so."""


class Passage:
    """The sentences of one call.

    Args:
        reader: of the pack.
        find: the search.
        options: how to search.
        code: of the language to put before every sentence, "" for none.
        guarded: whether outputs are checked for loops and length, and bad ones tried again.
        rules: what is kept; None for all rules.
        glossary: what terms become.
        method: one of the glossary's methods.
        longest: of an output, in tokens.
        details: whether renderings get a confidence and links.
    """

    def __init__(
        self,
        reader: Reader,
        find: Find,
        options: SearchOptions,
        code: str = "",
        guarded: bool = True,
        rules: Rules | None = None,
        glossary: Glossary | None = None,
        method: str | None = None,
        longest: int = 0,
        details: bool = False,
    ) -> None:
        self._reader = reader
        self._find = find
        wanted = details and reader.manifest.alignment is not None
        if wanted and not options.alignment:  # only of this passage, the links of a document
            options = replace(options, alignment=True)
        self._options = options
        self._details = details
        self._again = False
        self._encode = reader.targets.encoder(code, reader.tokenizer.encode)
        self._guarded = guarded
        self._given = rules
        self._glossary = glossary
        self._method = method
        self._longest = longest
        self._prepared: dict[str, Prepared] = {}
        self._ids: dict[str, Sequence[int]] = {}
        manifest = reader.manifest
        self._languages = manifest.source_language or "", manifest.target_language or ""

    @property
    def _rules(self) -> Rules:
        return default_rules() if self._given is None else self._given

    @cached_property
    def _keeper(self) -> Keeper:
        from mobilenmt.runtime.text.keeper import Keeper  # not before: most calls need none

        placeholders = self._reader.manifest.placeholders
        search, language = None if self._method == "placeholders" else self._search, self._languages[0]
        return Keeper(self._translate, self._rules, placeholders, self._glossary, self._strange, search, language)

    def encode(self, sentence: str) -> Sequence[int]:
        """The ids that a sentence goes through the model as, at the first try."""
        found = self.prepare(sentence)
        return self._encoded(found.text if not found.kept else self._keeper.first(found.text, found.kept))

    def is_plain(self, sentence: str) -> bool:
        """Whether the output for :meth:`encode` is the translation, with nothing to undo."""
        found = self.prepare(sentence)
        return found.simple and found.case is Case.PLAIN

    def run(self, sentences: Sequence[str]) -> list[list[Rendering]]:
        """Translate; each gets up to ``n_best`` renderings with texts of their own, best first."""
        prepared = [self.prepare(sentence) for sentence in sentences]
        plain = [item.simple and has_letter(item.text) for item in prepared]
        direct = iter(self._direct([item.text for item, alone in zip(prepared, plain, strict=True) if alone]))
        others = [item for item, alone in zip(prepared, plain, strict=True) if not alone]
        self._again = False
        kept = iter(self._keeper.run([item.text for item in others], [item.kept for item in others]) if others else ())
        return [
            self._undone(item, next(direct if alone else kept)) for item, alone in zip(prepared, plain, strict=True)
        ]

    def _direct(self, texts: list[str]) -> list[Result]:
        """What the keeper would give for texts that hold nothing to keep, for a tenth of the time."""
        if not texts:
            return []
        self._again = False
        return [
            Result(first.text, (), (first,), tuple(Result(item.text, (), (item,)) for item in rest))
            for first, *rest in self._translate(texts, 1, pairs=True)
        ]

    # -- before ---------------------------------------------------------------------------------------------------

    def prepare(self, sentence: str) -> Prepared:
        found = self._prepared.get(sentence)
        if found is None and self._given is None and self._glossary is None and self._reader.is_plain(sentence):
            found = self._prepared[sentence] = Prepared(sentence, sentence, Case.PLAIN, (), None, True)
        elif found is None:
            folded = self._reader.folder.fold(sentence)
            kept = gather(folded.text, self._rules, self._glossary.added if self._glossary else None, self._strange)
            if kept and folded.origin is not None:
                folded, kept = unfolded(sentence, folded, kept)
            text = folded.text
            code = self._reader.targets.length(text)
            if code:
                kept = [span for span in kept if span.start >= code]
            spans = [(0, code)] if code else []
            spans += [(start, end) for start, end, *_ in kept]
            text, case = lower(text, self._languages[0], keep=spans, cost=self._cost)
            simple = not kept and not has_shell(text, self._languages[0])
            found = self._prepared[sentence] = Prepared(sentence, text, case, kept, folded.origin, simple)
        return found

    def _cost(self, word: str) -> int:
        return len(self._reader.tokenizer.encode(word))

    def _strange(self, text: str) -> list[Kept]:
        """What no rule names, and the model never saw."""
        long = long_words(text)
        return [*long, *unknown(text, self._reader.alphabet)] if long else unknown(text, self._reader.alphabet)

    def _encoded(self, text: str) -> Sequence[int]:
        found = self._ids.get(text)
        if found is None:
            found = self._ids[text] = self._encode(text)
        return found

    # -- the model ------------------------------------------------------------------------------------------------

    def _translate(self, texts: list[str], beams: int, pairs: bool = False) -> list[list[Output]]:
        """Translations of texts; with more than one beam as many of each, whatever was asked for. ``pairs``: as in
        :meth:`Retry.run`; the keeper looks after those of texts with something to keep."""
        options = self._options
        if self._again and not options.alignment and self._reader.manifest.alignment is not None:
            options = replace(options, alignment=True)  # unasked: links say where a lost span belongs
        self._again = True
        if beams > 1:
            beams = min(beams, most_beams(self._reader.manifest.model))
            options = replace(options, beam_size=max(beams, options.beam_size), n_best=beams)
        sources = [self._encoded(text) for text in texts]

        def several(some: Sequence[Sequence[int]], width: int) -> list[list[Hypothesis]]:
            return self._find(some, replace(options, beam_size=width, n_best=width))

        if options.n_best > 1 and beams == 1:
            widest = most_beams(self._reader.manifest.model)
            decode = self._reader.tokenizer.decode
            found = search_distinct(several, sources, options.beam_size, options.n_best, decode, widest)
        else:
            with self._reader.retry.brief() if beams > 1 else _NOTHING:
                found = self._find(sources, options)
        if self._guarded:
            segments = list(zip(texts, sources, strict=True))
            found = self._reader.retry.run(segments, found, options.n_best, several, pairs)
        return [
            [self._reader.output(text, ids, item) for item in outputs]
            for text, ids, outputs in zip(texts, sources, found, strict=True)
        ]

    def _search(self, texts: list[str], terms: list[list[str]]) -> list[list[Output]]:
        """Translations that hold terms, none of them bad."""
        reader, sources = self._reader, [self._encoded(text) for text in texts]
        phrases = [reader.spelling.of(words) for words in terms]
        how = self._options, reader.manifest.model, self._longest, reader.spelling.continuing
        found = find_holding(self._find, sources, phrases, *how)
        power = reader.manifest.generation.length_penalty - 1
        return [
            [
                reader.output(text, ids, item)._replace(score=item.score * item.generated**power)
                for item in items
                if not (self._guarded and reader.retry.is_bad(text, ids, item))
            ]
            for text, ids, items in zip(texts, sources, found, strict=True)
        ]

    # -- after ----------------------------------------------------------------------------------------------------

    def _undone(self, source: Prepared, result: Result) -> list[Rendering]:
        if not result.alternatives:
            return [self._rendering(source, result)]
        found = [self._rendering(source, item) for item in (result, *result.alternatives)]
        return list({item.text: item for item in reversed(found)}.values())[::-1]  # capitals may make two texts one

    def _rendering(self, source: Prepared, result: Result) -> Rendering:
        text = result.text
        if source.case is not Case.PLAIN:
            kept = [span.written(source.text) for span in source.kept]
            text = restore(text, source.case, self._languages[1], keep=find_places(text, kept))
        outputs = tuple([item.origin for item in result.outputs if isinstance(item.origin, Hypothesis)])
        marks = (
            tuple([item.marks for item in result.outputs if isinstance(item.origin, Hypothesis)]) if source.kept else ()
        )
        flags = [flag for output in outputs for flag in output.flags]
        if not outputs and all(span.target is None for span in source.kept):
            text = source.source  # as it was written, not as it was folded
            flags.append("kept")
        elif not outputs and source.text[0].isupper():
            text = text[0].upper() + text[1:]  # a term alone begins as its source does
        rendering = Rendering(text, outputs, tuple(dict.fromkeys([*flags, *result.flags])), marks=marks)
        return self._detailed(rendering, source, result.outputs) if self._details else rendering

    def _detailed(self, rendering: Rendering, source: Prepared, outputs: Sequence[Output]) -> Rendering:
        """The rendering with its confidence and links."""
        least = self._reader.confidence(rendering.outputs) if self._options.token_scores else None
        origin = source.origin
        if len(outputs) == 1 and origin is None and outputs[0].text == rendering.text:  # nothing was undone
            return rendering._replace(confidence=least, links=tuple(outputs[0].links))
        from mobilenmt.runtime.text.links import shown

        links: list[Link] = []
        at = 0
        for output in outputs:
            found, at = shown(output.links, output.text, rendering.text, output.marks, at)
            links += found
        if origin is not None:
            links = [(origin[a], origin[b], c, d) for a, b, c, d in links]
        return rendering._replace(confidence=least, links=tuple(sorted(set(links))))
