"""Puts placeholders for kept spans into a text, and the spans back into its translation; says what went wrong.

Pure functions.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from mobilenmt.runtime.text.forms import Form
from mobilenmt.runtime.text.kept import Kept, Rules
from mobilenmt.runtime.text.letters import FEW, breaks_a_pair, is_runaway, is_wordless

_OPENING = "([{<⟨（［｛«‹„“‘\"'`»›"  # » and › open a quotation in German books
_CLOSING = ")]}>⟩）］｝»›”“’\"'`«‹"
_QUOTES = "\"'`“”„‟‘’‚‛«»‹›"
_MARKS = ".,;:!?…。，；：！？"
_DASHES = "-‐‑–—"
_SIGNS = frozenset("<>{}[]()$%_#@\\/=&|~^*+`⟦⟧«»‹›")
_NUMBER = re.compile("[0-9]{3}")
_FIGURES = re.compile("[0-9]+")
_NAME = re.compile("[A-Z]{2,}")
_TWICE = re.compile(r"^([,;:])\1+")
_TOKEN = re.compile(r"[^\W_]+|\s+|.", re.DOTALL)
_FARTHEST = 0.75
"""Of the letters of a sentence, how many a span may be moved by: German moves a verb to the end, and the beginning
behind it."""
_SHORT = 12  # letters: in so short a sentence, places tell nothing


class Mark(NamedTuple):
    """One kept span and what stands for it."""

    placeholder: str
    """The span itself where the model copies it."""
    text: str
    """The span."""
    start: int
    """Of the placeholder in the protected text."""
    before: str
    """The character that touches it on the left in the source; empty at the beginning."""
    after: str
    """Likewise on the right."""
    either: str = ""
    """Two characters that may stand for one another; only for a span that stands for itself."""
    spaced: bool = False
    """A space was put between it and the word it touches."""

    @property
    def end(self) -> int:
        """Behind the placeholder in the protected text."""
        return self.start + len(self.placeholder)


class Protected(NamedTuple):
    """A text with placeholders."""

    text: str
    marks: tuple[Mark, ...]


@dataclass(frozen=True)
class Restored:
    """A translation with the spans in it again; the lists hold indices of marks."""

    text: str
    missing: tuple[int, ...] = ()
    doubled: tuple[int, ...] = ()
    """Found more than once, or more often than in the source."""
    misplaced: tuple[int, ...] = ()
    """In another order, at another end of the sentence, or parted from the quote, bracket or letter that touched it."""
    leftover: bool = False
    """A piece of a placeholder, or half of a pair, is there that the source lacks; or far more became of a few words
    than they can mean, or nothing."""

    @property
    def ok(self) -> bool:
        """Every span is there once and in place."""
        return not (self.missing or self.doubled or self.misplaced or self.leftover)

    @property
    def faults(self) -> int:
        """How much went wrong, to choose among several."""
        return 3 * len(self.missing) + 2 * len(self.doubled) + len(self.misplaced) + 2 * self.leftover


def protect(
    text: str, kept: Sequence[Kept], form: Form, rules: Rules | None = None, copied: frozenset[str] = frozenset()
) -> Protected | None:
    """Put placeholders for spans into a text.

    Args:
        text: the source.
        kept: its spans, in order, none overlapping another.
        form: how placeholders look.
        rules: the rules that found them, for what they say of ``either``.
        copied: names of rules whose spans stay in the text: they are only looked for in the translation.

    Returns:
        None where the form has too few placeholders that the text does not hold itself.
    """
    free = _unused(form, text, sum(span.rule not in copied for span in kept))
    if free is None:
        return None
    parts: list[str] = []
    marks: list[Mark] = []
    done = length = 0
    for span in kept:
        body = span.written(text)
        gap = text[done : span.start]
        rule = rules.get(span.rule) if rules is not None else None
        stays = span.rule in copied
        spaced = rule is not None and rule.spaced and not stays
        if marks and marks[-1].spaced and (gap[:1].isalnum() or (not gap and stays)):
            gap = f" {gap}"
        if spaced and (gap[-1:].isalnum() or (not gap and marks and marks[-1].placeholder == marks[-1].text)):
            gap += " "
        parts.append(gap)
        length += len(gap)
        placeholder = body if stays else free.pop()
        either = rule.either if stays and rule is not None else ""
        before, after = text[max(0, span.start - 1) : span.start], text[span.end : span.end + 1]
        marks.append(Mark(placeholder, body, length, before, after, either, spaced))
        parts.append(placeholder)
        length += len(placeholder)
        done = span.end
    rest = text[done:]
    if marks and marks[-1].spaced and rest[:1].isalnum():
        rest = f" {rest}"
    return Protected("".join([*parts, rest]), tuple(marks))


def restore(output: str, protected: Protected) -> Restored:
    """Put the spans back into a translation of a protected text, with the space around them as in the source."""
    marks = protected.marks
    found, missing, doubled = _occurrences(output, marks)
    misplaced: set[int] = set()
    pieces: list[str] = []
    gaps: list[str] = []
    done = 0
    for start, end, index in found:
        gaps.append(output[done:start])
        pieces.append(output[start:end] if marks[index].either else marks[index].text)
        done = end
    gaps.append(output[done:])
    around, source = "\n".join(gaps), _around(protected)
    leftover = _is_leftover(around, source, protected) or breaks_a_pair(around, source)
    leftover = leftover or (len(source) <= FEW and is_runaway(around, source)) or is_wordless(around, source)
    misplaced.update(_out_of_order([index for _, _, index in found]))
    misplaced.update(_far_away(gaps, found, protected))
    text = ""
    for number, (_, _, index) in enumerate(found):
        mark, gap = marks[index], gaps[number]
        if number:
            last = found[number - 1][2]
            fitted = _fit_right(gap, marks[last], pieces[number])
            if fitted is None:
                misplaced.add(last)
            gap = gap if fitted is None else fitted
        fixed = _fit_left(text + gap, mark)
        if fixed is None:
            misplaced.add(index)
        text = (text + gap if fixed is None else fixed) + pieces[number]
    rest = gaps[-1]
    if found:
        last = found[-1][2]
        fitted = _fit_right(rest, marks[last], "")
        if fitted is None:
            misplaced.add(last)
        rest = rest if fitted is None else fitted
        if rest == "." and marks[last].text.endswith("."):
            rest = ""  # "at 5 p.m." at the end of a sentence
    return Restored(text + rest, tuple(missing), tuple(doubled), tuple(sorted(misplaced)), leftover)


# -- finding ----------------------------------------------------------------------------------------------------------


def _unused(form: Form, text: str, wanted: int) -> list[str] | None:
    """As many placeholders as wanted that the text does not hold, the last one first."""
    free: list[str] = []
    number = 0
    while len(free) < wanted:
        if isinstance(form, str):
            placeholder = form.replace("#", str(number))
        elif number < len(form):
            placeholder = form[number]
        else:
            return None
        number += 1
        if placeholder not in text:
            free.append(placeholder)
    return free[::-1]


def _occurrences(output: str, marks: Sequence[Mark]) -> tuple[list[tuple[int, int, int]], list[int], list[int]]:
    """Where each mark stands in an output (start, end, index of the mark), which are missing, which doubled.

    Longer ones are looked for first, and no place counts twice: 10 is not found inside 10:30.
    """
    same: dict[tuple[str, str], list[int]] = {}
    for index, mark in enumerate(marks):
        same.setdefault((mark.placeholder, mark.either), []).append(index)
    found: list[tuple[int, int, int]] = []
    missing: list[int] = []
    doubled: list[int] = []
    for (placeholder, either), indices in sorted(same.items(), key=lambda item: -len(item[0][0])):
        mark = marks[indices[0]]
        places = [
            (match.start(), match.end())
            for match in pattern(placeholder, either, mark.placeholder == mark.text).finditer(output)
            if _stands_alone(output, match.start(), match.end(), placeholder, mark)
            and not any(start < match.end() and match.start() < end for start, end, _ in found)
        ]
        found += [(*place, index) for place, index in zip(places, indices, strict=False)]
        missing += indices[len(places) :]
        if len(places) > len(indices):
            doubled.append(indices[-1])
    found.sort()
    return found, sorted(missing), sorted(doubled)


@lru_cache(1024)
def pattern(placeholder: str, either: str, exact: bool) -> re.Pattern[str]:
    """What a placeholder may come out as: other spaces, quotes, dashes and capitals; a span itself only as it is."""
    if exact:
        pattern = re.escape(placeholder)
        if either:
            pattern = re.sub(r"\\?[" + re.escape(either) + "]", f"[{re.escape(either)}]", pattern)
            pattern = pattern.replace(r"\ ", "[ \u00a0\u202f]")
        return re.compile(pattern)
    tokens = []
    for token in _TOKEN.findall(placeholder):
        if token.isspace():
            continue
        tokens.append(f"[{_QUOTES}]" if token in _QUOTES else f"[{_DASHES}]" if token in _DASHES else re.escape(token))
    return re.compile(" ?".join(tokens), re.IGNORECASE)


def _stands_alone(output: str, start: int, end: int, placeholder: str, mark: Mark) -> bool:
    """Whether what was found is no part of a longer word or number."""
    before, after = output[max(0, start - 1) : start], output[end : end + 1]
    if placeholder[0].isalnum() and before.isalnum() and not mark.before.isalnum():
        return False
    if not placeholder[-1].isalnum() or mark.after.isalnum():
        return True
    if after.isdigit() or (after.isalnum() and placeholder == mark.text):
        return False
    if placeholder[-1].isdigit() and placeholder == mark.text and after and after in ".,:":
        return not output[end + 1 : end + 2].isdigit() or mark.after == after
    return not after.isalnum() or output[end : end + 2].rstrip() == "s" or not output[end + 1 : end + 2].isalnum()


def _is_leftover(rest: str, source: str, protected: Protected) -> bool:
    """Whether an output without its placeholders shows a piece of one that the source lacks."""
    own = [mark.placeholder for mark in protected.marks if mark.placeholder != mark.text]
    if not own:
        return False
    for sign in _SIGNS.intersection("".join(own)):
        if rest.count(sign) > source.count(sign):
            return True
    if any(_NUMBER.search(item) for item in own) and not set(_FIGURES.findall(rest)) <= set(_FIGURES.findall(source)):
        return True  # a number that nobody wrote: a garbled placeholder
    names = {name for item in own for name in _NAME.findall(item)}
    return any(name in rest and name not in source for name in names)


def _around(protected: Protected) -> str:
    """The source without its placeholders."""
    source = protected.text
    for mark in reversed(protected.marks):
        source = f"{source[: mark.start]}\n{source[mark.end :]}"
    return source


# -- places -----------------------------------------------------------------------------------------------------------


def _out_of_order(indices: Sequence[int]) -> list[int]:
    return [index for place, index in enumerate(indices) if any(other > index for other in indices[:place])]


def _far_away(gaps: Sequence[str], found: Sequence[tuple[int, int, int]], protected: Protected) -> list[int]:
    """Marks that stand at quite another place, measured in letters that stand before them, of all letters."""
    before_source: list[int] = []
    count = done = 0
    for mark in protected.marks:
        count += _letters(protected.text[done : mark.start])
        before_source.append(count)
        done = mark.end
    source = count + _letters(protected.text[done:])
    target = sum(map(_letters, gaps))
    if source < _SHORT or target < _SHORT:
        return []
    far: list[int] = []
    count = 0
    for gap, (_, _, index) in zip(gaps, found, strict=False):
        count += _letters(gap)
        if abs(count / target - before_source[index] / source) > _FARTHEST:
            far.append(index)
    return far


def _letters(text: str) -> int:
    return sum(map(str.isalnum, text))


def _fit_left(left: str, mark: Mark) -> str | None:
    """The text left of a span, joined to it or parted from it as in the source; None where it cannot be."""
    last = left[-1:]
    before = mark.before
    if mark.spaced and before.isalnum():
        bare = left.rstrip()
        return bare if bare[-1:].isalnum() else None
    if not before or before.isspace():
        if last.isalnum() or (last and last in _MARKS + ")]}"):
            return left + " "
        return left
    return _joined(left, before, last, left.rstrip(), -1, _OPENING)


def _fit_right(right: str, mark: Mark, following: str) -> str | None:
    """Likewise the text on the right, up to the next span (``following`` or none)."""
    first = right[:1] or following[:1]
    after = mark.after
    if mark.spaced and after.isalnum():
        bare = right.lstrip()
        return bare if (bare or following)[:1].isalnum() else None
    if not after or after.isspace():
        return f" {right}" if first.isalnum() or (first and first in "([{") else right
    if after in _MARKS:
        bare = _TWICE.sub(r"\1", right.lstrip())
        if bare[:1] == after and bare[1:2] not in _MARKS:
            return bare
        return f" {right}" if first.isalnum() else right
    if after in "'’" and right[:1] != after and mark.before not in ("'", "‘", "‚"):  # a genitive, most of the time
        return right
    bare = right.lstrip()
    return "" if not bare and following[:1] == after else _joined(right, after, first, bare, 0, _CLOSING)


def _joined(text: str, wanted: str, there: str, bare: str, at: int, brackets: str) -> str | None:
    """The text if it touches the span with what touched it in the source; spaces that came between are taken out."""

    def fits(sign: str) -> bool:
        if not sign or sign == wanted:
            return bool(sign)
        if wanted in _QUOTES and wanted in brackets:
            return sign in _QUOTES
        if wanted in _DASHES:
            return sign in _DASHES or sign.isspace()
        return wanted.isalnum() and sign.isalnum()

    if fits(there):
        return text
    edge = bare[at:] if at < 0 else bare[:1]
    return bare if not wanted.isalnum() and fits(edge) else None
