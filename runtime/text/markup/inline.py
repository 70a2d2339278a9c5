"""Inside a block of Markdown: emphasis, links, code, HTML, as CommonMark 0.31 reads them. Linear in the text."""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left
from dataclasses import dataclass, field
from typing import NamedTuple

from mobilenmt.runtime.text.markup.blocks import normal
from mobilenmt.runtime.text.markup.embedded import TAG
from mobilenmt.runtime.text.markup.entities import UNKNOWN, references

_PUNCTUATION = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"
_SPECIAL = re.compile(r"[\\`*_~\[\]!<&\n$]")
_AUTOLINK = re.compile(
    r"<(?:[A-Za-z][A-Za-z0-9+.-]{1,31}:[^\s<>]*|[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*)>"
)
_DESTINATION = re.compile(r"[ \t\n]*(?:<((?:[^<>\n\\]|\\[^\n])*)>)?")
_TITLE = re.compile(r"[ \t\n]+(?:\"(?:[^\"\\]|\\[\s\S])*\"|'(?:[^'\\]|\\[\s\S])*'|\((?:[^()\\]|\\[\s\S])*\))")
_SPACE = re.compile(r"[ \t\n]*")
_LABEL = re.compile(r"\[((?:[^\[\]\\]|\\[\s\S]){0,999})\]")
_NOTE = re.compile(r"\[\^[^\]\s]+\]")
_FORMULA = re.compile(r"(\${1,2})(?![\s$])(?:[^$\\\n]|\\.)*?(?<![\s\\])\1(?![0-9$])")
_COMMENT_LIKE = (("<!--", "-->"), ("<?", "?>"), ("<![CDATA[", "]]>"), ("<!", ">"))


class Inline(NamedTuple):
    """A stretch of a block's text."""

    kind: str
    """``text``, ``open``, ``close``, ``point``, ``kept``, ``break`` (a line break that shows), ``line`` (one that does
    not), ``tag`` (HTML)."""
    start: int
    end: int
    text: str = ""
    """What is shown: of text, of what is kept."""
    name: str = ""
    markup: str = ""
    """Where it isn't what stands there: a link's end whose label was its text."""


@dataclass(slots=True)
class _Run:
    """A run of one delimiter, of which part may be used up."""

    node: int
    sign: str
    start: int
    end: int
    length: int
    opens: bool
    closes: bool
    ended: list[Inline] = field(default_factory=list)  # before what is left of it
    begun: list[Inline] = field(default_factory=list)  # behind it, the last first


@dataclass(slots=True)
class _Bracket:
    node: int
    start: int
    image: bool
    runs: int  # delimiter runs before it


def inlines(text: str, labels: set[str]) -> list[Inline]:
    """Take the text of a block apart, its lines joined by line feeds.

    Args:
        text: without the white space at both ends of its lines, but for two spaces that make a break.
        labels: of the links that are defined in the document, `normal`.
    """
    return _Reader(text, labels).read()


class _Reader:
    def __init__(self, text: str, labels: set[str]) -> None:
        self._text = text
        self._labels = labels
        self._found: list[Inline] = []
        self._used: dict[int, _Run] = {}  # delimiter runs that became emphasis, by their place
        self._runs: list[_Run] = []
        self._brackets: list[_Bracket] = []
        self._inactive = 0  # brackets before this may open no link: there is one in them
        self._ticks: dict[int, list[int]] | None = None
        self._lacking: set[str] = set()  # ends that come no more

    def read(self) -> list[Inline]:
        text = self._text
        entities = {start: (end, shown) for start, end, shown in references(text, strict=True)} if "&" in text else {}
        at = 0
        while at < len(text):
            match = _SPECIAL.search(text, at)
            stop = match.start() if match else len(text)
            if stop > at:
                self._add(Inline("text", at, stop, text[at:stop]))
            if match is None:
                break
            sign = text[stop]
            if sign == "&" and stop in entities:
                at, shown = entities[stop]
                spelled = text[stop:at]
                self._add(Inline("kept", stop, at, spelled) if shown == UNKNOWN else Inline("text", stop, at, shown))
            else:
                at = self._special(sign, stop)
        self._emphasis(0)
        found: list[Inline] = []
        for node, inline in enumerate(self._found):
            run = self._used.get(node)
            found.extend((*run.ended, inline, *reversed(run.begun)) if run else (inline,))
        return found

    def _add(self, inline: Inline) -> int:
        self._found.append(inline)
        return len(self._found) - 1

    def _plain(self, start: int, end: int) -> int:
        self._add(Inline("text", start, end, self._text[start:end]))
        return end

    def _special(self, sign: str, at: int) -> int:
        """Read what begins with a sign, and give where it ends."""
        text = self._text
        if sign == "\\":
            following = text[at + 1 : at + 2]
            if following == "\n":
                return self._line_end(at, at + 2, "break")
            if following and following in _PUNCTUATION:
                self._add(Inline("text", at, at + 2, following))
                return at + 2
            return self._plain(at, at + 1)
        if sign == "\n":
            return self._line_feed(at)
        if sign == "`":
            return self._code(at)
        if sign in "*_~":
            return self._delimiters(sign, at)
        if sign == "!" and text.startswith("![", at):
            self._brackets.append(_Bracket(self._add(Inline("text", at, at + 2, "![")), at, True, len(self._runs)))
            return at + 2
        if sign == "[":
            note = _NOTE.match(text, at)
            if note:
                self._add(Inline("point", at, note.end()))
                return note.end()
            self._brackets.append(_Bracket(self._add(Inline("text", at, at + 1, "[")), at, False, len(self._runs)))
            return at + 1
        if sign == "]":
            return self._close_bracket(at)
        if sign == "<":
            return self._angle(at)
        if sign == "$":
            match = _FORMULA.match(text, at)
            if match:
                self._add(Inline("kept", at, match.end(), match.group()))
                return match.end()
        return self._plain(at, at + 1)

    def _line_feed(self, at: int) -> int:
        before = self._found[-1] if self._found else None
        if before and before.kind == "text" and before.text.endswith("  "):
            shown = before.text.rstrip(" ")
            start = before.end - (len(before.text) - len(shown))
            self._found[-1] = before._replace(text=shown, end=start)
            return self._line_end(start, at + 1, "break")
        return self._line_end(at, at + 1, "line")

    def _line_end(self, start: int, end: int, kind: str) -> int:
        self._add(Inline(kind, start, end))
        return end

    def _code(self, at: int) -> int:
        text = self._text
        end = at
        while end < len(text) and text[end] == "`":
            end += 1
        if self._ticks is None:
            self._ticks = {}
            for match in re.finditer("`+", text):
                self._ticks.setdefault(len(match.group()), []).append(match.start())
        places = self._ticks.get(end - at, [])
        n = bisect_left(places, end)
        if n == len(places):
            return self._plain(at, end)
        stop = places[n]
        self._add(Inline("kept", at, stop + end - at, text[end:stop].strip()))
        return stop + end - at

    def _angle(self, at: int) -> int:
        text = self._text
        match = _AUTOLINK.match(text, at)
        if match:
            self._add(Inline("kept", at, match.end(), match.group()[1:-1]))
            return match.end()
        match = TAG.match(text, at)
        if match:
            self._add(Inline("tag", at, match.end()))
            return match.end()
        for begin, close in _COMMENT_LIKE:
            if text.startswith(begin, at):
                if begin == "<!" and not text[at + 2 : at + 3].isalpha():
                    break
                if begin == "<!--" and text.startswith((">", "->"), at + 4):
                    end = text.index(">", at) + 1
                else:
                    end = -1 if close in self._lacking else text.find(close, at + len(begin))
                    if end < 0:
                        self._lacking.add(close)
                        break
                    end += len(close)
                self._add(Inline("point", at, end))
                return end
        return self._plain(at, at + 1)

    # links

    def _close_bracket(self, at: int) -> int:
        if not self._brackets:
            return self._plain(at, at + 1)
        bracket = self._brackets.pop()
        if not bracket.image and len(self._brackets) < self._inactive:
            self._inactive = len(self._brackets)
            return self._plain(at, at + 1)
        end, markup = self._target(bracket, at)
        if not end:
            return self._plain(at, at + 1)
        self._emphasis(bracket.runs)
        opening = self._found[bracket.node]
        name = "image" if bracket.image else "link"
        self._found[bracket.node] = Inline("open", opening.start, opening.end, name=name)
        self._add(Inline("close", at, end, name=name, markup=markup))
        if not bracket.image:
            self._inactive = len(self._brackets)
        return end

    def _target(self, bracket: _Bracket, at: int) -> tuple[int, str]:
        """Give where the link ends whose text ends here, and how its end is spelled; 0: it is none."""
        text = self._text
        if text.startswith("(", at + 1):
            end = self._inline_target(at + 2)
            if end:
                return end, ""
        inside = text[bracket.start + (2 if bracket.image else 1) : at] if at - bracket.start < 1003 else ""
        label = _LABEL.match(text, at + 1)
        if label and label.group(1).strip():
            return (label.end(), "") if normal(label.group(1)) in self._labels else (0, "")
        if inside.strip() and normal(inside) in self._labels:
            return label.end() if label else at + 1, f"][{inside}]"
        return 0, ""

    def _inline_target(self, at: int) -> int:
        text = self._text
        match = _DESTINATION.match(text, at)
        end = match.end() if match else at
        if match and match.group(1) is None:
            if text.startswith("<", end):
                return 0
            depth = 0
            while end < len(text) and text[end] not in " \t\n" and text[end] >= " ":
                if text[end] == "\\" and text[end + 1 : end + 2] in _PUNCTUATION:
                    end += 1
                elif text[end] == "(":
                    depth += 1
                    if depth > 32:
                        return 0
                elif text[end] == ")":
                    if not depth:
                        break
                    depth -= 1
                end += 1
            if depth:
                return 0
        title = _TITLE.match(text, end)
        if title:
            end = title.end()
        end = _SPACE.match(text, end).end()  # type: ignore[union-attr]  # it matches everywhere
        return end + 1 if text.startswith(")", end) else 0

    # emphasis

    def _delimiters(self, sign: str, at: int) -> int:
        text = self._text
        end = at
        while end < len(text) and text[end] == sign:
            end += 1
        before = text[at - 1] if at else " "
        after = text[end] if end < len(text) else " "
        left = not after.isspace() and (not _is_sign(after) or before.isspace() or _is_sign(before))
        right = not before.isspace() and (not _is_sign(before) or after.isspace() or _is_sign(after))
        opens, closes = left, right
        if sign == "_":
            opens, closes = left and (not right or _is_sign(before)), right and (not left or _is_sign(after))
        node = self._add(Inline("text", at, end, text[at:end]))
        if sign != "~" or end - at == 2:
            self._runs.append(_Run(node, sign, at, end, end - at, opens, closes))
        return end

    def _emphasis(self, bottom: int) -> None:
        """Pair the delimiter runs from one on: the algorithm of the specification, with its bounds on time."""
        runs = self._runs
        order: list[_Run] = []  # openers, in order, of all signs
        floors: dict[tuple[str, bool, int], int] = {}
        for closer in runs[bottom:]:
            if closer.closes:
                while closer.end > closer.start:
                    key = (closer.sign, closer.opens, closer.length % 3)
                    opener = self._opener(order, closer, floors.get(key, -1))
                    if opener is None:
                        floors[key] = closer.start
                        break
                    while order and order[-1] is not opener:
                        order.pop()
                    self._pair(opener, closer)
                    if opener.end == opener.start:
                        order.pop()
            if closer.opens and closer.end > closer.start:
                order.append(closer)
        del runs[bottom:]

    def _opener(self, order: list[_Run], closer: _Run, floor: int) -> _Run | None:
        for opener in reversed(order):
            if opener.start < floor:
                return None
            if opener.sign != closer.sign:
                continue
            if (
                closer.sign != "~"
                and (opener.closes or closer.opens)
                and (opener.length + closer.length) % 3 == 0
                and (opener.length % 3 or closer.length % 3)
            ):
                continue
            return opener
        return None

    def _pair(self, opener: _Run, closer: _Run) -> None:
        width = 2 if opener.end - opener.start >= 2 and closer.end - closer.start >= 2 else 1
        opener.end -= width
        opener.begun.append(Inline("open", opener.end, opener.end + width, name="emphasis"))
        closer.ended.append(Inline("close", closer.start, closer.start + width, name="emphasis"))
        closer.start += width
        for run in (opener, closer):
            self._found[run.node] = Inline("text", run.start, run.end, self._text[run.start : run.end])
            self._used[run.node] = run


def _is_sign(character: str) -> bool:
    return unicodedata.category(character)[0] in "PS"
