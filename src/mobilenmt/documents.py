"""Whole files of text with markup, and files of terms, for the command line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mobilenmt.lines import MARKS, Source, open_input, open_output
from mobilenmt.runtime.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mobilenmt.runtime.text.glossary import Glossary
    from mobilenmt.runtime.text.kept import Rules


def find_format(format: str | None, input: Path | None) -> str:
    """The format that was named, else that of a file's ending, else plain text.

    Raises:
        InputError: there is no format of that name.
    """
    if format is None and (input is None or not input.suffix):
        return "text"
    from mobilenmt.runtime.text.markup.document import ENDINGS, FORMATS

    if format is None:
        return ENDINGS.get(str(input.suffix).lower(), "text") if input is not None else "text"
    if format not in FORMATS:
        raise InputError(f"--format: there is no {format!r}; the formats are {', '.join(FORMATS)}")
    return format


def translate_file(
    input: Path | None, output: Path | None, encoding: str | None, translate: Callable[[str], str]
) -> None:
    """Translate a file as a whole; it comes out with the line ends, the encoding and the byte order mark it had."""
    with open_input(input, encoding) as source:
        text = read_whole(source)
    found = translate(text)
    mark = "\ufeff" if encoding is None and source.encoding in [name for _, name in MARKS] else ""
    with open_output(output, encoding or source.encoding) as sink:
        sink.write(mark + found)


def read_whole(source: Source) -> str:
    """All of a text."""
    return source.decode(b"".join(source.blocks()))


def read_glossary(path: Path, source_language: str | None, encoding: str | None) -> Glossary:
    """Read ``source<TAB>target`` lines.

    Raises:
        InputError: a line is something else; the message names file and line.
    """
    from mobilenmt.runtime.text.glossary import Glossary

    with open_input(path, encoding) as source:
        lines = read_whole(source).removeprefix("\ufeff").split("\n")
    try:
        return Glossary.from_lines(lines, source_language or "en")
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def read_rules(keep: Sequence[str], without: Sequence[str]) -> Rules | None:
    """The rules of what is kept, with ``NAME=REGEX`` ones before them and without those named; None for the usual ones.

    Raises:
        InputError: there is no rule of a name, or something is no rule.
    """
    if not keep and not without:
        return None
    from mobilenmt.runtime.text.kept import default_rules

    try:
        rules = default_rules().without(*without)
    except InputError as error:
        raise InputError(f"--no-keep: {error}") from None
    for item in keep:
        name, equals, pattern = item.partition("=")
        if not equals or not pattern:
            raise InputError(f"--keep: expected NAME=REGEX, found {item!r}")
        try:
            rules = rules.adding(name, pattern)
        except InputError as error:
            raise InputError(f"--keep {item!r}: {error}") from None
    return rules
