"""Terms as words of the target: how they are spelled, and whether a text has them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Protocol

_SPACED = "\u0e00"  # letters before it are of scripts that part words by spaces


class Tokenizer(Protocol):
    """Text to ids, and back."""

    def encode(self, text: str) -> list[int]:
        """Ids of a text of the source."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids of the target."""
        ...

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """The pieces of ids of the target, ``▁`` for a space."""
        ...


class Spelling:
    """Spells terms in the target's vocabulary.

    Args:
        tokenizer: of the pack.
        size: of the target's vocabulary.
    """

    def __init__(self, tokenizer: Tokenizer, size: int) -> None:
        self._tokenizer = tokenizer
        self._size = size

    def of(self, terms: Sequence[str]) -> list[tuple[int, ...]] | None:
        """Ids of terms as words of their own; None where one cannot be spelled so (or source and target have
        vocabularies of their own)."""
        found = []
        for term in terms:
            ids = self._tokenizer.encode(term)
            if not ids or max(ids) >= self._size or self._tokenizer.decode(ids) != term or "\ufffd" in term:
                return None
            found.append(tuple(ids))
        return found

    @cached_property
    def continuing(self) -> bytes:
        """For each id of the target 1 if it goes on with a word, else 0.

        Scripts without spaces between words, and those that part groups of words, have no such ids.
        """
        pieces = self._tokenizer.pieces(range(self._size))
        return bytes(piece[:1].isalnum() and piece[:1] < _SPACED for piece in pieces)


def holds(text: str, targets: Sequence[str]) -> bool:
    """Whether a text has all these terms, as whole words, each as often as it is given and none inside another."""
    for target in sorted(targets, key=len, reverse=True):
        start = text.find(target)
        while start >= 0 and not _is_whole(text, start, start + len(target)):
            start = text.find(target, start + 1)
        if start < 0:
            return False
        text = f"{text[:start]}\0{text[start + len(target) :]}"
    return True


def _is_whole(text: str, start: int, end: int) -> bool:
    """Whether no word that is parted by spaces goes on over an end."""
    pairs = (text[max(0, start - 1) : start], text[start]), (text[end - 1], text[end : end + 1])
    return not any(a.isalnum() and b.isalnum() and max(a, b) < _SPACED for a, b in pairs)
