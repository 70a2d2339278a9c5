"""What stands before the words of a line: quoting, bullets, numbers (``rules/lines.json``); which lines are code
(``rules/code.json``); and which are plain: words, and nothing that a rule is for (``rules/plain.json``)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache, lru_cache
from typing import NamedTuple

from mobilenmt.runtime.text.data import filled, load
from mobilenmt.runtime.text.sentences import writes_ordinals

_ROWS = frozenset(";,/>›»)")
_LONGEST_ROW = 2000  # characters: what is longer is no row of a table


def marker_end(line: str, language: str = "") -> int:
    """Give where the words of a line begin: behind quoting, a bullet, the mark of a heading, a number.

    Args:
        line: a line without white space at its ends.
        language: code of its language: in some ``3.`` is an ordinal before the name of a month or a small letter.

    Returns:
        An offset; 0 if there is no such mark, or no letter or digit behind it.
    """
    first, second = line[:1], line[1:2]
    if first.isalpha() and second != ")" and not (first in "IVX" and second and second in "IVX"):
        return 0  # most lines; the rules are not even read
    rules = line_rules()
    found = rules.marker.match(line)
    if found is None:  # it matches the empty string too; this is for the type checker
        return 0
    end = found.end()
    if end == 0 or not (line[end : end + 1].isalnum() or any(c.isalnum() for c in line[end:])):
        return 0
    if found["number"] is not None and found["number"].rstrip(" \xa0").endswith(".") and writes_ordinals(language):
        behind = line[end : end + 24]
        following = next((behind[:at] for at in range(len(behind)) if not behind[at].isalpha()), behind).lower()
        if behind[0].islower() or behind[0].isdigit() or following in rules.months:
            return found.start("number")
    return end


def cells(line: str, language: str = "") -> Iterator[tuple[int, str]]:
    """Yield the columns of a line, without the bullet or number it begins with, and their offsets.

    Columns stand between tabs, between the bars of a table ("| a | b |", "a | b"), between commas or semicolons where
    some stand in quotes ('1,"red apple","3.50 EUR"'), or where one of the ``rows`` of ``rules/lines.json`` says so
    ("Name    Age", "1;Apple;3.50", "File > Save", "Yes/No"). The quotes are none of theirs. Of a key with its text in
    quotes, as files of messages have them ('"title": "The dog",'), the text is the only column.
    """
    begin = marker_end(line, language)
    if "\t" in line:
        yield from _parted(line, begin, "\t")
    elif "|" in line and (" | " in line or (line[0] == line[-1] == "|" and len(line) > 2)):
        yield from _parted(line, begin, "|")
    elif '"' in line and ('",' in line or ',"' in line or '";' in line or ';"' in line) and _is_record(line):
        yield from _columns(line)
    elif (line[-1] in "\"',;" or "=" in line) and (pair := line_rules().pair.fullmatch(line, begin)) is not None:
        yield pair.start(pair.lastindex or 0), pair[pair.lastindex or 0]
    else:
        yield from _row(line, begin)


def _is_record(line: str) -> bool:
    return line_rules().record.fullmatch(line) is not None


def _row(line: str, begin: int) -> Iterator[tuple[int, str]]:
    """The columns of a line without quotes; all of it is one in most lines."""
    sign = None
    if len(line) <= _LONGEST_ROW and ("   " in line or not _ROWS.isdisjoint(line)):
        rows = line_rules().rows
        sign = next((row.sign for row in rows if row.hint.search(line, begin) and row.of.fullmatch(line, begin)), None)
    if sign is not None:
        for found in sign.finditer(line, begin):
            yield begin, line[begin : found.start()]
            begin = found.end()
    yield begin, line[begin:]


def is_fence(line: str) -> bool:
    """Whether a line begins or ends a block of code: its language is no word to translate."""
    return line[:3] in ("```", "~~~") and line_rules().fence.fullmatch(line) is not None


def is_code(line: str) -> bool:
    """Whether a line, without white space at its ends, is all of a program, data or a dialogue with a shell, and beyond
    doubt: nothing of it is translated. A line of a file of messages is none, since its text is."""
    rules, longest = _code()
    if len(line) > longest:
        return False
    characters = frozenset(line)
    for signs, of in rules:
        if not (signs and signs.isdisjoint(characters)) and of.fullmatch(line) is not None:
            return line_rules().pair.fullmatch(line) is None
    return False


@cache
def _code() -> tuple[list[tuple[frozenset[str], re.Pattern[str]]], int]:
    found = load("code")
    rules = [(frozenset(item["signs"]), re.compile(filled(item["of"], found["sets"]))) for item in found["lines"]]
    return rules, found["longest"]


def _parted(line: str, begin: int, sign: str) -> Iterator[tuple[int, str]]:
    for cell in line[begin:].split(sign):
        yield begin, cell
        begin += len(cell) + 1


def _columns(line: str) -> Iterator[tuple[int, str]]:
    """The columns of a record: what stands in quotes, and what stands between separators outside of them."""
    begin = 0
    quoted = False
    for at, sign in enumerate(line):
        if sign == '"' or (not quoted and sign in ",;"):
            yield begin, line[begin:at]
            begin = at + 1
            quoted = quoted != (sign == '"')
    yield begin, line[begin:]


class Row(NamedTuple):
    """What parts the columns of some lines."""

    sign: re.Pattern[str]
    hint: re.Pattern[str]
    """Finds something in each of these lines, for little."""
    of: re.Pattern[str]
    """Matches all of these lines."""


class LineRules(NamedTuple):
    """``rules/lines.json``, ready for use."""

    marker: re.Pattern[str]
    months: frozenset[str]
    suspended: frozenset[str]
    record: re.Pattern[str]
    pair: re.Pattern[str]
    fence: re.Pattern[str]
    rows: tuple[Row, ...]


@lru_cache(maxsize=1)
def line_rules() -> LineRules:
    """The rules for lines."""
    found = load("lines")
    parts = [f"(?P<{name}>{found[name]})?" for name in ("stamp", "quote", "bullet", "box", "number")]
    months = frozenset(word for names in found["months"].values() for word in names.split())
    rows = [Row(*(re.compile(row[name]) for name in Row._fields)) for row in found["rows"]]
    marker, record, pair, fence = map(re.compile, ("".join(parts), found["record"], found["pair"], found["fence"]))
    return LineRules(marker, months, frozenset(found["suspended"].split()), record, pair, fence, tuple(rows))


def is_plain(line: str) -> bool:
    """Whether one look tells that a line is one sentence of which no rule changes anything, as most are.

    Folding, splitting, what is kept by the default rules and capitals leave such a line as it is, in every language, if
    the vocabulary has all of its characters. False says nothing: all the rules have to be asked then.
    """
    pattern, longest = _plain()
    return len(line) <= longest and pattern.fullmatch(line) is not None


@cache
def _plain() -> tuple[re.Pattern[str], int]:
    found = load("plain")
    return re.compile(found["pattern"]), found["longest"]
