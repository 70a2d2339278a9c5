"""Translates sentences so that what must be kept comes out as it was, by trying until it does.

A sentence with something to keep goes through the model with placeholders. The output is checked; where a span is
lost, doubled, or moved to another end, another form of placeholders is tried, then a beam, then links between words
of the source and of the output say where it belongs; at worst the text is translated in parts around the spans.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from mobilenmt.runtime.text.edges import Chunk, cut, words
from mobilenmt.runtime.text.forms import Form, Placeholders
from mobilenmt.runtime.text.glossary import RULE, Glossary
from mobilenmt.runtime.text.kept import Kept, Rules, default_rules, gather
from mobilenmt.runtime.text.letters import halves
from mobilenmt.runtime.text.placeholders import Protected, Restored, protect, restore
from mobilenmt.runtime.text.placing import Output, Result, place

if TYPE_CHECKING:
    from mobilenmt.runtime.text.terms.search import Search

_BEAMS = 4
_UNKNOWN = Placeholders()  # of a model of which nothing is known


Translate = Callable[[list[str], int], list[list[Output]]]
"""Texts and the number of translations wanted of each, to translations, best first; 1 means greedily."""


@dataclass
class _Job:
    """A stretch of a sentence on its way."""

    chunk: Chunk
    start: int = 0
    """Where it begins in the sentence."""
    text: str = ""
    flags: tuple[str, ...] = ()
    outputs: list[Output] = field(default_factory=list)
    done: bool = False
    others: list[tuple[str, Output]] = field(default_factory=list)
    """Further translations that keep everything."""
    best: tuple[Restored, Protected, Output, Sequence[Kept]] | None = None
    """The least bad try, and the spans it had marks for."""

    def finish(self, text: str, *flags: str) -> None:
        """Take a text for the translation."""
        self.text, self.flags, self.done = self.chunk.fit(text), flags, True
        first = self.chunk.text[:1]
        if first.isupper() and any(span.target and text.startswith(span.target) for span in self.chunk.kept):
            self.text = self.text[:1].upper() + self.text[1:]  # a term begins the sentence now


class Keeper:
    """Translates with a callback, and keeps what `rules` find.

    Args:
        translate: gives translations of texts, several at once.
        rules: what is kept; None for all rules of :func:`default_rules`.
        placeholders: what the model does with placeholders; None for the default.
        glossary: terms that become what it says.
        extra: further spans of a text (characters that the model never saw, say). Those that overlap are left out.
        search: what terms are tried with before placeholders; None for placeholders alone.
        language: code of the texts' language.
    """

    def __init__(
        self,
        translate: Translate,
        rules: Rules | None = None,
        placeholders: Placeholders | None = None,
        glossary: Glossary | None = None,
        extra: Callable[[str], Sequence[Kept]] | None = None,
        search: Search | None = None,
        language: str = "",
    ) -> None:
        self._translate = translate
        self._rules = default_rules() if rules is None else rules
        self._placeholders = placeholders
        self._glossary = glossary
        self._extra = extra
        self._search = search
        self._language = language

    @cached_property
    def _forms(self) -> tuple[Form, ...]:
        return (self._placeholders or _UNKNOWN).tried

    @cached_property
    def _copied(self) -> frozenset[str]:
        """The rules whose spans go through the model as they are."""
        return self._rules.copied.union((self._placeholders or _UNKNOWN).copied)

    def find(self, text: str) -> list[Kept]:
        """The spans of a text, by the rules and by `extra`."""
        return gather(text, self._rules, self._glossary.added if self._glossary else None, self._extra)

    def first(self, text: str, kept: Sequence[Kept]) -> str:
        """A text as the model sees it at the first try, as a whole."""
        protected = protect(
            text, merged(text, kept, self._copied, self._rules.spaced), self._forms[0], self._rules, self._copied
        )
        return text if protected is None else protected.text

    def run(self, sentences: Sequence[str], kept: Sequence[Sequence[Kept]] | None = None) -> list[Result]:
        """Translate sentences; a text without words comes back as it is.

        Args:
            sentences: the texts.
            kept: the spans of each, if they are known already.
        """
        spans = [self.find(text) for text in sentences] if kept is None else kept
        plans = [cut(text, found, self._rules, self._language) for text, found in zip(sentences, spans, strict=True)]
        jobs = [_jobs(text, plan) for text, plan in zip(sentences, plans, strict=True)]
        flat = [job for plan in jobs for job in plan if isinstance(job, _Job)]
        if self._search is not None:
            self._searched(flat, self._search)
        self._work([job for job in flat if not job.done])
        return [_assemble(plan) for plan in jobs]

    def _work(self, jobs: Sequence[_Job]) -> None:
        waiting = list(jobs)
        for form, copied, beams in self._attempts():
            tried: list[tuple[_Job, Protected, Sequence[Kept]]] = []
            for job in waiting:
                spans = merged(job.chunk.text, job.chunk.kept, copied, self._rules.spaced)
                protected = protect(job.chunk.text, spans, form, self._rules, copied)
                if protected is not None and (beams > 1 or job.best is None or protected != job.best[1]):
                    tried.append((job, protected, spans))
            found = self._translate([protected.text for _, protected, _ in tried], beams) if tried else []
            for (job, protected, marked), outputs in zip(tried, found, strict=True):
                _take(job, protected, marked, outputs)
            waiting = [job for job in waiting if not job.done]
            if not waiting:
                return
        self._parts([job for job in waiting if not _placed(job)])

    def _searched(self, jobs: Sequence[_Job], search: Search) -> None:
        """Terms by a search, before there are placeholders for them."""
        from mobilenmt.runtime.text.terms.search import Attempt, attempt

        tried = [job for job in jobs if any(span.rule == RULE for span in job.chunk.kept)]

        def protected(text: str, kept: Sequence[Kept], more: frozenset[str]) -> tuple[Protected | None, list[Kept]]:
            spans = merged(text, kept, self._copied | more, self._rules.spaced)
            return protect(text, spans, self._forms[0], self._rules, self._copied | more), spans

        def take(index: int, found: Attempt) -> bool:
            _take(tried[index], found.protected, found.spans, found.outputs, found.checked)
            tried[index].best = None  # other attempts have other placeholders
            return tried[index].done

        texts = [(job.chunk.text, job.chunk.kept) for job in tried]
        attempt(texts, protected, self._translate, search, take)

    def _attempts(self) -> Iterator[tuple[Form, frozenset[str], int]]:
        yield self._forms[0], self._copied, 1
        for form in self._forms:
            yield form, frozenset(), 1
        yield self._forms[0], frozenset(), _BEAMS

    def _parts(self, jobs: Sequence[_Job]) -> None:
        """Translate apart what stands between the spans that got lost; what holds others goes through all of this."""
        plans = [_around_lost(job) for job in jobs]
        self._work([piece for plan in plans for piece in plan if isinstance(piece, _Job)])
        for job, plan in zip(jobs, plans, strict=True):
            parts = [piece for piece in plan if isinstance(piece, _Job)]
            job.outputs = [output for part in parts for output in part.outputs]
            job.finish("".join(piece.text if isinstance(piece, _Job) else piece for piece in plan), "parts")


def _jobs(text: str, plan: Sequence[Chunk | str]) -> list[_Job | str]:
    jobs: list[_Job | str] = []
    at = 0
    for piece in plan:
        if isinstance(piece, Chunk):
            at = max(at, text.find(piece.core, at))
            jobs.append(_Job(piece, at))
            at += len(piece.core)
        else:
            jobs.append(piece)
    return jobs


def _traced(job: _Job, output: Output, protected: Protected, spans: Sequence[Kept]) -> Output:
    """The output with what its placeholders stand for, and with links to the sentence if it has any."""
    marks = tuple([(mark.placeholder, mark.text) for mark in protected.marks])
    if not output.links:
        return output._replace(marks=marks) if marks else output
    from mobilenmt.runtime.text.links import unprotected  # not before: most sentences need none

    links = unprotected(output.links, protected, spans, job.start, len(job.chunk.core))
    return output._replace(links=links, marks=marks)


def _take(
    job: _Job,
    protected: Protected,
    spans: Sequence[Kept],
    outputs: Sequence[Output],
    checked: Protected | None = None,
) -> None:
    """Take the first output in which every span is in place, or those of `checked`; remember the others, or the best
    where there is none."""
    checked = protected if checked is None else checked
    for output in outputs:
        restored = restore(output.text, checked) if checked.marks else Restored(output.text)
        if restored.ok and job.done:
            job.others.append((job.chunk.fit(restored.text), _traced(job, output, protected, spans)))
        elif restored.ok:
            job.outputs = [_traced(job, output, protected, spans)]
            job.finish(restored.text)
        elif not job.done and (job.best is None or _rank(restored, output) < _rank(job.best[0], job.best[2])):
            job.best = restored, protected, output, spans


def _rank(restored: Restored, output: Output) -> tuple[int, bool]:
    """The less the better: of outputs with as many faults one with links, which can be mended."""
    return restored.faults, not output.links


def merged(
    text: str, kept: Sequence[Kept], apart: frozenset[str] = frozenset(), spaced: frozenset[str] = frozenset()
) -> list[Kept]:
    """Spans that touch one another, or with one space between, made one (but for the rules `apart`): fewer
    placeholders. One that ends as those of the rules `spaced` do is theirs."""
    spans: list[Kept] = []
    for span in kept:
        alone = span.rule in apart or (bool(spans) and spans[-1].rule in apart)
        if spans and not alone and text[spans[-1].end : span.start] in ("", " "):
            last = spans[-1]
            target = None
            if last.target is not None or span.target is not None:
                target = last.written(text) + text[last.end : span.start] + span.written(text)
            spans[-1] = Kept(last.start, span.end, span.rule if span.rule in spaced else last.rule, target)
        else:
            spans.append(span)
    return spans


def _placed(job: _Job) -> bool:
    """Put what is missing where the links of the best output say."""
    if job.best is None or not job.best[2].links:
        return False
    _, protected, output, spans = job.best
    restored = restore(place(output.text, protected, output.links), protected)
    if restored.ok:
        job.outputs = [_traced(job, output, protected, spans)]
        job.finish(restored.text, "placed")
    return restored.ok


def _around_lost(job: _Job) -> list[_Job | str]:
    """The stretches of a text between the spans that the best output has lost or moved, as jobs, and these spans."""
    text = job.chunk.text
    spans: Sequence[Kept] = merged(text, job.chunk.kept)
    lost = set(range(len(spans)))
    if job.best is not None:
        restored, _, _, tried = job.best
        faulty = {*restored.missing, *restored.doubled, *restored.misplaced}
        if faulty:
            spans, lost = tried, faulty
    plan: list[_Job | str] = []
    done = 0
    inside: list[Kept] = []
    for index, span in enumerate([*spans, Kept(len(text), len(text), "")]):
        if index < len(spans) and index not in lost:
            inside.append(span)
            continue
        for half in [*halves(text, done, span.start, inside), span.start]:
            here = [item for item in inside if done <= item.start < half]
            start, end = words(text, done, half, here)
            if start < end:
                moved = tuple(item.moved(start) for item in here)
                plan += [text[done:start], _Job(Chunk(text[start:end], moved), job.start + start), text[end:half]]
            else:
                plan.append(text[done:half])
            plan.append(text[half : half + 1] if half < span.start else "")
            done = half + 1
        plan.append(span.written(text))
        done, inside = span.end, []
    return plan


def _assemble(plan: Sequence[_Job | str]) -> Result:
    jobs = [piece for piece in plan if isinstance(piece, _Job)]
    flags = tuple(dict.fromkeys(flag for job in jobs for flag in job.flags))
    ranked = [Result(*_ranked(plan, rank)) for rank in range(1 + max((len(job.others) for job in jobs), default=0))]
    first = ranked[0]._replace(flags=flags)
    return first._replace(alternatives=tuple(item._replace(flags=flags) for item in ranked[1:]))


def _ranked(plan: Sequence[_Job | str], rank: int) -> tuple[str, tuple[str, ...], tuple[Output, ...]]:
    """The text and the outputs at a rank; a stretch that has fewer translations stays at its last."""
    parts: list[str] = []
    outputs: list[Output] = []
    for piece in plan:
        if isinstance(piece, str):
            parts.append(piece)
        elif rank and piece.others:
            text, output = piece.others[min(rank, len(piece.others)) - 1]
            parts.append(text)
            outputs.append(output)
        else:
            parts.append(piece.text)
            outputs += piece.outputs
    return "".join(parts), (), tuple(outputs)
