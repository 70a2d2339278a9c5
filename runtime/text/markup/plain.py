"""Text without markup: every line is translated by itself."""

from __future__ import annotations

from mobilenmt.runtime.text.markup.document import Document, Layout, Result, Unit


def parse(text: str) -> Document:
    """Take the lines apart from what separates them."""
    parts: list[Layout | Unit] = []
    for line in text.splitlines(keepends=True):
        body = line.strip()
        if body:
            start = line.index(body)
            before, behind = line[:start], line[start + len(body) :]
            parts.extend((Layout(before), Unit(body, (), body), Layout(behind)))
        else:
            parts.append(Layout(line))
    return Document("text", tuple(parts))


def render_unit(unit: Unit, result: Result) -> str:
    """Give the translation as it is."""
    return result.text
