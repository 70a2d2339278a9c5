"""Text to measure importance on: pairs from files, checked, tokenized by the model's own tokenizer, in batches."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mobilenmt.compression.core.errors import CorpusError, PruneError
from mobilenmt.compression.corpus.language_id import SMALLEST_SAMPLE, LanguageCheck
from mobilenmt.compression.corpus.readers import Malformed, Source, check, parts_of
from mobilenmt.compression.prune.network import Batch, Network, padded
from mobilenmt.compression.prune.pieces import Pieces
from mobilenmt.export.checkpoint import MarianConfig

LEAST_SENTENCES = 50
"""Fewer say nothing about a model: a hundredth of the vocabulary would be seen."""
_LOGITS = 24_000_000
"""Elements of the logits of a batch at most, of which there are some copies: 100 MB each."""
_MOST_TOKENS = 2048
_OFFSETS = 100_000  # lines looked at of each file: a sample of the beginning, so that large files take seconds

Texts = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Calibration:
    """Tokenized text."""

    batches: tuple[Batch, ...]
    sentences: int
    tokens: int
    """Of both sides, ``</s>`` included."""

    def first(self, sentences: int) -> tuple[Batch, ...]:
        """Some of the batches, taken evenly, with so many sentences or a little more."""
        share = max(1, math.ceil(len(self.batches) * min(1.0, sentences / self.sentences)))
        return tuple(self.batches[index * len(self.batches) // share] for index in range(share))


def read_texts(paths: Sequence[Path], count: int, *, seed: int = 0) -> list[tuple[str, str]]:
    """Pairs of the files, taken evenly by chance from their first lines.

    Raises CorpusError if one is missing, damaged, or holds no pairs.
    """
    pairs: list[tuple[str, str]] = []
    for part in parts_of(Source(paths=tuple(paths))):
        check(part)
        rows = (item for item in part.read() if not isinstance(item, Malformed))
        pairs += [(row.source, row.target) for row, _ in zip(rows, range(_OFFSETS), strict=False)]
    return sample_texts(pairs, count, seed=seed)


def sample_texts(pairs: Iterable[tuple[str, str]], count: int, *, seed: int = 0) -> list[tuple[str, str]]:
    """Some of the pairs, each as likely as any other, in their order; memory does not grow with the text."""
    generator = np.random.default_rng(seed)
    kept: list[tuple[int, tuple[str, str]]] = []
    for number, pair in enumerate(pairs):
        if len(kept) < count:
            kept.append((number, pair))
        elif (place := int(generator.integers(number + 1))) < count:
            kept[place] = (number, pair)
    return [pair for _, pair in sorted(kept)]


def calibrate(
    texts: Texts, pieces: Pieces, config: MarianConfig, *, languages: tuple[str, str] = ("", ""), tokens: int = 128
) -> Calibration:
    """Tokenize pairs.

    Args:
        texts: (source, target) each.
        pieces: the model's tokenizer.
        config: the model's.
        languages: their codes, "" where not known; a side in another language is refused.
        tokens: pairs with a longer side are left out.

    Raises:
        PruneError: too little text, or text in other languages than the model's.
    """
    if len(texts) >= SMALLEST_SAMPLE and all(languages):
        try:
            LanguageCheck(texts, languages).verify()
        except CorpusError as error:
            raise PruneError(f"the text: {error}") from None
    longest = min(tokens, config.max_position_embeddings) - 1
    sides = [pieces.encode([pair[side] for pair in texts], target=bool(side)) for side in (0, 1)]
    rows = [pair for pair in zip(*sides, strict=True) if 0 < len(pair[0]) <= longest and 0 < len(pair[1]) <= longest]
    different = len({(tuple(source), tuple(target)) for source, target in rows})
    if different < LEAST_SENTENCES:
        raise PruneError(
            f"the text is too short: {different} different pairs of at most {longest} pieces, at least "
            f"{LEAST_SENTENCES} are wanted and a thousand are better; give more with --text (source, tab, target on "
            "each line)"
        )
    _check_readable(rows, pieces)
    batches = tuple(_batches(rows, config))
    return Calibration(batches, len(rows), sum(len(a) + len(b) + 2 for a, b in rows))


def _check_readable(rows: Sequence[tuple[Sequence[int], Sequence[int]]], pieces: Pieces) -> None:
    """Text in a script that the vocabulary does not have is spelled by unk, or byte by byte."""
    for side, name in enumerate(("source", "target")):
        count = Counter(index for row in rows for index in row[side])
        total = count.total()
        unknown, in_bytes = count[pieces.unk], sum(count[index] for index in pieces.bytes)
        if unknown > 0.1 * total or in_bytes > 0.5 * total:
            raise PruneError(
                f"the model's vocabulary lacks {(unknown + in_bytes) / total:.0%} of the {name} side of the text; is "
                "it in the model's languages?"
            )


def _batches(rows: Sequence[tuple[Sequence[int], Sequence[int]]], config: MarianConfig) -> Iterator[Batch]:
    most = max(64, min(_MOST_TOKENS, _LOGITS // config.decoder_vocab_size))
    batch: list[tuple[Sequence[int], Sequence[int]]] = []
    for row in [*sorted(rows, key=lambda row: (len(row[1]), len(row[0]))), None]:
        width = 0 if row is None else 1 + max(len(row[1]), *(len(one[0]) for one in (*batch, row)))
        if batch and (row is None or (len(batch) + 1) * width > most):
            yield _batch(batch, config)
            batch = []
        if row is not None:
            batch.append(row)


def _batch(rows: Sequence[tuple[Sequence[int], Sequence[int]]], config: MarianConfig) -> Batch:
    source = padded([[*ids, config.eos_token_id] for ids, _ in rows], config.pad_token_id)
    mask = padded([[1] * (len(ids) + 1) for ids, _ in rows], 0).bool()
    start = padded([[config.decoder_start_token_id, *ids] for _, ids in rows], config.pad_token_id)
    labels = padded([[*ids, config.eos_token_id] for _, ids in rows], -100)
    return Batch(source, mask, start, labels)


def measure_loss(network: Network, calibration: Calibration) -> float:
    """The model's loss on some of the text, in nats a token. Raises PruneError if it is no number."""
    loss = network.loss(calibration.first(200))
    if not math.isfinite(loss):
        raise PruneError("the model gives NaN on the text: its weights are too large for a forward pass")
    return loss
