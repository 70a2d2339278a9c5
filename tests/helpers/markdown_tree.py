"""What markdown-it makes of a text, as far as it should not depend on the words."""

from __future__ import annotations

from html import unescape

from markdown_it import MarkdownIt
from markdown_it.token import Token

READER = MarkdownIt("commonmark").enable(["table", "strikethrough"])

EMPHASIS = {"em": "em", "strong": "strong", "del": "s"}


def structure(source: str) -> list[tuple[object, ...]]:
    """The tokens: type, tag, attributes, markup; words run together, lines that are wrapped not told apart."""
    found: list[tuple[object, ...]] = []

    def text(words: str) -> None:
        squeezed = "".join(words.split())
        if found and found[-1][0] == "text":
            squeezed = str(found.pop()[1]) + squeezed
        if squeezed:
            found.append(("text", squeezed))

    def add(tokens: list[Token]) -> None:
        for token in tokens:
            if token.type == "inline":
                add(token.children or [])
            elif token.type in ("text", "softbreak", "text_special"):
                text(token.content)
            elif token.type == "html_inline" and token.content.strip("</>") in EMPHASIS:
                name = token.content.strip("</>")
                end = "close" if token.content.startswith("</") else "open"
                found.append((f"{EMPHASIS[name]}_{end}", name.replace("del", "s"), (), ""))
            else:
                content = token.content
                if token.type in ("html_block", "code_inline"):
                    content = "".join((unescape(content) if token.type == "html_block" else content).split())
                attributes = tuple(sorted((key, value) for key, value in token.attrs.items()))
                kind = "html" if token.type.startswith("html") else token.type
                alternative = token.children if token.type == "image" else None
                found.append((kind, token.tag, attributes, "" if alternative else content))
                if alternative:
                    add(alternative)

    add(READER.parse(source))
    return found
