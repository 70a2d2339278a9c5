"""Cuts HTML into tags, comments and text, as the tokenizer of the HTML Standard (13.2.5) does. Linear in the text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

_SPACE = " \t\n\f\r"
#: Elements whose content is no markup, up to their end tag.
RAW_TEXT = frozenset(("iframe", "noembed", "noframes", "script", "style", "textarea", "title", "xmp"))
_NAME = re.compile(r"[^ \t\n\f\r/>]*")
_BETWEEN = re.compile(r"[ \t\n\f\r/]*")
_ATTRIBUTE = re.compile(r"=?[^ \t\n\f\r/>=]*")
_EQUALS = re.compile(r"[ \t\n\f\r]*=[ \t\n\f\r]*")
_UNQUOTED = re.compile(r"[^ \t\n\f\r>]*")
_COMMENT_END = re.compile(r"--!?>")
_SCRIPT = re.compile(r"<!--|-->|<(/?)script(?=[ \t\n\f\r/>])", re.IGNORECASE)


class Token(NamedTuple):
    """A stretch of the source."""

    kind: str
    """``text``, ``start``, ``end``, ``comment`` (all that shows nothing), or ``raw`` (the content of `RAW_TEXT`)."""
    start: int
    end: int
    name: str = ""
    """Of a tag, in small letters; of ``raw``, the element's."""
    attributes: dict[str, str] | None = None
    """Of a start tag: names in small letters, values as they are spelled."""
    closes_itself: bool = False


def tokens(source: str, foreign: bool = False) -> Iterator[Token]:
    """Yield the tokens of a source, in order and without gaps."""
    at, length = 0, len(source)
    text = 0  # where text that was not yielded yet begins
    while True:
        at = source.find("<", at)
        if at < 0 or at + 1 == length:
            break
        token = _markup(source, at)
        if token is None:
            at += 1
            continue
        if text < at:
            yield Token("text", text, at)
        yield token
        at = text = token.end
        if token.kind == "start" and token.name in RAW_TEXT:
            end = _end_of_raw(source, token.name, at)
            if end > at:
                yield Token("raw", at, end, token.name)
            at = text = end
        elif token.kind == "start" and token.name == "plaintext":
            at = length
            yield Token("raw", text, length, token.name)
            text = length
    if text < length:
        yield Token("text", text, length)


def _markup(source: str, at: int) -> Token | None:
    """Read what begins with the ``<`` at an offset; None: it is text."""
    following = source[at + 1]
    if _is_letter(following):
        return _tag(source, at, at + 1, "start")
    if following == "/":
        if at + 2 == len(source):
            return None
        if _is_letter(source[at + 2]):
            return _tag(source, at, at + 2, "end")
        return Token("comment", at, _behind(source, ">", at + 2))
    if following == "!":
        if source.startswith("<!--", at):
            for short in ("<!-->", "<!--->"):
                if source.startswith(short, at):
                    return Token("comment", at, at + len(short))
            match = _COMMENT_END.search(source, at + 4)
            return Token("comment", at, match.end() if match else len(source))
        return Token("comment", at, _behind(source, ">", at + 2))
    if following == "?":
        return Token("comment", at, _behind(source, ">", at + 1))
    return None


def _is_letter(character: str) -> bool:
    return "a" <= character <= "z" or "A" <= character <= "Z"


def _behind(source: str, sign: str, at: int) -> int:
    end = source.find(sign, at)
    return len(source) if end < 0 else end + 1


def _tag(source: str, start: int, at: int, kind: str) -> Token:
    end = _NAME.match(source, at).end()  # type: ignore[union-attr]  # it matches everywhere
    name = source[at:end].lower()
    attributes: dict[str, str] = {}
    length = len(source)
    while True:
        at = end
        end = _BETWEEN.match(source, at).end()  # type: ignore[union-attr]
        if end == length:
            return Token("comment", start, length)  # cut off: browsers show nothing of it
        if source[end] == ">":
            return Token(kind, start, end + 1, name, attributes, end > at and source[end - 1] == "/")
        at, end = end, _ATTRIBUTE.match(source, end).end()  # type: ignore[union-attr]
        key = source[at:end].lower()
        value = ""
        equals = _EQUALS.match(source, end)
        if equals:
            at = equals.end()
            if source[at : at + 1] in ('"', "'"):
                end = source.find(source[at], at + 1)
                if end < 0:
                    return Token("comment", start, length)
                value = source[at + 1 : end]
                end += 1
            else:
                end = _UNQUOTED.match(source, at).end()  # type: ignore[union-attr]
                value = source[at:end]
        attributes.setdefault(key, value)


def _end_of_raw(source: str, name: str, at: int) -> int:
    if name == "script":
        return _end_of_script(source, at)
    match = re.compile(rf"</{name}(?=[ \t\n\f\r/>])", re.IGNORECASE).search(source, at)
    return match.start() if match else len(source)


def _end_of_script(source: str, at: int) -> int:
    """``<!--`` and ``<script`` in a script hide the next ``</script>``, as the Standard has it."""
    escaped = doubly = False
    for match in _SCRIPT.finditer(source, at):
        found = match.group()
        if found == "<!--":
            escaped = True
        elif found == "-->":
            escaped = doubly = False
        elif not match.group(1):
            doubly = escaped
        elif doubly:
            doubly = False
        else:
            return match.start()
    return len(source)
