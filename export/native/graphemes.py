"""Where graphemes end, for tokenizers' character maps: it applies them to graphemes, not to characters.

The classes of Unicode annex 29 that the installed tokenizers knows are found by asking it, so that the C core cuts as
it does: a map of one character shows whether that character and the next one came out as one grapheme.
"""

from __future__ import annotations

import struct
import unicodedata
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

CONTROL, EXTEND, SPACING, PREPEND, PICTURE, CONSONANT, LINKER = range(1, 8)

# Indic_Conjunct_Break: consonants and viramas of Devanagari, Bengali, Gujarati, Oriya, Telugu and Malayalam.
_CONSONANTS = (
    "915-939 958-95F 978-97F 995-9A8 9AA-9B0 9B2 9B6-9B9 9DC-9DD 9DF 9F0-9F1 A95-AA8 AAA-AB0 AB2-AB3 AB5-AB9 AF9 "
    "B15-B28 B2A-B30 B32-B33 B35-B39 B5C-B5D B5F B71 C15-C28 C2A-C39 C58-C5A D15-D3A"
)
_LINKERS = "94D 9CD ACD B4D C4D D4D"
_THAI_LAO_AM = (0xE33, 0xEB3)  # spacing marks that are letters by category


@cache
def grapheme_classes() -> np.ndarray[Any, Any]:
    """Runs of characters of one class, as the table has them: where one begins, times 16, plus its class."""
    codes = [*range(0xA0, 0xD800), *range(0xE000, 0x40000), *range(0xE0000, 0xE1000)]
    codes = [code for code in codes if code & 0xFFFE != 0xFFFE and not 0xFDD0 <= code <= 0xFDEF]
    follows = _ask("a", codes, lambda x: f"a{x}", lambda x: "*")
    precedes = _ask("a", codes, lambda x: f"{x}a\u0301", lambda x: f"{x}*\u0301")
    alone = _ask("\u0301", codes, lambda x: f"{x}\u0301\u0302", lambda x: f"{x}*")  # two marks that do not join it
    joined = _ask("©", codes, lambda x: f"©\u200d{x}", lambda x: f"*\u200d{x}".replace("©", "*"))
    classes = np.zeros(0x110000, np.uint32)
    for code, follow, precede, lone, join in zip(codes, follows, precedes, alone, joined, strict=True):
        if follow:
            spacing = unicodedata.category(chr(code)) == "Mc" or code in _THAI_LAO_AM
            classes[code] = SPACING if spacing else EXTEND
        elif lone:
            classes[code] = CONTROL
        elif precede:
            classes[code] = PREPEND
        elif join:
            classes[code] = PICTURE
    for ranges, kind in ((_CONSONANTS, CONSONANT), (_LINKERS, LINKER)):
        for item in ranges.split():
            first, _, last = item.partition("-")
            classes[int(first, 16) : int(last or first, 16) + 1] = kind
    begins = np.flatnonzero(np.diff(classes, prepend=0))
    runs: np.ndarray[Any, Any] = (begins * 16 + classes[begins]).astype("<u4")
    return runs


def _ask(key: str, codes: list[int], make: Callable[[str], str], expect: Callable[[str], str]) -> list[bool]:
    """For each character, whether the text made of it comes out as expected where ``key`` is mapped to ``*``."""
    from tokenizers.normalizers import Precompiled

    normalizer = Precompiled(_map_of(key.encode()))
    answer = normalizer.normalize_str("\n".join(make(chr(code)) for code in codes)).split("\n")
    return [given == expect(chr(code)) for given, code in zip(answer, codes, strict=True)]


def _map_of(key: bytes) -> bytes:
    """SentencePiece's character map of one entry, ``key`` to ``*``: a double array with 256 units for each byte."""
    units = [0] * (256 * (len(key) + 2))
    node, label = 0, 0
    for depth, byte in enumerate((*key, 0)):
        base = 256 * (depth + 1)
        units[node] = (node ^ base) << 10 | (depth == len(key)) << 8 | label
        node, label = base ^ byte, byte
    units[node] = 1 << 31  # the value, where the text begins
    return struct.pack(f"<I{len(units)}I", 4 * len(units), *units) + b"*\0"
