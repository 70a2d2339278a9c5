"""Collects a unit: plain text as it is read, and the marks in it, nested as they must be.

Tags that cross (``<b>one <i>two</b> three</i>``) are taken as browsers take them: what is still open inside a closed
element is closed with it, and emphasis is opened again behind it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from mobilenmt.runtime.text.markup.document import Layout, Mark, Unit
from mobilenmt.runtime.text.markup.entities import UNKNOWN

_SPACE = " \t\n\f\r"
_RUNS = re.compile(f"[{_SPACE}]+")
#: Deepest nesting in a unit. A tag beyond that ends the unit, and is layout: every text gets through, however deep.
DEEPEST = 24
_NOWHERE = 1 << 60
#: Most elements that are opened again behind a closed one.
_REVIVED = 8


@dataclass(slots=True, eq=False)
class _Node:
    name: str
    start: int
    end: int
    open: str
    at: int  # where its markup begins in the source
    until: int = 0  # and ends, as far as it is there
    close: str = ""
    formatting: bool = False
    split: bool = False
    begun: bool = False
    unended: bool = False
    kept: bool = False
    spaced: bool = False  # white space stood before it
    revived: bool = False  # not in the source: opened again
    children: list[_Node] = field(default_factory=list)


class Built(NamedTuple):
    """What was collected: layout, a unit if there are words, layout."""

    before: str
    unit: Unit | None
    behind: str

    def parts(self) -> list[Layout | Unit]:
        """Give what is not empty."""
        parts: list[Layout | Unit] = [Layout(self.before)] if self.before else []
        if self.unit is not None:
            parts.append(self.unit)
        return [*parts, Layout(self.behind)] if self.behind else parts


class Builder:
    """Collects one unit after the other of a source; `finish` gives one and begins the next."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._outer: dict[str, int] = {}  # elements opened in earlier units, by name
        self.begin(0)

    def begin(self, at: int) -> None:
        """Begin a unit at source[at]."""
        self._from = at
        self._text: list[str] = []
        self._length = 0
        self._space = False  # white space was read since the last word or mark
        self._roots: list[_Node] = []
        self._open: list[_Node] = []
        self._open_names: dict[str, int] = {}
        self._revive: list[_Node] = []
        self._begun = 0
        self.spelling: dict[str, str] = {}
        """How characters of the unit are spelled, where not plainly."""
        self.place = ""
        self._first = self._last = -1  # the first character that is no space, and behind the last, in the source
        self._point: _Node | None = None  # had a space before it; another one behind it belongs to it

    @property
    def full(self) -> bool:
        """Whether the next tag must end the unit."""
        return len(self._open) + self._begun >= DEEPEST

    @property
    def empty(self) -> bool:
        """Whether no words have been read."""
        return not self._length

    def text(self, text: str, start: int, end: int) -> None:
        """Read some text, which is source[start:end] to the letter, or is spelled so."""
        exact = len(text) == end - start
        if not self._length:
            blank = len(text) - len(text.lstrip())
            if blank and self._point is not None:
                self._read_space(start, start + blank if exact else end)
            text = text[blank:]
            start = start + blank if exact else start
        inside = text.strip(_SPACE)
        if not inside:
            self._read_space(start, end)
            return
        lead = len(text) - len(text.lstrip(_SPACE))
        if lead:
            self._read_space(start, start + lead)
        visible = len(text.rstrip())
        if visible:
            self._word(start + lead if exact else start, start + visible if exact else end)
        self._add(_RUNS.sub(" ", inside))
        if lead + len(inside) < len(text):
            self._read_space(start + lead + len(inside), end)

    def spelled(self, text: str, at: int, found: Iterable[tuple[int, int, str]]) -> None:
        """Read a text with references, which begins at source[at]; those to no character are kept as they are."""
        done = 0
        for start, end, characters in found:
            if done < start:
                self.text(text[done:start], at + done, at + start)
            if characters == UNKNOWN:
                self.kept(text[start:end], text[start:end], at + start)
            else:
                self.text(characters, at + start, at + end)
                self.spelling.setdefault(characters, text[start:end])
            done = end
        if done < len(text):
            self.text(text[done:], at + done, at + len(text))

    def space(self, behind_mark: str = "") -> None:
        """Read what parts words though no white space is there, a line break; and how a mark before it spells that."""
        if self._point is None:
            self._space = True
        else:
            self._point.open += behind_mark

    def _read_space(self, start: int, end: int) -> None:
        if self._point is not None:
            self._point.open += self._source[start:end]
            self._point.until = end
        else:
            self._bring_back(start)
            self._space = True

    def _word(self, start: int, end: int) -> None:
        self._bring_back(start)
        self._point = None
        if self._first < 0:
            self._first = start
        self._last = end

    def _add(self, text: str) -> None:
        if self._space and self._length and not self._text[-1].endswith(" "):
            text = " " + text
        self._space = False
        self._text.append(text)
        self._length += len(text)

    def _bring_back(self, at: int) -> None:
        revive, self._revive = self._revive[-_REVIVED:], []
        for old in revive:
            if not self.full:
                self._push(
                    _Node(old.name, self._length, -1, old.open, at, formatting=True, split=old.split, revived=True)
                )

    def _push(self, node: _Node) -> None:
        (self._open[-1].children if self._open else self._roots).append(node)
        self._open.append(node)
        self._open_names[node.name] = self._open_names.get(node.name, 0) + 1

    def _pop(self) -> _Node:
        node = self._open.pop()
        self._open_names[node.name] -= 1
        node.end = self._length
        return node

    @property
    def spaced(self) -> bool:
        """Whether nothing was read, or white space after the last word."""
        return self._space or not self._length

    def is_open(self, name: str) -> bool:
        """Whether an element of this name is open in the unit."""
        return self._open_names.get(name, 0) > 0

    def open(self, name: str, raw: str, at: int, *, formatting: bool = False, split: bool = False) -> None:
        """Read a tag that opens an element. Call `finish` first if `full`."""
        self._bring_back(at)
        self._point = None
        self._push(
            _Node(
                name, self._length, -1, raw, at, at + len(raw), formatting=formatting, split=split, spaced=self._space
            )
        )

    def close(self, name: str, raw: str, at: int, until: int | None = None) -> None:
        """Read a tag that closes the last open element of this name, if there is one; it ends at source[until]."""
        self._point = None
        revived = next((node for node in reversed(self._revive) if node.name == name), None)
        if revived is not None:
            self._revive.remove(revived)
        elif self.is_open(name):
            self._unwind(name)
            node = self._pop()
            node.close, node.until = raw, at + len(raw) if until is None else until
        elif self._outer.get(name, 0):
            self._outer[name] -= 1
            self._unwind(None)
            node = _Node(name, 0, self._length, "", at, at + len(raw), close=raw, begun=True, children=self._roots)
            self._roots = [node]
            self._begun += 1
        else:
            self.point(raw, at)

    def _unwind(self, name: str | None) -> None:
        closed = []
        while self._open and self._open[-1].name != name:
            node = self._pop()
            node.close = f"</{node.name}>"
            if node.formatting:
                closed.append(node)
        self._revive = (self._revive + closed[::-1])[-_REVIVED:]

    def point(self, raw: str, at: int) -> None:
        """Read markup without words: a tag that stands alone, a comment."""
        node = _Node("", self._length, self._length, raw, at, at + len(raw))
        (self._open[-1].children if self._open else self._roots).append(node)
        ends_in_space = self._length > 0 and self._text[-1].endswith(" ")
        if self._space and self._length and not ends_in_space:
            self._text.append(" ")
            self._length += 1
            ends_in_space = True
        if ends_in_space or not self._length:
            node.start = node.end = self._length
            self._point = node
            self._space = False

    def kept(self, text: str, raw: str, at: int) -> None:
        """Read words that are copied, spelled `raw`, markup and all."""
        shown = " ".join(text.split())
        if not shown:
            self.point(raw, at)
            return
        self._word(at, at + len(raw))
        self._add(shown)
        node = _Node("", self._length - len(shown), self._length, raw, at, at + len(raw), kept=True)
        (self._open[-1].children if self._open else self._roots).append(node)

    def finish(self, end: int) -> Built:
        """Give all that was read, up to source[end], and begin the next unit there."""
        self._bring_back(_NOWHERE)
        for node in self._open:
            self._outer[node.name] = self._outer.get(node.name, 0) + 1
        while self._open:
            self._pop().unended = True
        text = "".join(self._text).rstrip()
        built = Built(self._source[self._from : end], None, "")
        if any(map(str.isalpha, text)):
            built = self._build(text, self._from, end)
        self.begin(end)
        return built

    def _build(self, text: str, start: int, end: int) -> Built:
        for node in self._roots:
            _tidy(node, text)
        roots = [node for node in self._roots if not _needless(node)]
        while True:  # what stands before all words, behind all, or around all, is layout
            roots = [
                node for node in roots if node.end > 0 and (node.start < len(text) or (node.revived and node.unended))
            ]
            if len(roots) != 1 or roots[0].kept or roots[0].start > 0 or roots[0].end < len(text):
                break
            roots = roots[0].children
        if len(roots) == 1 and roots[0].kept and roots[0].start == 0 and roots[0].end == len(text):
            return Built(self._source[start:end], None, "")
        first, last = self._first, self._last
        marks: list[Mark] = []
        todo = [(node, -1) for node in reversed(roots)]
        while todo:
            node, parent = todo.pop()
            first, last = first if node.begun else min(first, node.at), max(last, node.until)
            todo.extend((child, len(marks)) for child in reversed(node.children))
            marks.append(
                Mark(
                    node.start, node.end, node.open, node.close, parent, node.split, node.begun, node.unended, node.kept
                )
            )
        unit = Unit(text, tuple(marks), self._source[first:last], self.spelling, self.place)
        return Built(self._source[start:first], unit, self._source[last:end])


def _tidy(node: _Node, text: str) -> None:
    """Draw the ends of a mark to its words, and let one without words stand where its first mark does."""
    for child in node.children:
        _tidy(child, text)
    node.children = [child for child in node.children if not _needless(child)]
    node.end = min(node.end, len(text))
    start = min(node.start, node.end)
    while start < node.end and text[start].isspace():
        start += 1
    while start < node.end and text[node.end - 1].isspace():
        node.end -= 1
    if start == node.end:
        start = min(node.children[0].start if node.children else node.start, len(text))
        if node.spaced and not node.children and text[start : start + 1] == " ":
            start += 1
        node.end = start
    node.start = start
    fixed = node.begun or node.unended
    node.split = (
        node.split
        and not fixed
        and all(child.split or child.kept or child.start == child.end for child in node.children)
    )


def _needless(node: _Node) -> bool:
    return node.revived and not node.unended and node.start == node.end and not node.children
