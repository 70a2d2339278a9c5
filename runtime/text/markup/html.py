"""HTML: pages and fragments, of any quality.

What ends a paragraph ends a unit; inline elements are marks in it. Tags, attributes, comments, scripts, style sheets,
preformatted text, drawings and formulas come back byte for byte.
"""

from __future__ import annotations

from collections import deque
from itertools import groupby

from mobilenmt.runtime.text.markup.builder import Builder
from mobilenmt.runtime.text.markup.document import Document, Layout, Result, Unit
from mobilenmt.runtime.text.markup.entities import UNKNOWN, encode, references
from mobilenmt.runtime.text.markup.tokens import Token, tokens
from mobilenmt.runtime.text.markup.weave import TEXT, weave


def _names(names: str) -> frozenset[str]:
    return frozenset(names.split())


#: Elements that end a unit where they begin and where they end.
BLOCKS = _names(
    "address article aside base basefont bgsound blockquote body caption center col colgroup dd details dialog "
    "dir div dl dt fieldset figcaption figure footer form frame frameset h1 h2 h3 h4 h5 h6 head header hgroup hr "
    "html legend li link listing main menu menuitem meta nav noscript ol optgroup option p plaintext pre search "
    "section select summary table tbody td tfoot th thead title tr ul xmp"
)
#: Elements without content.
VOID = _names(
    "area base basefont bgsound br col embed frame hr image img input keygen link meta param source track wbr"
)
#: Elements that are opened again behind one they cross: the Standard's formatting elements.
FORMATTING = _names("a b big code em font i nobr s small strike strong tt u")
#: Elements that may stand around several groups of words.
SPLIT = FORMATTING - {"a", "nobr"} | {"abbr", "cite", "del", "dfn", "ins", "mark", "span", "sub", "sup"}
#: Elements that are copied with their content, where they stand.
OPAQUE = _names("audio canvas iframe math noembed noframes object rp rt script style svg template textarea video")
#: Elements that are copied with their content, as layout.
PREFORMATTED = _names("listing pre xmp")
#: Elements whose words stand in the sentence, and are copied.
KEPT = _names("code kbd samp tt var")
#: Blocks that need no end tag: the beginning of another block may end them.
_UNCLOSED = _names("dd dt li option p td th tr")
#: Most tokens of a superscript that is a note's number.
_NOTE = 8


def parse(text: str) -> Document:
    """Take HTML apart."""
    return Document("html", tuple(_Parser(text).parts()))


def render_unit(unit: Unit, result: Result) -> str:
    """Give a unit's translation with its tags."""
    pieces: list[str] = []
    last = ""
    for markup, group in groupby(weave(unit.text, unit.marks, result), key=lambda piece: piece[1] != TEXT):
        several = [piece for piece, _ in group]
        joined = "".join(several)
        if markup:
            last = several[-1]
        elif last[:3].lower() == "<br":  # that was the white space
            joined = joined.removeprefix(" ")
        pieces.append(joined if markup else encode(joined, unit.spelling))
    return "".join(pieces)


class _Parser:
    def __init__(self, source: str) -> None:
        self._source = source
        self._tokens = tokens(source)
        self._ahead: deque[Token] = deque()
        self._builder = Builder(source)
        self._parts: list[Layout | Unit] = []
        self._xml = source.lstrip("\ufeff \t\r\n").startswith("<?xml")
        self._unclosed: dict[str, int] = {}  # up to where an element is known not to end, by name
        self._break = False  # the last tag was a line break, and only white space came since

    def parts(self) -> list[Layout | Unit]:
        while (token := self._next()) is not None:
            was_break, self._break = self._break, False
            if token.kind == "text":
                self._break = was_break and self._source[token.start : token.end].isspace()
                self._read_text(token)
            elif token.kind == "comment":
                self._break = was_break
                self._builder.point(self._source[token.start : token.end], token.start)
            elif token.kind == "raw":
                if token.name == "title":
                    self._read_text(token)
            elif token.kind == "start":
                self._start(token, was_break)
            else:
                self._end(token)
        self._finish(len(self._source))
        return self._parts

    def _next(self) -> Token | None:
        return self._ahead.popleft() if self._ahead else next(self._tokens, None)

    def _finish(self, at: int) -> None:
        self._parts.extend(self._builder.finish(at).parts())

    def _read_text(self, token: Token) -> None:
        text = self._source[token.start : token.end]
        self._builder.spelled(text, token.start, references(text))

    def _start(self, token: Token, was_break: bool) -> None:
        name = token.name
        raw = self._source[token.start : token.end]
        attributes = token.attributes or {}
        untranslated = attributes.get("translate", "").lower() == "no" or (
            "notranslate" in attributes.get("class", "").split()
        )
        if name in BLOCKS:
            self._finish(token.start)
            if name in PREFORMATTED or (untranslated and name not in VOID):
                self._finish(self._skip(token))
            return
        if name == "br":
            if was_break:
                self._finish(token.start)
            self._break = True
        if name in VOID or (self._xml and token.closes_itself):
            self._builder.point(raw, token.start)
            if name == "br":
                self._builder.space()
        elif name in OPAQUE:
            self._builder.point(self._source[token.start : self._skip(token)], token.start)
        elif (name in KEPT or untranslated) and (inside := self._look_ahead(token)):
            shown = "".join(self._shown(one) for one in inside)
            self._builder.kept(shown, self._source[token.start : inside[-1].end], token.start)
        elif name == "sup" and self._is_note(token):
            pass
        else:
            if self._builder.full:
                self._finish(token.start)
            if name in ("a", "nobr") and self._builder.is_open(name):
                self._builder.close(name, f"</{name}>", token.start, until=token.start)
            split = name in SPLIT and "id" not in attributes
            self._builder.open(name, raw, token.start, formatting=name in FORMATTING, split=split)

    def _end(self, token: Token) -> None:
        raw = self._source[token.start : token.end]
        if token.name in BLOCKS:
            self._finish(token.start)
        elif token.name in VOID:
            self._builder.point(raw, token.start)
        else:
            if self._builder.full:
                self._finish(token.start)
            self._builder.close(token.name, raw, token.start)

    def _shown(self, token: Token) -> str:
        if token.kind != "text":
            return ""
        text = self._source[token.start : token.end]
        pieces: list[str] = []
        done = 0
        for start, end, characters in references(text):
            pieces.extend((text[done:start], text[start:end] if characters == UNKNOWN else characters))
            done = end
        return "".join([*pieces, text[done:]])

    def _skip(self, opening: Token) -> int:
        """Read up to the end of an element, and give where that is."""
        if opening.closes_itself and (self._xml or opening.name in ("svg", "math")):
            return opening.end
        name = opening.name
        inside: dict[str, int] = {}
        while (token := self._next()) is not None:
            if token.kind == "start":
                if name in _UNCLOSED and not inside.get(token.name, 0) and _ends(name, token.name, inside):
                    self._ahead.appendleft(token)
                    return token.start
                if token.name not in VOID:
                    inside[token.name] = inside.get(token.name, 0) + 1
            elif token.kind == "end":
                if inside.get(token.name, 0):
                    inside[token.name] -= 1
                elif token.name == name:
                    return token.end
                elif name in _UNCLOSED and token.name in BLOCKS:
                    self._ahead.appendleft(token)
                    return token.start
        return len(self._source)

    def _look_ahead(self, opening: Token, limit: int = 1 << 30) -> list[Token]:
        """Read up to the end of an inline element, and give its tokens; [], and nothing read: it ends in no block."""
        if self._unclosed.get(opening.name, -1) > opening.start:
            return []
        read: list[Token] = []
        depth = 1
        while len(read) < limit and (token := self._next()) is not None:
            read.append(token)
            if token.kind in ("start", "end") and token.name in BLOCKS:
                break
            if token.name == opening.name:
                depth += {"start": 1, "end": -1}.get(token.kind, 0)
                if not depth:
                    return read
        if len(read) < limit:
            self._unclosed[opening.name] = read[-1].start if read and read[-1].name in BLOCKS else len(self._source)
        self._ahead.extendleft(reversed(read))
        return []

    def _is_note(self, opening: Token) -> bool:
        """Whether a superscript is the number of a note (or a power): no letters, behind a word. If so, it is read."""
        if self._builder.spaced:
            return False
        inside = self._look_ahead(opening, _NOTE)
        if not inside:
            return False
        if any(map(str.isalpha, "".join(map(self._shown, inside)))):
            self._ahead.extendleft(reversed(inside))
            return False
        self._builder.point(self._source[opening.start : inside[-1].end], opening.start)
        return True


def _ends(name: str, other: str, inside: dict[str, int]) -> bool:
    """Whether the beginning of an element ends one that needs no end tag, with these open inside that."""
    if name == "p":
        return other in BLOCKS
    groups = ({"li"}, {"dd", "dt"}, {"option", "optgroup"}, {"td", "th", "tr", "tbody", "tfoot"})
    lists = ("ul", "ol", "dl", "table", "select")
    return any(name in group and other in group for group in groups) and not any(inside.get(n, 0) for n in lists)
