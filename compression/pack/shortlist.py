"""Learn a lexical shortlist from what a model translates: which target tokens each source token brings along.

Alignments come from IBM model 1 (Brown et al. 1993) between subword ids. A token of a translation that is not common is
charged to the source token it is aligned with; each source token keeps those it is charged with most often.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from mobilenmt.compression.core.errors import CorpusError, VocabularyError
from mobilenmt.compression.core.streams import READ_ERRORS, open_bytes
from mobilenmt.runtime.errors import InputError
from mobilenmt.runtime.hypothesis import SearchOptions

if TYPE_CHECKING:
    from mobilenmt.export.shortlist import Shortlist
    from mobilenmt.runtime.onnx.engine import Engine

Ids = npt.NDArray[np.int64]
_ITERATIONS = 4
_BATCH = 64  # sentences
_FEWEST = 20
_LONGEST = 100  # tokens of a side; longer pairs align badly and cost their square


@dataclass(frozen=True)
class ShortlistSettings:
    """How many candidates a sentence gets."""

    common: int = 500
    """Most frequent target tokens, candidates of every sentence."""
    per_token: int = 16
    """Further candidates for each source token, itself included (names and numbers are copied)."""
    links: int = 40_000_000
    """Most pairs of a source and a target token to align; bounds memory at about 40 bytes each."""

    def __post_init__(self) -> None:
        for name, least, most in (("common", 1, 10**6), ("per_token", 2, 1024), ("links", 1, 10**10)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
                raise InputError(f"{name} must be an integer from {least} to {most:,}, not {value!r}")


@dataclass(frozen=True)
class Coverage:
    """How well a shortlist covers translations that it was not learned from."""

    tokens: float
    """Share of target tokens that are candidates."""
    sentences: float
    """Share of translations whose tokens all are."""
    candidates: float
    """Candidates a sentence, in the mean."""


def read_texts(files: Sequence[Path]) -> Iterator[str]:
    """Lines of text files, plain or compressed, each up to its first tab; CorpusError if one cannot be read."""
    for file in files:
        try:
            with open_bytes(file) as stream:
                for line in stream:
                    yield line.decode("utf-8", "replace").rstrip("\r\n").partition("\t")[0]
        except READ_ERRORS as error:
            reason = getattr(error, "strerror", None) or error
            raise CorpusError(f"{file}: cannot be read: {reason}") from error


def sample_lines(lines: Iterable[str], count: int, seed: int = 0) -> list[str]:
    """Up to ``count`` of the lines, each as likely as any other and in their order; memory does not grow with the
    text."""
    random = np.random.default_rng(seed)
    kept: list[tuple[int, str]] = []
    for index, line in enumerate(lines):
        if len(kept) < count:
            kept.append((index, line))
        elif (place := int(random.integers(index + 1))) < count:
            kept[place] = (index, line)
    return [line for _, line in sorted(kept)]


def learn_shortlist(
    pairs: Iterable[tuple[Sequence[int], Sequence[int]]],
    *,
    source_vocab_size: int,
    target_vocab_size: int,
    eos: int,
    banned: Sequence[int] = (),
    shared: bool = True,
    settings: ShortlistSettings | None = None,
) -> Shortlist:
    """Learn from pairs of source and target ids, best the model's own greedy translations of varied text.

    Args:
        pairs: ids of a source and of its translation, special tokens not included.
        source_vocab_size, target_vocab_size: rows of the embeddings.
        eos: the end token, always a candidate.
        banned: tokens that are never generated, never candidates.
        shared: source and target have one vocabulary, so that each token is a candidate for itself.
        settings: sizes; None for the defaults.

    Raises:
        VocabularyError: no pairs, or ids outside the vocabularies.
    """
    settings = settings or ShortlistSettings()
    sources, targets = _collect(pairs, settings.links)
    if not sources:
        raise VocabularyError("a shortlist needs pairs of a source and its translation; there are none")
    flat_source, flat_target = np.concatenate(sources), np.concatenate(targets)
    if flat_source.max() >= source_vocab_size or flat_target.max() >= target_vocab_size:
        raise VocabularyError(
            "the pairs for the shortlist hold ids outside the model's vocabulary; encode them with its tokenizer"
        )
    allowed = np.ones(target_vocab_size, bool)
    allowed[list(banned)] = False
    frequency = np.bincount(flat_target, minlength=target_vocab_size) * allowed
    common = np.argsort(-frequency, kind="stable")[: settings.common]
    common = np.union1d(common[frequency[common] > 0], [eos])
    charged = _charges(sources, targets, target_vocab_size)
    charged = (charged[0][allowed[charged[0] % target_vocab_size]], charged[1][allowed[charged[0] % target_vocab_size]])
    is_common = np.zeros(target_vocab_size, bool)
    is_common[common] = True
    lexical = _best(charged, source_vocab_size, target_vocab_size, is_common, settings.per_token, eos)
    if shared:
        lexical[:, -1] = np.where(allowed[: len(lexical)], np.arange(len(lexical)), eos)
    from mobilenmt.export.shortlist import Shortlist

    return Shortlist(common.astype(np.int32), lexical.astype(np.int32))


def make_shortlist(
    checkpoint: Path, texts: Sequence[str], *, settings: ShortlistSettings | None = None, progress: bool = False
) -> tuple[Shortlist, Coverage]:
    """Translate ``texts`` with a checkpoint, as an INT8 pack with all tokens, and learn its shortlist from that.

    Args:
        checkpoint: a Marian checkpoint folder, as :func:`mobilenmt.export.export.export` reads it.
        texts: source sentences, tens of thousands of the kind that the model is meant for. The last twentieth is left
            out of the learning and measured.
        settings: sizes; None for the defaults.
        progress: show a bar on standard error.

    Raises:
        VocabularyError: fewer than 20 texts that are not empty.
        CheckpointError, ExportError: see the exporter.
    """
    from mobilenmt.export.export import export
    from mobilenmt.runtime.onnx.engine import Engine
    from mobilenmt.runtime.tokenizer import Tokenizer

    with tempfile.TemporaryDirectory() as folder:
        pack = export(checkpoint, Path(folder) / "pack", name="pack", shortlist=False)
        manifest = pack.manifest
        shared = "tokenizer.target.json" not in manifest.files
        tokenizer = Tokenizer(pack.file("tokenizer.json"), manifest.tokens, manifest.model.source_vocab_size)
        longest = min(_LONGEST, manifest.model.max_positions - 1)
        sources = [ids for text in texts if 0 < len(ids := tokenizer.encode(text)) <= longest]
        if len(sources) < _FEWEST:
            raise VocabularyError(
                f"a shortlist is learned from at least {_FEWEST} sentences, better 50,000; found {len(sources)}"
            )
        pairs = _translations(Engine(pack), sources, manifest.tokens.eos, progress)
        tokens, generation = manifest.tokens, manifest.generation
    held = max(1, len(pairs) // 20)
    shortlist = learn_shortlist(
        pairs[:-held],
        source_vocab_size=manifest.model.source_vocab_size,
        target_vocab_size=manifest.model.target_vocab_size,
        eos=tokens.eos,
        banned=generation.bad_token_ids,
        shared=shared,
        settings=settings,
    )
    return shortlist, measure_coverage(shortlist, pairs[-held:])


def shortlist_from_pairs(
    checkpoint: Path, pairs: Sequence[tuple[str, str]], *, settings: ShortlistSettings | None = None
) -> tuple[Shortlist, Coverage]:
    """Learn a student's shortlist from sentence pairs: the text that it was trained on, best a teacher's.

    Faster than :func:`make_shortlist`, so that it can learn from all the text, where rare words are.

    Args:
        checkpoint: a student's folder: a Marian checkpoint with one tokenizer.json and tied embeddings.
        pairs: source and target; one in twenty is left out of the learning and measured.
        settings: sizes; None for the defaults.

    Raises:
        VocabularyError: fewer than 20 pairs of sentences that are neither empty nor too long.
        CheckpointError: the folder is no such checkpoint.
    """
    from mobilenmt.compression.vocabulary.vocabulary import Vocabulary
    from mobilenmt.export.checkpoint import load_checkpoint

    loaded = load_checkpoint(checkpoint)
    vocabulary = Vocabulary.load(checkpoint)
    encoded = zip(
        vocabulary.encode_batch([source for source, _ in pairs]),
        vocabulary.encode_batch([target for _, target in pairs]),
        strict=True,
    )
    eos = loaded.config.eos_token_id
    ids = [([*a, eos], b) for a, b in encoded if 0 < len(a) <= _LONGEST and 0 < len(b) <= _LONGEST]
    if len(ids) < _FEWEST:
        raise VocabularyError(f"a shortlist is learned from at least {_FEWEST} pairs; found {len(ids)}")
    shortlist = learn_shortlist(
        [pair for index, pair in enumerate(ids) if index % 20],
        source_vocab_size=loaded.config.vocab_size,
        target_vocab_size=loaded.config.decoder_vocab_size,
        eos=eos,
        banned=loaded.generation.bad_token_ids,
        settings=settings,
    )
    return shortlist, measure_coverage(shortlist, ids[::20])


def _translations(
    engine: Engine, sources: list[list[int]], eos: int, progress: bool
) -> list[tuple[Sequence[int], Sequence[int]]]:
    """Pairs of a source, its end token included as the engine reads it, and its greedy translation; in order."""
    from tqdm import tqdm

    order = sorted(range(len(sources)), key=lambda index: len(sources[index]))
    found: list[Sequence[int]] = [()] * len(sources)
    with tqdm(total=len(sources), unit=" sentences", disable=not progress) as bar:
        for start in range(0, len(order), _BATCH):
            group = order[start : start + _BATCH]
            limits = [min(2 * len(sources[index]) + 10, engine.max_length) for index in group]
            results = engine.generate([sources[index] for index in group], limits, SearchOptions(together=True))
            for index, (best,) in zip(group, results, strict=True):
                found[index] = best.ids
            bar.update(len(group))
    return [([*source, eos], target) for source, target in zip(sources, found, strict=True)]


def measure_coverage(shortlist: Shortlist, pairs: Iterable[tuple[Sequence[int], Sequence[int]]]) -> Coverage:
    """Coverage on other pairs; at least one."""
    tokens = covered = sentences = whole = candidates = 0
    for source, target in pairs:
        found = shortlist.candidates(np.asarray(source, np.int64))
        inside = int(np.isin(target, found).sum())
        tokens, covered = tokens + len(target), covered + inside
        sentences, whole = sentences + 1, whole + (inside == len(target))
        candidates += len(found)
    if not tokens:
        raise VocabularyError("coverage of a shortlist needs at least one translation to measure")
    return Coverage(covered / tokens, whole / sentences, candidates / sentences)


def _collect(pairs: Iterable[tuple[Sequence[int], Sequence[int]]], links: int) -> tuple[list[Ids], list[Ids]]:
    sources: list[Ids] = []
    targets: list[Ids] = []
    total = 0
    for source, target in pairs:
        if not 0 < len(source) <= _LONGEST or not 0 < len(target) <= _LONGEST:
            continue
        total += len(source) * len(target)
        if total > links:
            break
        sources.append(np.asarray(source, np.int64))
        targets.append(np.asarray(target, np.int64))
    return sources, targets


def _charges(sources: list[Ids], targets: list[Ids], width: int) -> tuple[Ids, npt.NDArray[np.float64]]:
    """Codes ``source * width + target`` of linked tokens, and how often the target is aligned with the source."""
    source_lengths = np.array([len(item) for item in sources])
    target_lengths = np.array([len(item) for item in targets])
    # Links in the order of target positions, each with all tokens of its source: one segment a target position.
    segments = np.repeat(source_lengths, target_lengths)
    target = np.repeat(np.concatenate(targets), segments)
    source = np.concatenate([np.tile(s, len(t)) for s, t in zip(sources, targets, strict=True)])
    codes, link = np.unique(source * width + target, return_inverse=True)
    del source, target
    starts = np.concatenate([[0], np.cumsum(segments)[:-1]])
    owner = codes // width
    theta = np.full(len(codes), 1.0)
    counts = theta
    for _ in range(_ITERATIONS):
        weights = theta[link]
        weights /= np.repeat(np.add.reduceat(weights, starts), segments)
        counts = np.bincount(link, weights, minlength=len(codes))
        theta = counts / np.bincount(owner, counts)[owner]
    return codes, counts


def _best(
    charged: tuple[Ids, npt.NDArray[np.float64]],
    rows: int,
    width: int,
    is_common: npt.NDArray[np.bool_],
    n: int,
    eos: int,
) -> npt.NDArray[np.int64]:
    """int64 [rows, n]: for each source token the targets it is charged with most, common ones aside."""
    codes, counts = charged
    keep = ~is_common[codes % width] & (counts > 0.01)
    codes, counts = codes[keep], counts[keep]
    order = np.lexsort((codes, -counts, codes // width))
    owner = codes[order] // width
    first = np.searchsorted(owner, owner)
    rank = np.arange(len(order)) - first
    best = rank < n - 1  # the last column is for the token itself
    table = np.full((rows, n), eos, np.int64)
    table[owner[best], rank[best]] = codes[order][best] % width
    return table
