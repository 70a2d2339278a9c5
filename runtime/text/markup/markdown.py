"""Markdown: CommonMark, with GitHub's tables, task lists and strikethrough, notes, formulas and front matter.

Headings, paragraphs and cells are units, emphasis and links are marks in them. A paragraph that is wrapped over lines
comes back on one line if its words changed.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from itertools import groupby

from mobilenmt.runtime.text.markup import html
from mobilenmt.runtime.text.markup.blocks import Block, Blocks, normal
from mobilenmt.runtime.text.markup.builder import DEEPEST, Builder
from mobilenmt.runtime.text.markup.document import Document, Layout, Result, Unit
from mobilenmt.runtime.text.markup.inline import Inline, inlines
from mobilenmt.runtime.text.markup.weave import ALONE, CLOSE, OPEN, TEXT, Piece, weave

_TAG_NAME = re.compile(r"<(/?)([A-Za-z][A-Za-z0-9-]*)")
#: What a line must not begin with, if it is to be a paragraph: the sign to be escaped is behind a group.
_LINE_START = re.compile(
    r"()(?:#{1,6}(?=[ \t]|\Z)|>|[-+*](?=[ \t]|\Z)|(?:-[ \t]*){3,}\Z|(?:\*[ \t]*){3,}\Z|(?:_[ \t]*){3,}\Z|=+\Z|`{3}|~{3}"
    r"|\||\[[^\]]+\]:)|[0-9]{1,9}()[.)](?=[ \t]|\Z)"
)
_TAGS = {"*": "em", "_": "em", "**": "strong", "__": "strong", "~~": "del"}
_CLOSING = re.compile(r"(?:(?<=[ \t])|\A)(#+[ \t]*)\Z")
_SIGNS = "\\`*_{}[]<>#~|$&!"


def parse(text: str) -> Document:
    """Take Markdown apart."""
    blocks = Blocks(text)
    builder = Builder(text)
    parts: list[Layout | Unit] = []
    done = 0
    for block in blocks.found:
        start, end = block.lines[0][0], block.lines[-1][1]
        if block.kind == "html":
            parts.append(Layout(text[done:start]))
            parts.extend(_as_html(html.parse(text[start:end]).parts))
            done = end
            continue
        parts.append(Layout(text[done:start]))
        builder.begin(start)
        builder.place = block.kind
        parts.extend(_read(text, block, builder, blocks.labels))
        done = end
    parts.append(Layout(text[done:]))
    return Document("markdown", tuple(part for part in parts if not isinstance(part, Layout) or part.text))


def _as_html(parts: Sequence[Layout | Unit]) -> list[Layout | Unit]:
    return [
        part if isinstance(part, Layout) else Unit(part.text, part.marks, part.raw, part.spelling, "html")
        for part in parts
    ]


def _read(source: str, block: Block, builder: Builder, labels: set[str]) -> list[Layout | Unit]:
    """Read the words of a block into a unit."""
    offsets: list[int] = []  # of each line in the joined text
    pieces = []
    length = 0
    for number, (start, end) in enumerate(block.lines):
        line = source[start:end]
        last = number == len(block.lines) - 1
        body = line.rstrip(" \t")
        if not last and len(line) - len(body) >= 2 and line.endswith("  "):
            body += "  "
        offsets.append(length)
        pieces.append(body)
        length += len(body) + 1
    text = "\n".join(pieces)

    def place(offset: int) -> int:
        number = bisect_right(offsets, offset) - 1
        return block.lines[number][0] + offset - offsets[number]

    found = inlines(text, labels)
    pairs = _pair_tags(found, text)
    parts: list[Layout | Unit] = []
    apart = _is_of_images(found)
    depth = 0
    for number, inline in enumerate(found):
        start, end = place(inline.start), place(inline.end)
        raw = source[start:end]
        if inline.kind == "text":
            if inline.text:
                builder.text(inline.text, start, end)
                if inline.text != text[inline.start : inline.end]:
                    builder.spelling.setdefault(inline.text, raw)
        elif inline.kind == "line":
            builder.space()
        elif inline.kind == "break":
            builder.point(raw, start)
            builder.space()
        elif inline.kind == "kept":
            builder.kept(inline.text, raw, start)
        elif inline.kind == "open" or pairs.get(number) == "open":
            depth += inline.kind == "open"
            if builder.full:
                parts.extend(builder.finish(start).parts())
            split = inline.name == "emphasis"
            builder.open(inline.name or raw, raw, start, split=split)
        elif inline.kind == "close":
            builder.close(inline.name, inline.markup or raw, start, until=end)
            depth -= 1
            if apart and depth == 0:
                parts.extend(builder.finish(end).parts())
        elif number in pairs:
            builder.close(pairs[number], raw, start)
        else:
            builder.point(raw, start)
            if raw[:3].lower() == "<br":
                builder.space()
    return [*parts, *builder.finish(block.lines[-1][1]).parts()]


def _is_of_images(found: Sequence[Inline]) -> bool:
    """Whether all words of a block are texts of images, as of badges: no sentence, but several."""
    inside = images = 0
    for inline in found:
        if inline.name == "image":
            inside += 1 if inline.kind == "open" else -1
            images += inline.kind == "open"
        elif not inside and inline.kind in ("text", "kept") and not inline.text.isspace():
            return False
    return images > 1


def _pair_tags(found: Sequence[Inline], text: str) -> dict[int, str]:
    """Find HTML tags that belong together and cross no emphasis: the first -> "open", the second -> the first."""
    pairs: dict[int, str] = {}
    above: list[tuple[str, int]] = []
    waiting: dict[str, int] = {}
    for number, inline in enumerate(found):
        if inline.kind == "open":
            above.append(("", number))
        elif inline.kind == "close":
            while above and above[-1][0]:
                waiting[above.pop()[0]] -= 1
            if above:
                above.pop()
        elif inline.kind == "tag" and (match := _TAG_NAME.match(text, inline.start)):
            name = match.group(2).lower()
            if not match.group(1):
                if name not in html.VOID and not text.startswith("/>", inline.end - 2):
                    above.append((name, number))
                    waiting[name] = waiting.get(name, 0) + 1
            elif waiting.get(name, 0):
                tries: list[tuple[str, int]] = []
                while above and above[-1][0] and above[-1][0] != name and len(tries) < DEEPEST:
                    tries.append(above.pop())
                if above and above[-1][0] == name:
                    opening = above.pop()[1]
                    waiting[name] -= 1
                    for lost, _ in tries:
                        waiting[lost] -= 1
                    pairs[opening] = "open"
                    pairs[number] = text[found[opening].start : found[opening].end]
                else:
                    above.extend(reversed(tries))
    return pairs


def render_unit(unit: Unit, result: Result) -> str:
    """Give a unit's translation with its marks.

    Signs are escaped where the source escaped them or they would be read as markup; that what comes out is read as the
    words and marks that went in is checked, and if it is not, all signs are escaped, and then emphasis written as HTML.
    """
    if unit.place == "html":
        return html.render_unit(unit, result)
    if "\n" in result.text or "\r" in result.text:
        result = Result(result.text.replace("\n", " ").replace("\r", " "), result.links)
    pieces = weave(unit.text, unit.marks, result)
    labels = {normal(mark.close[2:-1]) for mark in unit.marks if mark.close.startswith("][")}
    wanted = _shown(pieces, unit)
    output = ""
    for everything in (False, True):
        output = _spell(pieces, unit, everything)
        if _reads_as(output, labels) == wanted:
            return output
    tagged = _tagged(pieces)
    other = _spell(tagged, unit, True)
    return other if _reads_as(other, labels) == _shown(tagged, unit) else output


def _tagged(pieces: Sequence[Piece]) -> list[Piece]:
    """Write emphasis as HTML: its signs do not work next to every character."""
    slashes = {OPEN: "", CLOSE: "/"}
    return [
        (f"<{slashes[kind]}{_TAGS[text]}>", ALONE) if kind in slashes and text in _TAGS else (text, kind)
        for text, kind in pieces
    ]


def _spell(pieces: Sequence[Piece], unit: Unit, everything: bool) -> str:
    spelling = dict(unit.spelling)
    if everything:
        spelling = {sign: "\\" + sign for sign in _SIGNS} | spelling
    if unit.place == "cell":
        spelling["|"] = "\\|"
    table = {ord(sign): spelled for sign, spelled in spelling.items() if len(sign) == 1}
    out: list[str] = []
    for markup, group in groupby(pieces, key=lambda piece: piece[1] != TEXT):
        several = [text for text, _ in group]
        if markup:
            for text in several:
                if text.startswith("`") and out and out[-1].endswith("`"):
                    out.append(" ")
                out.append(text)
            continue
        spelled = "".join(several).translate(table)
        if out and "\n" in out[-1] and not out[-1].rsplit("\n", 1)[1].strip(" \t>"):  # the break was the white space
            spelled = _guard(spelled.lstrip(" "))
        elif out and out[-1][:3].lower() == "<br":
            spelled = spelled.removeprefix(" ")
        out.append(spelled)
    output = "".join(out)
    if unit.place == "paragraph":
        output = output.lstrip(" \t")
        if not (pieces and pieces[0][1]):
            output = _guard(output)
    elif unit.place == "heading":
        output = _CLOSING.sub(r"\\\1", output)
    return output


def _guard(text: str) -> str:
    """Escape the beginning of a line that would begin something else than a paragraph."""
    match = _LINE_START.match(text)
    if not match:
        return text
    at = max(match.start(1), match.start(2))
    return f"{text[:at]}\\{text[at:]}"


def _shown(pieces: Sequence[Piece], unit: Unit) -> str:
    """What a reader should make of the pieces: letters, and signs for marks."""
    ends = {mark.open for mark in unit.marks if mark.start < mark.end and not mark.kept}
    ends |= {mark.close for mark in unit.marks}
    kept = {mark.open for mark in unit.marks if mark.kept}
    out = []
    for text, markup in pieces:
        if not markup:
            out.append(text)
        elif text.rstrip() in kept:
            out.append("\0K")
        elif text in ends:
            out.append("\0T" if text.startswith("<") else "\0M")
        else:
            out.append(_reads_as(text, set()))
    return "".join("".join(out).split())


def _reads_as(text: str, labels: set[str]) -> str:
    signs = {"open": "\0M", "close": "\0M", "kept": "\0K", "tag": "\0T", "point": "\0T", "break": "\0B"}
    read = "".join(signs.get(inline.kind, inline.text) for inline in inlines(text, labels))
    return "".join(read.split())
