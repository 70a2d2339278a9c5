"""What a text became, and how it is put together from its pieces."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mobilenmt.runtime.opening import Text
from mobilenmt.runtime.reader import Rendering
from mobilenmt.runtime.reading import Stretch, shared
from mobilenmt.runtime.text.fold import Folded
from mobilenmt.runtime.text.letters import long_words
from mobilenmt.runtime.text.placing import Link
from mobilenmt.runtime.text.segment import Piece, between


@dataclass(frozen=True)
class Sentence:
    """A stretch of a text that was translated for itself."""

    source: tuple[int, int]
    """Where it begins and ends in the source, in characters."""
    target: tuple[int, int]
    """Where its translation begins and ends in the output."""
    score: float
    """As :attr:`Translation.score`."""
    flags: tuple[str, ...] = ()
    """As :attr:`Translation.flags`."""
    confidence: float | None = None
    """Probability that the translation is good (a chrF of 30 or more, as the pack was calibrated); of several parts the
    least. None without ``details``, for a pack without calibration, and where the source was given back."""
    links: tuple[Link, ...] = ()
    """Words that translate one another, with ``details``: (source start, source end, target start, target end), in
    characters of the whole source and the whole translation. Words of which nothing is known have none."""

    def to_dict(self) -> dict[str, Any]:
        """The sentence as JSON types."""
        return {
            "source": list(self.source),
            "target": list(self.target),
            "score": _json_number(self.score),
            "flags": list(self.flags),
            "confidence": _json_number(self.confidence),
            "links": [list(link) for link in self.links],
        }


@dataclass(frozen=True)
class Translation:
    """What a text became."""

    text: str
    score: float
    """Sum of log-probabilities, ``</s>`` included, over (generated tokens)^length_penalty; 0 for layout alone."""
    tokens: tuple[str, ...] = ()
    """Pieces of the output, without special ones; what went through the model as a placeholder is one piece."""
    alternatives: tuple[Translation, ...] = ()
    """The other n_best - 1 translations, best first, each another text; fewer where there are no more. Where a text has
    several sentences, the second is made of the second best of each, and so on; one with fewer stays at its last."""
    flags: tuple[str, ...] = ()
    """What happened on the way: ``split`` (a sentence longer than the model's positions), ``retried`` (a loop, a
    runaway, what was too short or lost a bracket was translated again with a beam), ``cut`` (its repetition was cut),
    ``short`` (still too short for its source), ``unpaired`` (still without a bracket or quote), ``kept`` (a stretch was
    given back as it was), ``placed`` (something kept was put where the alignment of words says), ``parts`` (a sentence
    was translated in parts around it), ``truncated`` (the length limit ended it)."""
    sentences: tuple[Sentence, ...] = ()
    """The sentences, in order."""

    def to_dict(self) -> dict[str, Any]:
        """The translation as JSON types."""
        return {
            "text": self.text,
            "score": _json_number(self.score),
            "tokens": list(self.tokens),
            "alternatives": [item.to_dict() for item in self.alternatives],
            "flags": list(self.flags),
            "sentences": [item.to_dict() for item in self.sentences],
        }


def _json_number(value: float | None) -> float | None:
    """JSON has no infinity, which is the score where nothing was allowed to come next, and no NaN."""
    return value if value is not None and math.isfinite(value) else None


def assemble(
    plan: Sequence[Piece], found: Sequence[Sequence[Rendering]], n_best: int, penalty: float, tokenizer: Text | None
) -> Translation:
    """Put segments and layout together again, for each of the n best.

    A segment with fewer alternatives than another stays at its last.

    Args:
        plan: the pieces of the text.
        found: renderings of each piece that holds words, best first.
        n_best: translations wanted.
        penalty: exponent of the length in scores.
        tokenizer: names tokens; None where they are not wanted.
    """
    count = min(n_best, max((len(renderings) for renderings in found), default=1))
    ranked = [
        _join(plan, [renderings[min(rank, len(renderings) - 1)] for renderings in found], penalty, tokenizer)
        for rank in range(count)
    ]
    return replace(ranked[0], alternatives=tuple(ranked[1:])) if count > 1 else ranked[0]


def documents(
    texts: Sequence[str],
    form: str,
    translate: Callable[[list[Stretch]], list[tuple[list[Piece], list[list[Rendering]]]]],
    fold: Callable[[str], Folded],
    penalty: float,
    namer: Text | None,
) -> list[Translation]:
    """Translate texts with markup: their units are texts, and links say where the marks in them go.

    Args:
        texts: whole documents.
        form: their format.
        translate: the pieces of each of some texts, and what became of their words.
        fold: folds a text.
        penalty: exponent of the length in scores.
        namer: names tokens; None where they are not wanted.
    """
    from mobilenmt.runtime.text.markup.document import Result, parse, render
    from mobilenmt.runtime.text.markup.keeping import kept_words

    parsed = [parse(text, form) for text in texts]
    units = [unit for document in parsed for unit in document.units]
    stretches = [Stretch(unit.text, kept_words(unit, fold), bool(unit.marks)) for unit in units]
    queue = iter(translate(shared(stretches, lambda text: fold(text).text)))
    translations = []
    for document in parsed:
        found = [next(queue) for _ in document.units]
        parts = [assemble(plan, renderings, 1, penalty, namer) for plan, renderings in found]
        results = [Result(text.text, [link for item in text.sentences for link in item.links]) for text in parts]
        first = [items[0] for _, renderings in found for items in renderings]
        translations.append(_combined(render(document, results), parts, first, penalty))
    return translations


def _combined(text: str, units: Sequence[Translation], renderings: Sequence[Rendering], penalty: float) -> Translation:
    """The translation of a document: its sentences are not listed, since they stand between markup."""
    flags = dict.fromkeys(flag for unit in units for flag in unit.flags)
    tokens = tuple(token for unit in units for token in unit.tokens)
    return Translation(text, combined_score(renderings, penalty), tokens, (), tuple(flags))


def _join(
    plan: Sequence[Piece], renderings: Sequence[Rendering], penalty: float, tokenizer: Text | None
) -> Translation:
    if len(plan) == len(renderings) == 1:  # one sentence and nothing around it: the usual case, and quick
        (piece,), (only,) = plan, renderings
        marks, score = (("split",) if piece.cut else ()) + only.flags, combined_score(renderings, penalty)
        sentence = Sentence((0, len(piece.text)), (0, len(only.text)), score, marks, only.confidence, only.links)
        return Translation(
            only.text, score, _tokens(renderings, tokenizer), (), tuple(dict.fromkeys(marks)), (sentence,)
        )
    parts: list[str] = []
    sentences = []
    length = 0
    for piece, text, rendering in _texts(plan, renderings):
        if rendering is not None:
            end = length + len(text)
            source = piece.start, piece.start + len(piece.text)
            flags = (("split",) if piece.cut else ()) + rendering.flags
            links, at = rendering.links, piece.start
            if at or length:
                links = tuple([(a + at, b + at, c + length, d + length) for a, b, c, d in links])
            score = combined_score([rendering], penalty)
            sentences.append(Sentence(source, (length, end), score, flags, rendering.confidence, links))
        parts.append(text)
        length += len(text)
    found = dict.fromkeys(flag for sentence in sentences for flag in sentence.flags)
    if any(piece.ids is None and long_words(piece.text) for piece in plan):
        found["kept"] = None
    score = combined_score(renderings, penalty)
    return Translation("".join(parts), score, _tokens(renderings, tokenizer), (), tuple(found), tuple(sentences))


def _tokens(renderings: Sequence[Rendering], tokenizer: Text | None) -> tuple[str, ...]:
    """The pieces of what is shown; none where nobody wants them."""
    if tokenizer is None:
        return ()
    return tuple([piece for item in renderings for piece in _pieces(item, tokenizer)])


def _texts(plan: Sequence[Piece], renderings: Sequence[Rendering]) -> Iterator[tuple[Piece, str, Rendering | None]]:
    """Yield each piece with what becomes of it, and the spaces that sentences need between them."""
    queue = iter(renderings)
    before: Piece | None = None
    last = ""
    for piece in plan:
        rendering = None if piece.ids is None else next(queue)
        text = piece.text if rendering is None else rendering.text
        if space := between(before, piece, last):
            yield piece, space, None
        yield piece, text, rendering
        before, last = piece, text


def combined_score(renderings: Sequence[Rendering], penalty: float) -> float:
    """The score of several outputs as if they were one: the sum of their sums over the power of all their tokens."""
    outputs = [output for item in renderings for output in item.outputs]
    if len(outputs) == 1:
        return outputs[0].score
    total = sum(output.score * output.generated**penalty for output in outputs)
    count = sum(output.generated for output in outputs)
    return float(total / count**penalty) if count else 0.0


def _pieces(rendering: Rendering, tokenizer: Text) -> list[str]:
    """Pieces of the outputs that are shown; what was kept is one piece."""
    if not any(rendering.marks):
        return [piece for output in rendering.shown for piece in tokenizer.pieces(output.ids)]
    found = []
    for output, marks in zip(rendering.outputs, rendering.marks, strict=True):
        found += spelled(tokenizer.pieces(output.ids), marks) if "kept" not in output.flags else []
    return found


def spelled(pieces: Sequence[str], marks: Sequence[tuple[str, str]]) -> list[str]:
    """Pieces of an output with what placeholders stand for in their place, each as one piece.

    Args:
        pieces: as the tokenizer names them, ``▁`` for a space.
        marks: placeholders and what stands for them.
    """
    wanted = sorted({mark for mark in marks if mark[0] != mark[1]}, key=lambda mark: -len(mark[0]))
    if not wanted:
        return list(pieces)
    from mobilenmt.runtime.text.placeholders import pattern  # not before: most calls need none of it

    text = "".join(pieces).replace("▁", " ")
    found: list[tuple[int, int, str]] = []
    for placeholder, kept in wanted:
        for match in pattern(placeholder, "", False).finditer(text):
            if all(match.end() <= start or end <= match.start() for start, end, _ in found):
                found.append((*match.span(), kept))
    shown: list[str] = []
    queue = sorted(found)[::-1]
    at = done = 0  # where the next piece begins, and how far all is told
    for piece in pieces:
        end = at + len(piece)
        while queue and queue[-1][0] < end:
            start, stop, kept = queue.pop()
            before = piece[max(done, at) - at : start - at]
            if before.strip("▁"):
                shown.append(before)
                before = ""
            shown.append(before + kept)
            done = stop
        if done < end:
            shown.append(piece[max(done, at) - at :])
        at = end
    return shown
