"""The blocks of Markdown: CommonMark 0.31 with GitHub's tables and task lists, front matter and display formulas.

Only what has words in it is given; all else is layout.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from mobilenmt.runtime.text.markup.embedded import BLOCK, SIGNED, TAG_ALONE

_DEEPEST = 100  # containers in one another; more are text
_THEMATIC = re.compile(r"(?:(?:-[ \t]*){3,}|(?:\*[ \t]*){3,}|(?:_[ \t]*){3,})\Z")
_ITEM = re.compile(r"(?:[-+*]|([0-9]{1,9})[.)])(?=[ \t]|\Z)")
_HEADING = re.compile(r"#{1,6}(?=[ \t]|\Z)")
_HEADING_END = re.compile(r"[ \t]#+[ \t]*\Z")
_FENCE = re.compile(r"(`{3,})[^`]*\Z|(~{3,})")
_SETEXT = re.compile(r"(?:=+|-+)[ \t]*\Z")
_TASK = re.compile(r"\[[ xX]\](?=[ \t])")
_NOTE = re.compile(r"\[\^[^\]\s]+\]:[ \t]*")
_DELIMITERS = re.compile(r"\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*\Z")
_DEFINITION = re.compile(
    r"\[((?:[^\[\]\\]|\\[\s\S]){1,999})\]:[ \t]*\n?[ \t]*(?:<(?:[^<>\n\\]|\\[^\n])*>|[^\s<]\S*)"
    r"(?:(?:[ \t]+|[ \t]*\n[ \t]*)(?:\"(?:[^\"\\]|\\[\s\S])*\"|'(?:[^'\\]|\\[\s\S])*'|\((?:[^()\\]|\\[\s\S])*\)))?"
    r"[ \t]*(?:\n|\Z)"
)
_BARE_DEFINITION = re.compile(
    r"\[((?:[^\[\]\\]|\\[\s\S]){1,999})\]:[ \t]*\n?[ \t]*(?:<(?:[^<>\n\\]|\\[^\n])*>|[^\s<]\S*)[ \t]*(?:\n|\Z)"
)


class Block(NamedTuple):
    """Words of a block."""

    kind: str
    """``paragraph``, ``heading``, ``cell``, or ``html``: HTML as it is."""
    lines: list[tuple[int, int]]
    """Where they stand in the source, without what is before them on each line."""


class _Item(NamedTuple):
    indent: int  # columns of a list item's content; -1: a quotation


def normal(label: str) -> str:
    """A link's label as it is compared."""
    return " ".join(label.split()).casefold()


class Blocks:
    """Takes a source apart, line by line."""

    def __init__(self, source: str) -> None:
        self.found: list[Block] = []
        self.labels: set[str] = set()
        """Of the links that are defined, `normal`."""
        self._source = source
        self._containers: list[_Item] = []
        self._paragraph: list[tuple[int, int]] = []
        self._fence: tuple[str, int] | None = None
        self._html: re.Pattern[str] | None = None
        self._in_html = False
        self._html_lines: list[tuple[int, int]] = []
        self._columns = 0  # of the table; 0: in none
        self._bare_item = 0  # how deep the item is that has no content so far; 0: it has, or there is none
        lines = _lines(source)
        for start, end in lines[self._front_matter(lines) :]:
            self._line(start, end)
        self._close_paragraph()
        self._close_html()

    def _front_matter(self, lines: list[tuple[int, int]]) -> int:
        """Give how many lines at the beginning are data, not Markdown."""
        if not lines:
            return 0
        first = self._source[lines[0][0] : lines[0][1]].lstrip("\ufeff").rstrip()
        if first in ("---", "+++"):
            for number, (start, end) in enumerate(lines[1:], 1):
                line = self._source[start:end].rstrip()
                if line == first or (line == "..." and first == "---"):
                    return number + 1
        return 0

    # one line

    def _line(self, start: int, end: int) -> None:
        source = self._source
        at, column = start, 0
        if start == 0 and source.startswith("\ufeff"):
            at = 1
        matched = 0
        for container in self._containers:
            following, there = self._skip_space(at, end, column)
            if container.indent < 0:
                if there - column > 3 or source[following : following + 1] != ">" or following >= end:
                    break
                at, column = self._behind_quote(following, there, end)
            elif following < end:
                if there - column < container.indent:
                    break
                self._bare_item = 0
                at, column = self._advance(at, column, container.indent)
            elif self._bare_item == matched + 1:
                break  # an item may begin with one empty line, not with two
            matched += 1
        whole = matched == len(self._containers)
        if self._fence is not None:
            if whole:
                self._in_fence(at, end, column)
                return
            self._fence = None
        if self._in_html:
            if whole and (self._html is not None or source[at:end].strip()):
                self._add_html(at, start, end)
                return
            self._close_html()
        kept = matched
        fresh = False
        while True:
            following, there = self._skip_space(at, end, column)
            rest = source[following:end]
            if not rest or there - column > 3 or kept >= _DEEPEST:
                break
            if rest[0] == ">":
                self._leave(kept)
                at, column = self._behind_quote(following, there, end)
                self._containers.append(_Item(-1))
            elif (item := _ITEM.match(rest)) and not _THEMATIC.match(rest):
                if self._paragraph and kept == len(self._containers):
                    if whole and _SETEXT.match(rest):
                        break
                    if not rest[item.end() :].strip() or (item.group(1) and int(item.group(1)) != 1):
                        break
                self._leave(kept)
                at, column = self._behind_item(following, there, end, column, item.end())
            else:
                break
            kept += 1
            fresh = True
        self._leaf(at, column, end, kept, fresh, start)

    def _leaf(self, at: int, column: int, end: int, kept: int, fresh: bool, start: int) -> None:
        following, there = self._skip_space(at, end, column)
        rest = self._source[following:end]
        whole = kept == len(self._containers)
        if not rest:
            self._leave(kept)
            self._close_paragraph()
            return
        if there - column > 3:
            if self._paragraph:
                self._continue(following, end)
            else:
                self._leave(kept)
            return
        if whole and self._paragraph and not fresh:
            if _DELIMITERS.match(rest) and (
                "|" in rest or ":" in rest or "|" in self._source[slice(*self._paragraph[-1])]
            ):
                head = self._paragraph[-1]
                cells = self._cells(*head)
                if len(cells) == rest.strip("| \t").count("|") + 1:
                    self._paragraph.pop()
                    self._close_paragraph()
                    self._table_row(cells, len(cells))
                    return
            if _SETEXT.match(rest):
                self._close_paragraph("heading")
                return
        fence = _FENCE.match(rest)
        heading = _HEADING.match(rest)
        if fence or heading or _THEMATIC.match(rest) or self._html_begins(rest) or self._formula(following, end):
            self._leave(kept)
            self._close_paragraph()
            if fence:
                self._fence = (fence.group(1) or fence.group(2), kept)
            elif heading:
                self._heading(following + heading.end(), end)
            elif rest.startswith("$$"):
                if not rest[2:].rstrip().endswith("$$"):
                    self._fence = ("$$", kept)
            elif not _THEMATIC.match(rest):
                self._begin_html(rest, at, start, end)
            return
        if self._columns and whole:
            self._table_row(self._cells(following, end), self._columns)
            return
        if self._paragraph:  # of this container, or going on lazily
            self._continue(following, end)
            return
        self._leave(kept)
        skipped = (_TASK if fresh and self._containers[-1].indent >= 0 else _NOTE).match(rest)
        if not skipped and fresh:
            skipped = _NOTE.match(rest)
        if skipped:
            following += skipped.end()
        if following < end:
            self._continue(following, end)

    def _continue(self, start: int, end: int) -> None:
        self._paragraph.append((start, end))

    def _leave(self, kept: int) -> None:
        """Close the containers beyond the first few, with what is in them."""
        self._close_paragraph()
        del self._containers[kept:]

    def _close_paragraph(self, kind: str = "paragraph") -> None:
        self._columns = 0
        lines, self._paragraph = self._paragraph, []
        if lines and self._source[lines[0][0]] == "[":
            lines = self._without_definitions(lines)
        if lines:
            self.found.append(Block(kind, lines))

    def _without_definitions(self, lines: list[tuple[int, int]]) -> list[tuple[int, int]]:
        text = "\n".join(self._source[start:end].rstrip() if start < end else "" for start, end in lines)
        at = 0
        while text.startswith("[", at) and not text.startswith("[^", at):
            match = _DEFINITION.match(text, at) or _BARE_DEFINITION.match(text, at)
            if match is None or not match.group(1).strip():
                break
            self.labels.add(normal(match.group(1)))
            at = match.end()
        return lines[text.count("\n", 0, at) + (at == len(text)) :]

    def _heading(self, start: int, end: int) -> None:
        start, _ = self._skip_space(start, end, 0)
        closing = _HEADING_END.search(self._source, start - 1, end)
        if closing:
            end = max(start, closing.start())
        if start < end:
            self.found.append(Block("heading", [(start, end)]))

    def _formula(self, at: int, end: int) -> bool:
        if not self._source.startswith("$$", at):
            return False
        return self._source[at + 2 : end].rstrip().endswith("$$") or self._source.find("$$", end) >= 0

    def _in_fence(self, at: int, end: int, column: int) -> None:
        assert self._fence is not None
        sign = self._fence[0]
        following, there = self._skip_space(at, end, column)
        line = self._source[following:end].rstrip()
        if sign == "$$":
            if line.endswith("$$"):
                self._fence = None
        elif there - column <= 3 and len(line) >= len(sign) and not line.strip(sign[0]):
            self._fence = None

    # HTML

    def _html_begins(self, rest: str) -> bool:
        if rest[0] != "<":
            return False
        if any(begin.match(rest) for begin, _ in SIGNED) or BLOCK.match(rest):
            return True
        return not self._paragraph and TAG_ALONE.match(rest) is not None

    def _begin_html(self, rest: str, at: int, start: int, end: int) -> None:
        self._html = next((close for begin, close in SIGNED if begin.match(rest)), None)
        self._in_html = True
        self._add_html(at, start, end)

    def _add_html(self, at: int, start: int, end: int) -> None:
        # Inside a quotation or a list its lines have something before them, which HTML must not see.
        self._html_lines.append((start, end) if not self._containers else (0, 0))
        if self._html is not None and self._html.search(self._source, at, end):
            self._close_html()

    def _close_html(self) -> None:
        lines, self._html_lines = self._html_lines, []
        if self._in_html and lines and lines[0][1]:
            self.found.append(Block("html", [(lines[0][0], lines[-1][1])]))
        self._in_html = False
        self._html = None

    # tables

    def _cells(self, start: int, end: int) -> list[tuple[int, int]]:
        source = self._source
        while end > start and source[end - 1] in " \t":
            end -= 1
        if source[start] == "|":
            start += 1
        cells = []
        at = start
        while at < end:
            if source[at] == "\\":
                at += 2
                continue
            if source[at] == "|":
                cells.append((start, at))
                start = at + 1
            at += 1
        if start < end or not cells:
            cells.append((start, end))
        return cells

    def _table_row(self, cells: list[tuple[int, int]], columns: int) -> None:
        for start, end in cells[:columns]:
            if self._source[start:end].strip():
                self.found.append(Block("cell", [(start, end)]))
        self._columns = columns

    # columns

    def _skip_space(self, at: int, end: int, column: int) -> tuple[int, int]:
        source = self._source
        while at < end and source[at] in " \t":
            column += 1 if source[at] == " " else 4 - column % 4
            at += 1
        return at, column

    def _advance(self, at: int, column: int, count: int) -> tuple[int, int]:
        """Go on by some columns of white space; a tab may be used up in part."""
        goal = column + count
        while column < goal and at < len(self._source):
            width = 1 if self._source[at] == " " else 4 - column % 4
            if column + width > goal:
                return at, goal
            column += width
            at += 1
        return at, column

    def _behind_quote(self, at: int, column: int, end: int) -> tuple[int, int]:
        at, column = at + 1, column + 1
        return self._advance(at, column, 1) if at < end and self._source[at] in " \t" else (at, column)

    def _behind_item(self, at: int, there: int, end: int, column: int, width: int) -> tuple[int, int]:
        at, marker_end = at + width, there + width
        following, content = self._skip_space(at, end, marker_end)
        space = content - marker_end
        if following >= end or space > 4:
            space = 1
        self._bare_item = len(self._containers) + 1 if following >= end else 0
        self._containers.append(_Item(marker_end + space - column))
        return self._advance(at, marker_end, space) if following < end else (following, content)


def _lines(source: str) -> list[tuple[int, int]]:
    found = []
    at = 0
    for match in re.finditer(r"\r\n|\n|\r", source):
        found.append((at, match.start()))
        at = match.end()
    if at < len(source):
        found.append((at, len(source)))
    return found
