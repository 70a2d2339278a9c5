"""Texts with markup: what a document is, and the way through one.

A format takes a text apart into layout, which is copied, and units, which are translated: plain text without markup,
and the marks (tags, emphasis, links) that were taken out of it. Rendering puts the marks back around the words that the
translation made of the words they stood around.

    document = parse(text, "html")
    results = [Result(translation, links) for unit in document.units]
    render(document, results)
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, cast

from mobilenmt.runtime.errors import InputError

#: Ending of a file -> its format.
ENDINGS = {
    ".htm": "html",
    ".html": "html",
    ".markdown": "markdown",
    ".md": "markdown",
    ".srt": "srt",
    ".txt": "text",
    ".vtt": "vtt",
    ".xhtml": "html",
}
FORMATS = ("html", "markdown", "srt", "text", "vtt")
_MODULES = {"html": "html", "markdown": "markdown", "srt": "subtitles", "text": "plain", "vtt": "subtitles"}

Link = tuple[int, int, int, int]
"""Characters of the source text [0, 1) became characters of the translation [2, 3): a word each, as a rule."""


@dataclass(frozen=True, slots=True)
class Mark:
    """Markup that was taken out of a unit: around words, or between them where `start` is `end`."""

    start: int
    end: int
    """Characters of the unit's text it stands around: never white space at either end."""
    open: str
    """Markup before them, as the source spells it."""
    close: str = ""
    parent: int = -1
    """The mark it stands in, as an index; -1: none. A parent comes before its children."""
    split: bool = False
    """Whether it may be written more than once, around words that do not stand together."""
    begun: bool = False
    """Opened before the unit: `open` is empty, and it reaches from the beginning of the unit."""
    unended: bool = False
    """Not closed in the unit: `close` is empty, and it reaches to the end of the unit."""
    kept: bool = False
    """Whether the words are copied: then `open` is all of it, the words included, as the source spells them."""


@dataclass(frozen=True, slots=True)
class Layout:
    """A stretch of the source that is copied as it is."""

    text: str


@dataclass(frozen=True, slots=True)
class Unit:
    """A stretch to be translated by itself: a paragraph, a cell, the sentences of some subtitles."""

    text: str
    """Without markup, entities decoded, white space collapsed."""
    marks: tuple[Mark, ...]
    raw: str
    """The stretch of the source. It is given back where the translation is the text itself."""
    spelling: Mapping[str, str] = field(default_factory=dict)
    """Characters that the source does not spell plainly, and how it does (``&nbsp;``)."""
    place: str = ""
    """What the unit is (``cell``), where the format must know to spell it."""

    @property
    def kept(self) -> list[tuple[int, int]]:
        """Stretches of the text that must come back as they are (code, what ``translate="no"`` says)."""
        return [(mark.start, mark.end) for mark in self.marks if mark.kept]


@dataclass(frozen=True, slots=True)
class Result:
    """A translation of a unit."""

    text: str
    links: Sequence[Link] = ()
    """Which words became which, in any order; empty: not known, so markup is placed in proportion."""


@dataclass(frozen=True, slots=True)
class Document:
    """A text, taken apart. The layouts and the `raw` of the units, in order, are the text."""

    format: str
    parts: tuple[Layout | Unit, ...]

    @property
    def units(self) -> list[Unit]:
        """What is to be translated, in order."""
        return [part for part in self.parts if isinstance(part, Unit)]


Translate = Callable[[Sequence[Unit]], Sequence[Result]]
"""Units to their translations, as many and in the same order."""
Progress = Callable[[int, int], None]
"""Called with how many units are done, and how many there are."""


class _Format(Protocol):
    def parse(self, text: str) -> Document: ...
    def render_unit(self, unit: Unit, result: Result) -> str: ...


def detect(filename: str) -> str:
    """Give the format of a file by the ending of its name, in any case.

    Raises:
        InputError: no format has this ending.
    """
    lowered = filename.lower()
    for ending, name in ENDINGS.items():
        if lowered.endswith(ending):
            return name
    raise InputError(
        f"the ending of {filename!r} is of no format known: name one of {', '.join(FORMATS)}, "
        f"or the file with one of {', '.join(sorted(ENDINGS))}"
    )


def _module(name: str) -> _Format:
    if name not in _MODULES:
        raise InputError(f"there is no format {name!r}: the formats are {', '.join(FORMATS)}")
    return cast("_Format", importlib.import_module(f"mobilenmt.runtime.text.markup.{_MODULES[name]}"))


def parse(text: str, format: str) -> Document:
    """Take a text apart. No text is refused: markup that is broken is read as browsers and Markdown readers do.

    Raises:
        InputError: there is no such format.
    """
    return _module(format).parse(text)


def render_unit(document: Document, unit: Unit, result: Result) -> str:
    """Give the markup and the words of a unit after its translation."""
    if result.text == unit.text:
        return unit.raw
    return _module(document.format).render_unit(unit, result)


def render(document: Document, results: Iterable[Result]) -> str:
    """Put a text together again, its units replaced by their translations.

    Raises:
        InputError: there are more or fewer results than units.
    """
    rest = iter(results)
    pieces = []
    for part in document.parts:
        if isinstance(part, Layout):
            pieces.append(part.text)
            continue
        result = next(rest, None)
        if result is None:
            raise InputError(f"fewer results than the {len(document.units)} units of the document")
        pieces.append(render_unit(document, part, result))
    if next(rest, None) is not None:
        raise InputError(f"more results than the {len(document.units)} units of the document")
    return "".join(pieces)


def stream_document(
    text: str, format: str, translate: Translate, *, batch: int = 64, progress: Progress | None = None
) -> Iterator[str]:
    """Translate a text with markup, and yield it in order as far as it is done.

    Args:
        text: all of the text.
        format: one of `FORMATS`.
        translate: is called with up to `batch` units at a time.
        batch: most units in a call, 1 or more.
        progress: is called before the first call of `translate` and after each. What it raises ends the work.

    Raises:
        InputError: there is no such format, `batch` is below 1, or `translate` gave more or fewer results than units.
    """
    if batch < 1:
        raise InputError(f"a batch must be at least 1 unit, not {batch}")
    document = parse(text, format)
    units = document.units
    if progress is not None:
        progress(0, len(units))
    results: list[Result] = []
    done = at = 0
    for part in document.parts:
        if isinstance(part, Layout):
            yield part.text
            continue
        if at == len(results):
            chunk = units[done : done + batch]
            results, at = list(translate(chunk)), 0
            if len(results) != len(chunk):
                raise InputError(f"{len(chunk)} units were to be translated, and {len(results)} results came back")
            done += len(chunk)
            if progress is not None:
                progress(done, len(units))
        yield render_unit(document, part, results[at])
        at += 1


def translate_document(
    text: str, format: str, translate: Translate, *, batch: int = 64, progress: Progress | None = None
) -> str:
    """Translate a text with markup: `stream_document`, put together."""
    return "".join(stream_document(text, format, translate, batch=batch, progress=progress))
