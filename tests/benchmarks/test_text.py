"""Sources have the length they must, and every engine gets the same ones."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from benchmarks.harness.errors import BenchmarkError
from benchmarks.harness.text import Corpus, batches, compare, read_corpus

from places import ROOT


def test_slices_have_the_length_and_differ() -> None:
    corpus = Corpus(("a", "b"), (list(range(60)), list(range(60, 100))))
    stream = corpus.slices(30)
    found = [next(stream) for _ in range(8)]
    assert {len(row) for row in found} == {29}
    assert all(a != b for a, b in pairwise(found))
    with pytest.raises(BenchmarkError, match="too few"):
        next(corpus.slices(80))


def test_batches_hold_every_sentence_once_longest_first() -> None:
    ids = [list(range(n)) for n in (3, 9, 1, 4, 4, 7, 2)]
    found = batches(ids, 3)
    assert [len(batch) for batch in found] == [3, 3, 1]
    assert sorted(index for batch in found for index in batch) == list(range(7))
    assert [len(ids[index]) for batch in found for index in batch] == [9, 7, 4, 4, 3, 2, 1]


def test_own_sentences_are_many_different_and_of_all_lengths() -> None:
    lines = (ROOT / "benchmarks" / "sentences.en.txt").read_text(encoding="utf-8").splitlines()
    lengths = [len(line.split()) for line in lines]
    assert len(set(lines)) == len(lines) >= 300
    assert min(lengths) == 3 and max(lengths) == 60
    for low in range(3, 60, 10):
        assert sum(low <= length < low + 10 for length in lengths) >= 25, low


def test_corpus_ids_have_no_end_token(checkpoint: Path, sentences: Path) -> None:
    corpus = read_corpus(sentences, checkpoint / "tokenizer.json")
    assert len(corpus.ids) == 12
    assert all(row and row[-1] != 0 for row in corpus.ids)


def test_outputs_are_compared_token_by_token() -> None:
    found = compare([[1, 2, 3], [4, 5], []], [[1, 2, 9, 9], [4, 5], []])
    assert found == {"same": 2, "of": 3, "tokens before they part": 4 / 6}
