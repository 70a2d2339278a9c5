"""Words of a text in pieces: what an aligner works on, and which of them a model's token belongs to."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_WORD = re.compile(r"\w+|[^\w\s]")
_SPACE = "\u2581"


@dataclass(frozen=True)
class Words:
    """The words of one text."""

    words: tuple[str, ...]
    """In lower case; punctuation marks count as words of their own."""
    of: tuple[int | None, ...]
    """For each token the word that most of its letters are in; None for one without letters or digits."""

    @classmethod
    def of_pieces(cls, pieces: Sequence[str]) -> Words:
        """From the pieces of a text's tokens."""
        text = "".join(pieces).replace(_SPACE, " ")
        spans = [match.span() for match in _WORD.finditer(text)]
        owner: dict[int, int] = {
            place: index
            for index, (start, end) in enumerate(spans)
            for place in range(start, end)
            if text[place].isalnum()
        }
        belongs: list[int | None] = []
        start = 0
        for piece in pieces:
            owners = [owner[place] for place in range(start, start + len(piece)) if place in owner]
            belongs.append(max(owners, key=owners.count) if owners else None)
            start += len(piece)
        return cls(tuple(text[start:end].lower() for start, end in spans), tuple(belongs))

    def has_letters(self, index: int) -> bool:
        """Whether a word is more than punctuation."""
        return any(letter.isalnum() for letter in self.words[index])
