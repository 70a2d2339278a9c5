"""Sentences of test sets, which must not be trained on."""

from __future__ import annotations

import re
from collections.abc import Iterable
from hashlib import blake2b
from pathlib import Path

from mobilenmt.compression.core.errors import CorpusError
from mobilenmt.compression.core.streams import READ_ERRORS, numbered_lines

_WORD = re.compile(r"\w+")


class HeldOut:
    """Sentences that must not be trained on, known by hashes of their words alone.

    Two sentences match if they have the same words in the same order: case, punctuation and white space do not count.
    """

    def __init__(self) -> None:
        self._sources: set[int] = set()
        self._targets: set[int] = set()
        self._pairs: set[int] = set()

    def add(self, source: str, target: str) -> None:
        """Hold a pair out."""
        keys = fold(source), fold(target)
        if keys[0]:
            self._sources.add(hash_of(keys[0]))
        if keys[1]:
            self._targets.add(hash_of(keys[1]))
        self._pairs.add(hash_of("\t".join(keys)))

    def __len__(self) -> int:
        return len(self._pairs)

    def has(self, source: str, target: str, least_words: int) -> bool:
        """Whether a pair holds such a sentence; ones of fewer words than `least_words` must match on both sides."""
        if not self._pairs:
            return False
        keys = fold(source), fold(target)
        for key, known in zip(keys, (self._sources, self._targets), strict=True):
            if hash_of(key) in known and key.count(" ") + 1 >= least_words:
                return True
        return hash_of("\t".join(keys)) in self._pairs


def read_held_out(paths: Iterable[Path]) -> HeldOut:
    """Read test files: ``source<TAB>target`` a line, or one sentence a line, of which either side must not be it.

    :raises CorpusError: a file cannot be read, is not UTF-8, or holds nothing.
    """
    found = HeldOut()
    for path in paths:
        lines = 0
        try:
            for _, line in numbered_lines(path):
                lines += 1
                fields = line.decode("utf-8").split("\t")
                found.add(fields[0], fields[1] if len(fields) > 1 else fields[0])
        except FileNotFoundError:
            raise CorpusError(f"{path}: no such file (corpus.held_out)") from None
        except UnicodeDecodeError:
            raise CorpusError(f"{path}: line {lines} is not UTF-8 (corpus.held_out)") from None
        except READ_ERRORS as error:
            raise CorpusError(f"{path}: cannot be read: {error} (corpus.held_out)") from error
        if not lines:
            raise CorpusError(f"{path}: empty (corpus.held_out)")
    return found


def fold(text: str) -> str:
    """The words of a text in lower case, one space between them."""
    return " ".join(_WORD.findall(text.casefold()))


def hash_of(text: str) -> int:
    """64 bits of BLAKE2b of a text."""
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")
