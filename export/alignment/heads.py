"""Which of a pack's cross-attention heads aligns best: all are compared with a statistical aligner on parallel text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mobilenmt.export.alignment.aligner import Links, align, error_rate
from mobilenmt.export.alignment.words import Words
from mobilenmt.runtime.errors import InputError
from mobilenmt.runtime.manifest import Alignment
from mobilenmt.runtime.onnx.ort import SessionConfig, open_session
from mobilenmt.runtime.onnx.stepwise import Stepper
from mobilenmt.runtime.opening import open_tokenizer
from mobilenmt.runtime.pack import Pack

LEAST_PAIRS = 100
"""With fewer the aligner learns nothing."""


@dataclass(frozen=True)
class Measured:
    """What each head, and the mean of each layer's, is worth as an aligner."""

    heads: tuple[Alignment, ...]
    """The best first, with their error rates."""
    sentences: int

    @property
    def best(self) -> Alignment:
        """The one with the least error rate."""
        return self.heads[0]


def measure_heads(pack: Pack, texts: Sequence[tuple[str, str]], measured: int | None = None) -> Measured:
    """Let the decoder read the target side of parallel text, and see where its heads look.

    Args:
        pack: with a decoder.onnx that tells where it looks.
        texts: sources and targets, one sentence each; all of them teach the aligner. It works on words, and links of
            punctuation marks, which may be part of a token, do not count.
        measured: compare the heads on the first so many of them; None for all.

    Raises:
        InputError: too few pairs, or a decoder.onnx of an older format.
    """
    tokenizer = open_tokenizer(pack)
    most = pack.manifest.model.max_positions - 1
    pairs = [(tokenizer.encode(source), tokenizer.encode(target)) for source, target in texts]
    pairs = [(source, target) for source, target in pairs if 0 < len(source) <= most and 0 < len(target) < most]
    if len(pairs) < LEAST_PAIRS:
        raise InputError(
            f"{len(pairs)} pairs of sentences are too few to compare attention heads: {LEAST_PAIRS} at least"
        )
    words = [
        (Words.of_pieces(tokenizer.pieces(source)), Words.of_pieces(tokenizer.pieces(target)))
        for source, target in pairs
    ]
    numbers: dict[str, int] = {}

    def number(side: Words) -> list[int]:
        return [numbers.setdefault(word, len(numbers)) for word in side.words]

    wanted = [
        frozenset((i, j) for i, j in links if one.has_letters(i) and other.has_letters(j))
        for links, (one, other) in zip(
            align([(number(a), number(b)) for a, b in words]), words[:measured], strict=False
        )
    ]
    config = SessionConfig()
    encoder, decoder = (open_session(pack.file(name), config) for name in ("encoder.onnx", "decoder.onnx"))
    stepper = Stepper(encoder, decoder, pack.manifest)
    found: dict[tuple[int, int | None, int], list[Links]] = {}
    for (source, target), sides in zip(pairs, words[:measured], strict=False):
        looked = stepper.attention(source, target)
        for layer, rows in enumerate(looked):
            for head, row in (*enumerate(rows), (None, rows.mean(axis=0))):  # of equal ones a single head
                places = row.argmax(axis=1)
                for later in (0, 1):
                    links = _links(places[later : later + len(target)].tolist(), *sides)
                    found.setdefault((layer, head, later), []).append(links)
    errors = {key: error_rate(links, wanted) for key, links in found.items()}
    ranked = sorted(errors.items(), key=lambda item: item[1])
    return Measured(
        tuple(Alignment(layer, head, later, round(error, 4)) for (layer, head, later), error in ranked), len(wanted)
    )


def read_texts(files: Sequence[Path], lines: int) -> tuple[list[tuple[str, str]], int]:
    """Pairs of all files, first those to measure on: ``lines`` of the first file, taken evenly, and their number.

    Raises:
        InputError: a file cannot be read, or a line has no tab.
    """
    pairs: list[list[tuple[str, str]]] = []
    for file in files:
        try:
            content = file.read_text(encoding="utf-8")
        except (OSError, UnicodeError) as error:
            raise InputError(f"{file}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
        rows = [line.split("\t") for line in content.split("\n") if line]
        for number, row in enumerate(rows, 1):
            if len(row) < 2:
                raise InputError(f"{file}:{number}: no tab between source and target")
        pairs.append([(row[0], row[1]) for row in rows])
    first = pairs[0]
    lines = min(lines, len(first))
    chosen = {index * len(first) // lines for index in range(lines)} if lines else set()
    front = [pair for index, pair in enumerate(first) if index in chosen]
    rest = [pair for index, pair in enumerate(first) if index not in chosen]
    return [*front, *rest, *(pair for others in pairs[1:] for pair in others)], lines


MEASURED = 1000
"""Sentences that are enough to tell heads apart."""


def choose_head(
    pack: Pack, texts: Sequence[tuple[str, str]], *, report: Callable[[str], None] = lambda line: None
) -> Alignment:
    """The head that aligns best, told in a line."""
    found = measure_heads(pack, texts, MEASURED)
    report(f"alignment: {describe(found.best)} of {found.sentences} sentences")
    return found.best


def describe(head: Alignment) -> str:
    """For people; layers and heads are counted from 1."""
    who = "mean of the heads" if head.head is None else f"head {head.head + 1}"
    when = ", a step later" if head.later else ""
    return f"{who} of layer {head.layer + 1}{when}, error rate {head.aer:.3f}"


def _links(places: Sequence[int], source: Words, target: Words) -> Links:
    """Words that a token of one looks from at a token of the other; who looks at the end token looks at nothing."""
    found = {(source.of[i], target.of[j]) for j, i in enumerate(places) if i < len(source.of)}
    return frozenset((i, j) for i, j in found if i is not None and j is not None)
