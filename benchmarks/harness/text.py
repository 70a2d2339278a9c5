"""Sentences, their ids, sources of an exact length, and how outputs are compared."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, cycle, islice, takewhile
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from benchmarks.engines.base import Ids
from benchmarks.harness.errors import expect


@dataclass(frozen=True)
class Corpus:
    """Sentences and their ids, the end token left out."""

    lines: tuple[str, ...]
    ids: tuple[Ids, ...]

    def slices(self, length: int) -> Iterator[Ids]:
        """Endless sources of exactly ``length`` tokens, the end token (not contained) counted: pieces of running text.

        Every one differs from the last, so that nothing that an engine keeps from sentence to sentence helps it.
        """
        stream = list(chain.from_iterable(self.ids))
        expect(len(stream) >= 2 * length, f"{len(stream)} tokens of text are too few for sources of {length}")
        endless = cycle(stream)
        while True:
            yield list(islice(endless, length - 1))


def batches(ids: Sequence[Ids], size: int) -> list[list[int]]:
    """Indices of the sentences in batches of similar length, as one would translate a file; the longest first."""
    order = sorted(range(len(ids)), key=lambda index: -len(ids[index]))
    return [order[start : start + size] for start in range(0, len(order), size)]


def read_corpus(file: Path, tokenizer_json: Path) -> Corpus:
    """Read one sentence a line and encode it; empty lines are left out."""
    lines = read_lines(file)
    encoded = Tokenizer.from_file(str(tokenizer_json)).encode_batch(list(lines), add_special_tokens=False)
    return Corpus(lines, tuple(item.ids for item in encoded))


def read_lines(file: Path) -> tuple[str, ...]:
    """Lines that are not empty; BenchmarkError if there are none."""
    lines = tuple(line.strip() for line in file.read_text(encoding="utf-8").split("\n") if line.strip())
    expect(bool(lines), f"{file}: no sentences")
    return lines


def read_pairs(file: Path, limit: int) -> tuple[list[str], list[str]]:
    """Sources and references of the first lines of a TSV file."""
    rows = [line.split("\t") for line in file.read_text(encoding="utf-8").split("\n") if line][:limit]
    for number, row in enumerate(rows or [[]], 1):
        expect(len(row) >= 2, f"{file}: line {number} is not source, tab, reference")
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
