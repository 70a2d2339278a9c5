"""Translates sentences so that what must be kept comes out as it was, by trying until it does.

A sentence with something to keep goes through the model with placeholders. The output is checked; where a span is
lost, doubled, or moved to another end, another form of placeholders is tried, then a beam, then links between words
of the source and of the output say where it belongs; at worst the text is translated in parts around the spans.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from mobilenmt.runtime.text.edges import Chunk, cut, words
from mobilenmt.runtime.text.kept import Kept, Rules, default_rules
from mobilenmt.runtime.text.placeholders import Form, Protected, Restored, check_form, protect, restore
from mobilenmt.runtime.text.placing import Link, place

_BEAMS = 4
_END = ".!?…"


class Output(NamedTuple):
    """One translation of a text."""

    text: str
    links: Sequence[Link] = ()
    """(source start, source end, target start, target end) of words that translate one another, where known."""
    origin: object = None
    """Whatever the host wants to find again in :class:`Result`."""


Translate = Callable[[list[str], int], list[list[Output]]]
"""Texts and the number of translations wanted of each, to translations, best first; 1 means greedily."""


@dataclass(frozen=True)
class Placeholders:
    """What a model does with placeholders: the key ``placeholders`` of pack.json."""

    forms: tuple[Form, ...] = ()
    """Forms to try in turn; empty for the default."""
    copied: frozenset[str] = frozenset()
    """Names of rules whose spans the model copies by itself, besides those that say so."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "forms", tuple(check_form(form) for form in self.forms) or DEFAULT_FORMS)


DEFAULT_FORMS: tuple[Form, ...] = (
    ("71046", "82053", "93168", "14275", "25387", "36492", "47519", "58624"),
    "[#]",
    ("AB-7104", "CD-8205", "EF-9316", "GH-1427", "JK-2538", "LM-3649", "NP-4752", "QR-5863"),
)
"""For a model of which nothing is known."""


class Result(NamedTuple):
    """What a sentence became."""

    text: str
    flags: tuple[str, ...] = ()
    """``placed``: a span was put back where the links say; ``parts``: the sentence was translated in parts."""
    outputs: tuple[Output, ...] = ()
    """The outputs that it is made of."""


@dataclass
class _Job:
    """A stretch of a sentence on its way."""

    chunk: Chunk
    text: str = ""
    flags: tuple[str, ...] = ()
    outputs: list[Output] = field(default_factory=list)
    best: tuple[Restored, Protected, Output] | None = None


class Keeper:
    """Translates with a callback, and keeps what `rules` find.

    Args:
        translate: gives translations of texts, several at once.
        rules: what is kept; None for all rules of :func:`default_rules`.
        placeholders: what the model does with placeholders; None for the default.
        extra: further spans of a text (characters that the model never saw, say). Those that overlap are left out.
    """

    def __init__(
        self,
        translate: Translate,
        rules: Rules | None = None,
        placeholders: Placeholders | None = None,
        extra: Callable[[str], Sequence[Kept]] | None = None,
    ) -> None:
        self._translate = translate
        self._rules = default_rules() if rules is None else rules
        self._forms = (placeholders or Placeholders()).forms
        self._copied = frozenset(rule.name for rule in self._rules.rules if rule.copied)
        self._copied |= (placeholders or Placeholders()).copied
        self._extra = extra

    def find(self, text: str) -> list[Kept]:
        """The spans of a text, by the rules and by `extra`."""
        kept = self._rules.find(text)
        if self._extra is None or not (extra := self._extra(text)):
            return kept
        free = [span for span in extra if all(span.end <= k.start or k.end <= span.start for k in kept)]
        return sorted([*kept, *free])

    def run(self, sentences: Sequence[str]) -> list[Result]:
        """Translate sentences; a text without words comes back as it is."""
        plans = [cut(text, self.find(text), self._rules) for text in sentences]
        jobs = [[_Job(piece) if isinstance(piece, Chunk) else piece for piece in plan] for plan in plans]
        self._work([job for plan in jobs for job in plan if isinstance(job, _Job)])
        return [_assemble(plan) for plan in jobs]

    def _work(self, jobs: Sequence[_Job]) -> None:
        waiting = list(jobs)
        for form, copied, beams in self._attempts():
            tried: list[tuple[_Job, Protected]] = []
            for job in waiting:
                protected = self._protect(job.chunk, form, copied)
                if protected is not None and (beams > 1 or job.best is None or protected != job.best[1]):
                    tried.append((job, protected))
            found = self._translate([protected.text for _, protected in tried], beams) if tried else []
            for (job, protected), outputs in zip(tried, found, strict=True):
                self._take(job, protected, outputs)
            waiting = [job for job in waiting if not job.outputs]
            if not waiting:
                return
        self._parts([job for job in waiting if not _placed(job)])

    def _protect(self, chunk: Chunk, form: Form, copied: frozenset[str]) -> Protected | None:
        if not chunk.kept:
            return Protected(chunk.text, ())
        return protect(chunk.text, merged(chunk.text, chunk.kept, copied), form, self._rules, copied)

    def _attempts(self) -> Iterator[tuple[Form, frozenset[str], int]]:
        yield self._forms[0], self._copied, 1
        for form in self._forms:
            yield form, frozenset(), 1
        yield self._forms[0], frozenset(), _BEAMS

    def _take(self, job: _Job, protected: Protected, outputs: Sequence[Output]) -> None:
        """Take the first output in which every span is in place; remember the best of the others."""
        if not protected.marks:
            job.text, job.outputs = job.chunk.fit(outputs[0].text), [outputs[0]]
            return
        for output in outputs:
            restored = restore(output.text, protected)
            if restored.ok:
                job.text = job.chunk.fit(restored.text)
                job.outputs = [output]
                return
            if job.best is None or restored.faults < job.best[0].faults:
                job.best = restored, protected, output

    def _parts(self, jobs: Sequence[_Job]) -> None:
        """Translate what stands between the spans, each stretch alone."""
        plans = [_between(job.chunk) for job in jobs]
        texts = [text for plan in plans for text, translated in plan if translated]
        queue = iter(self._translate(texts, 1) if texts else [])
        for job, plan in zip(jobs, plans, strict=True):
            text = ""
            for piece, translated in plan:
                if translated:
                    output = next(queue)[0]
                    job.outputs.append(output)
                    piece = _as_part(piece, output.text)
                text += piece
            job.text = job.chunk.fit(text)
            job.flags = ("parts",)


def merged(text: str, kept: Sequence[Kept], apart: frozenset[str] = frozenset()) -> list[Kept]:
    """Spans that touch one another, or with one space between, made one (but for the rules `apart`): fewer
    placeholders."""
    spans: list[Kept] = []
    for span in kept:
        alone = span.rule in apart or (bool(spans) and spans[-1].rule in apart)
        if spans and not alone and text[spans[-1].end : span.start] in ("", " "):
            spans[-1] = Kept(spans[-1].start, span.end, spans[-1].rule)
        else:
            spans.append(span)
    return spans


def _placed(job: _Job) -> bool:
    """Put what is missing where the links of the best output say."""
    if job.best is None or not job.best[2].links:
        return False
    _, protected, output = job.best
    restored = restore(place(output.text, protected, output.links), protected)
    if not restored.ok:
        return False
    job.text, job.flags, job.outputs = job.chunk.fit(restored.text), ("placed",), [output]
    return True


def _between(chunk: Chunk) -> list[tuple[str, bool]]:
    """Stretches of a text and whether to translate them; spaces and spans not."""
    pieces: list[tuple[str, bool]] = []
    done = 0
    for span in [*merged(chunk.text, chunk.kept), Kept(len(chunk.text), len(chunk.text), "")]:
        gap = chunk.text[done : span.start]
        start, end = words(gap)
        pieces += [(gap[:start], False), (gap[start:end], start < end), (gap[end:], False)]
        pieces.append((chunk.text[span.start : span.end], False))
        done = span.end
    return [piece for piece in pieces if piece[0]]


def _as_part(source: str, output: str) -> str:
    """An output without a closing mark that its source lacks: models close what looks like a sentence."""
    output = output.strip()
    return output if source[-1] in _END else output.rstrip(_END) or output


def _assemble(plan: Sequence[_Job | str]) -> Result:
    text = "".join(piece.text if isinstance(piece, _Job) else piece for piece in plan)
    jobs = [piece for piece in plan if isinstance(piece, _Job)]
    flags = dict.fromkeys(flag for job in jobs for flag in job.flags)
    return Result(text, tuple(flags), tuple(output for job in jobs for output in job.outputs))
