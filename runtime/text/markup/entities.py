"""Character references: ``&amp;`` to ``&`` and back."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from mobilenmt.runtime.text.data import load

#: What a reference to no character stands for (``&#0;``, ``&#xd800;``): it is kept as it is spelled.
UNKNOWN = "\ufffd"
_COMMON = {"amp": "&", "lt": "<", "gt": ">", "quot": '"', "apos": "'", "nbsp": "\xa0"}
_REFERENCE = re.compile(r"&(?:#[xX][0-9a-fA-F]+;?|#[0-9]+;?|[A-Za-z][A-Za-z0-9]*;?)")
#: What browsers read for the numbers that name no character, as Windows has it.
_WINDOWS = dict(zip(range(0x80, 0xA0), "€\x81‚ƒ„…†‡ˆ‰Š‹Œ\x8dŽ\x8f\x90‘’“”•–—˜™š›œ\x9džŸ", strict=True))


def references(text: str, strict: bool = False) -> Iterator[tuple[int, int, str]]:
    """Yield the start, the end and the characters of every reference in a text; those nobody knows are none.

    Args:
        text: any text.
        strict: only those that end in a semicolon, as Markdown reads them; else also those that HTML reads without.
    """
    at = text.find("&")
    while at >= 0:
        match = _REFERENCE.match(text, at)
        end, characters = _read(match.group(), strict) if match else (0, "")
        if end:
            yield at, at + end, characters
        at = text.find("&", at + max(end, 1))


def _read(reference: str, strict: bool) -> tuple[int, str]:
    """Give how much of a candidate is a reference, and what for; (0, ""): it is none."""
    closed = reference.endswith(";")
    if strict and not closed:
        return 0, ""
    name = reference[1:-1] if closed else reference[1:]
    if name.startswith("#"):
        hexadecimal = name[1] in "xX"
        digits = name[2:] if hexadecimal else name[1:]
        if strict and len(digits) > (6 if hexadecimal else 7):
            return 0, ""
        digits = digits.lstrip("0") or "0"
        return len(reference), _character(int(digits, 16 if hexadecimal else 10) if len(digits) < 8 else -1, strict)
    if closed and name in _COMMON:
        return len(reference), _COMMON[name]
    table = load("entities")
    if closed and name in table["characters"]:
        return len(reference), table["characters"][name]
    if not strict:
        bare = table["without_semicolon"].split()
        for length in range(min(len(name), 6), 1, -1):
            if name[:length] in bare:
                return length + 1, table["characters"][name[:length]]
    return 0, ""


def _character(number: int, strict: bool) -> str:
    if number <= 0 or number > 0x10FFFF or 0xD800 <= number <= 0xDFFF:
        return UNKNOWN
    return chr(number) if strict else _WINDOWS.get(number, chr(number))


def encode(text: str, spelling: Mapping[str, str]) -> str:
    """Spell a text in HTML: characters as the source spelled them, others plainly where they cannot be misread.

    Args:
        text: words, without markup.
        spelling: characters that the source wrote as references, and which.
    """
    table = {ord("<"): "&lt;"} | {ord(one): spelled for one, spelled in spelling.items() if len(one) == 1}
    if "&" not in text or "&" in spelling:
        return text.translate(table)
    pieces = []
    done = 0
    for at, _, _ in references(text):  # what would be read as a reference, and is none
        pieces.append(text[done:at].translate(table))
        done = at + 1
    pieces.append(text[done:].translate(table))
    return "&amp;".join(pieces)
