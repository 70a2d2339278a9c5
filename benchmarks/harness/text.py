"""Sentences, their ids, and sources of an exact length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

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

    def batches(self, size: int) -> list[list[int]]:
        """Indices of the sentences in batches of similar length, as one would translate a file; the longest first."""
        order = sorted(range(len(self.ids)), key=lambda index: -len(self.ids[index]))
        return [order[start : start + size] for start in range(0, len(order), size)]


def read_corpus(file: Path, tokenizer_json: Path) -> Corpus:
    """Read one sentence a line and encode it; empty lines are left out."""
    from tokenizers import Tokenizer

    lines = read_lines(file)
    tokenizer = Tokenizer.from_file(str(tokenizer_json))
    eos = tokenizer.token_to_id("</s>")
    encoded = [item.ids for item in tokenizer.encode_batch(list(lines))]
    return Corpus(lines, tuple(row[:-1] if row and row[-1] == eos else row for row in encoded))


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


def common_prefix(first: Sequence[int], second: Sequence[int]) -> int:
    """How many tokens two outputs share before they part."""
    for index, (a, b) in enumerate(zip(first, second, strict=False)):
        if a != b:
            return index
    return min(len(first), len(second))
