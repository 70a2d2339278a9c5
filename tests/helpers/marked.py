"""Texts in which ⟪ and ⟫ stand around spans."""

from __future__ import annotations

import re


def unmarked(text: str) -> tuple[str, list[tuple[int, int]]]:
    """A text without its ⟪ ⟫, and start and end of what stood between."""
    spans: list[tuple[int, int]] = []
    plain = ""
    for part in re.split("(⟪.*?⟫)", text):
        if part.startswith("⟪"):
            spans.append((len(plain), len(plain) + len(part) - 2))
            part = part[1:-1]
        plain += part
    return plain, spans
