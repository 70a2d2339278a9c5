"""Sentences, their ids, sources of an exact length, and how outputs are compared."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

from benchmarks.harness.errors import BenchmarkError

Ids = list[int]


@dataclass(frozen=True)
class Corpus:
    """Sentences and their ids, the end token left out."""

    lines: tuple[str, ...]
    ids: tuple[Ids, ...]

    @property
    def words(self) -> int:
        """Words of all lines, split at white space."""
        return sum(len(line.split()) for line in self.lines)

    def slices(self, length: int) -> Iterator[Ids]:
        """Endless sources of exactly ``length`` tokens, the end token (not contained) counted: pieces of running text.

        Every one differs from the last, so that nothing that an engine keeps from sentence to sentence helps it.
        """
        stream = [token for row in self.ids for token in row]
        wanted = length - 1
        if len(stream) < 2 * wanted:
            raise BenchmarkError(f"{len(stream)} tokens of text are too few for sources of {length}")
        start = 0
        while True:
            if start + wanted > len(stream):
                start = (start + wanted) % len(stream) % (len(stream) - wanted)
            yield stream[start : start + wanted]
            start += wanted


def batches(ids: Sequence[Ids], size: int) -> list[list[int]]:
    """Indices of the sentences in batches of similar length, as one would translate a file; the longest first."""
    order = sorted(range(len(ids)), key=lambda index: -len(ids[index]))
    return [order[start : start + size] for start in range(0, len(order), size)]


def read_corpus(file: Path, tokenizer_json: Path) -> Corpus:
    """Read one sentence a line and encode it; empty lines are left out."""
    from tokenizers import Tokenizer

    lines = read_lines(file)
    encoded = Tokenizer.from_file(str(tokenizer_json)).encode_batch(list(lines), add_special_tokens=False)
    return Corpus(lines, tuple(item.ids for item in encoded))


def read_lines(file: Path) -> tuple[str, ...]:
    """Lines that are not empty; BenchmarkError if there are none."""
    lines = tuple(line.strip() for line in file.read_text(encoding="utf-8").split("\n") if line.strip())
    if not lines:
        raise BenchmarkError(f"{file}: no sentences")
    return lines


def read_pairs(file: Path, limit: int) -> tuple[list[str], list[str]]:
    """Sources and references of the first lines of a TSV file."""
    rows = [line.split("\t") for line in file.read_text(encoding="utf-8").split("\n") if line][:limit]
    short = [index + 1 for index, row in enumerate(rows) if len(row) < 2]
    if short or not rows:
        raise BenchmarkError(f"{file}: line {short[0] if short else 1} is not source, tab, reference")
    return [row[0] for row in rows], [row[1] for row in rows]


def compare(first: Sequence[Ids], second: Sequence[Ids]) -> dict[str, Any]:
    """How many outputs are the same, and what share of the tokens comes before the first difference."""
    pairs = list(zip(first, second, strict=True))
    shared = sum(len(list(takewhile(lambda both: both[0] == both[1], zip(*pair, strict=False)))) for pair in pairs)
    tokens = sum(max(map(len, pair)) for pair in pairs)
    return {
        "same": sum(a == b for a, b in pairs),
        "of": len(pairs),
        "tokens before they part": shared / max(1, tokens),
    }
