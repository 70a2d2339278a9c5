"""Training text as token ids, packed into memory-mapped files: read in batches at millions of tokens a second.

A folder of five files::

    source.bin, target.bin                  ids of all sentences one after the other, each closed by </s>
    source_offsets.npy, target_offsets.npy  int64 [n + 1]: sentence i is bin[offsets[i]:offsets[i + 1]]
    dataset.json                            what the files are made from, and how much they hold; written last
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from mobilenmt.compression.core.errors import CorpusError
from mobilenmt.compression.core.pairs import Pair, read_pairs
from mobilenmt.compression.core.settings import to_mapping
from mobilenmt.compression.core.stage import content_digest, write_json
from mobilenmt.compression.core.tag_weights import Repeater
from mobilenmt.compression.dataset.augment import Augmenter, AugmentSettings
from mobilenmt.compression.vocabulary.vocabulary import Vocabulary
from mobilenmt.runtime.atomic import remove_temporary

FORMAT = 1
_CARD = "dataset.json"
_SIDES = ("source", "target")
_BATCH = 2048  # pairs tokenized in one call: enough to keep the tokenizers library's threads busy


class PackedDataset:
    """A dataset folder, opened. Holds 8 bytes a pair in memory; the ids stay in the page cache.

    Any number of threads may read from it.
    """

    def __init__(self, folder: Path) -> None:
        """See :meth:`open`."""
        self.folder = Path(folder)
        try:
            card = json.loads((self.folder / _CARD).read_text(encoding="utf-8"))
            if card["format"] != FORMAT:
                raise CorpusError(f"{self.folder}: a dataset of format {card['format']}; this version reads {FORMAT}")
            self.card: dict[str, Any] = card
            count, dtype = int(card["pairs"]), np.dtype(card["dtype"])
            self._offsets = [_map(self.folder / f"{side}_offsets.npy") for side in _SIDES]
            self._ids = [_map_ids(self.folder / f"{side}.bin", dtype) for side in _SIDES]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CorpusError(f"{self.folder}: no complete dataset ({error}); build it anew") from error
        for side, offsets, ids in zip(_SIDES, self._offsets, self._ids, strict=True):
            if offsets.shape != (count + 1,) or offsets.dtype != np.int64 or int(offsets[-1]) != len(ids):
                raise CorpusError(f"{self.folder}: {side}.bin and {side}_offsets.npy do not fit; build it anew")

    @classmethod
    def open(cls, folder: Path) -> PackedDataset:
        """Open a folder that :func:`build_dataset` made.

        :raises CorpusError: something is missing or does not fit together.
        """
        return cls(folder)

    def __len__(self) -> int:
        return len(self._offsets[0]) - 1

    @cached_property
    def source_lengths(self) -> NDArray[np.int32]:
        """Tokens of each source sentence, </s> included: int32 [n]."""
        return np.diff(self._offsets[0]).astype(np.int32)

    @cached_property
    def target_lengths(self) -> NDArray[np.int32]:
        """Tokens of each target sentence, </s> included: int32 [n]."""
        return np.diff(self._offsets[1]).astype(np.int32)

    def source(self, index: int) -> NDArray[np.int64]:
        """Ids of one source sentence, </s> last: int64 [length]."""
        return self._sentence(0, index)

    def target(self, index: int) -> NDArray[np.int64]:
        """Ids of one target sentence, </s> last: int64 [length]."""
        return self._sentence(1, index)

    def gather(
        self, indices: Sequence[int] | NDArray[np.integer[Any]], pad: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Ids of a batch, padded behind: source [B, S] and target [B, T], int64."""
        rows = np.asarray(indices, dtype=np.int64)
        if len(rows) and not (rows.min() >= 0 and rows.max() < len(self)):
            raise IndexError(f"the dataset has {len(self)} pairs")
        return self._padded(0, rows, pad), self._padded(1, rows, pad)

    def _sentence(self, side: int, index: int) -> NDArray[np.int64]:
        if not 0 <= index < len(self):
            raise IndexError(f"the dataset has {len(self)} pairs")
        begin, end = self._offsets[side][index : index + 2]
        return self._ids[side][begin:end].astype(np.int64)

    def _padded(self, side: int, rows: NDArray[np.int64], pad: int) -> NDArray[np.int64]:
        if not len(rows):
            return np.empty((0, 0), dtype=np.int64)
        offsets, ids = self._offsets[side], self._ids[side]
        begins = offsets[rows]
        lengths = offsets[rows + 1] - begins
        columns = np.arange(int(lengths.max()))
        inside = columns < lengths[:, None]
        batch = np.full(inside.shape, pad, dtype=np.int64)
        batch[inside] = ids[(begins[:, None] + columns)[inside]]
        return batch


def build_dataset(
    pairs: Path,
    tokenizer: Path,
    folder: Path,
    *,
    weights: Mapping[str, float],
    augment: AugmentSettings | None,
    seed: int,
    max_tokens: int,
) -> PackedDataset:
    """Tokenize pairs into a dataset folder, in flat memory; a folder made from the same inputs is taken as it is.

    A pair whose tag has weight 3 goes in three times, with 0.5 every second pair of the tag goes in, chosen by a hash
    of its text. Augmented copies (:mod:`mobilenmt.compression.dataset.augment`) stand behind the pairs they are made
    from; order is the trainer's business.

    :param pairs: file of pairs.
    :param tokenizer: the vocabulary folder, or the tokenizer.json in it.
    :param folder: made if needed; the parent must exist.
    :param weights: by tag, or by a pattern of tags such as ``docs*``
        (:func:`mobilenmt.compression.core.tag_weights.weight_of`).
    :param augment: shares of augmented copies; None for none.
    :param seed: the recipe's seed.
    :param max_tokens: pairs with a longer side, </s> included, are left out and counted.
    :raises CorpusError: pairs cannot be read, none are left, or the files cannot be written.
    :raises VocabularyError: the tokenizer does not follow the conventions.
    """
    vocabulary = Vocabulary.load(tokenizer)
    card: dict[str, Any] = {
        "format": FORMAT,
        "made_from": {
            "pairs": content_digest(Path(pairs)) if Path(pairs).exists() else "",
            "tokenizer": content_digest(vocabulary.path),
            "weights": {tag: float(weight) for tag, weight in weights.items()},
            "augment": None if augment is None else to_mapping(augment),
            "seed": seed,
            "max_tokens": max_tokens,
        },
        "vocabulary": vocabulary.size,
        "dtype": "uint16" if vocabulary.size <= 1 << 16 else "uint32",
    }
    folder = Path(folder)
    if _made_from(folder) == card["made_from"]:
        return PackedDataset.open(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _CARD).unlink(missing_ok=True)
        remove_temporary(folder)
        with _Writer(folder, card["dtype"], max_tokens) as writer:
            augmenter = None
            if augment is not None and augment.total() > 0:
                augmenter = Augmenter(augment, seed, languages=vocabulary.languages, pairs=lambda: read_pairs(pairs))
            stream = _weighted(pairs, weights, augmenter, seed)
            while batch := list(itertools.islice(stream, _BATCH)):
                writer.add(vocabulary, batch)
            if not writer.counts["pairs"]:
                raise CorpusError(f"{pairs}: no pair is left for training: {dict(writer.counts) or 'it is empty'}")
            writer.finish()
        card |= {"pairs": writer.counts["pairs"], "counts": dict(sorted(writer.counts.items()))}
        card["tokens"] = {side: writer.tokens[side] for side in _SIDES}
        write_json(folder / _CARD, card)
    except OSError as error:
        raise CorpusError(f"{folder}: the dataset cannot be written: {error.strerror or error}") from error
    return PackedDataset.open(folder)


def _weighted(
    pairs: Path, weights: Mapping[str, float], augmenter: Augmenter | None, seed: int
) -> Iterator[tuple[str, Pair]]:
    """Yield (what it is, pair): each pair as often as its weight says, and its augmented copies."""
    repeater = Repeater(weights, seed, "weight")
    for pair in _progress(read_pairs(pairs)):
        for copy in range(repeater.times(pair)):
            yield "plain", pair
            if augmenter is not None:
                yield from augmenter.augment(pair, copy)


def _progress(pairs: Iterator[Pair]) -> Iterator[Pair]:
    from tqdm import tqdm

    return iter(tqdm(pairs, desc="tokenize", unit=" pairs", unit_scale=True, mininterval=1.0, disable=None))


class _Writer:
    """Appends sentences to the temporary files of a dataset."""

    def __init__(self, folder: Path, dtype: str, max_tokens: int) -> None:
        self._folder = folder
        self._dtype = np.dtype(dtype)
        self._max_tokens = max_tokens
        self._files: dict[str, IO[bytes]] = {}
        self.counts: Counter[str] = Counter()
        self.tokens: Counter[str] = Counter()

    def __enter__(self) -> _Writer:
        for side in _SIDES:
            for kind in ("ids", "offsets"):
                self._files[f"{side} {kind}"] = self._path(side, kind).open("wb")
            self._files[f"{side} offsets"].write(np.zeros(1, np.int64).tobytes())
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files.values():
            file.close()
        for side in _SIDES:
            for kind in ("ids", "offsets"):
                self._path(side, kind).unlink(missing_ok=True)

    def _path(self, side: str, kind: str) -> Path:
        return self._folder / f"{side}_{kind}.tmp-{os.getpid()}"

    def add(self, vocabulary: Vocabulary, batch: list[tuple[str, Pair]]) -> None:
        sources = vocabulary.encode_batch([pair.source for _, pair in batch])
        targets = vocabulary.encode_batch([pair.target for _, pair in batch])
        kept: tuple[list[list[int]], list[list[int]]] = ([], [])
        for (kind, _), source, target in zip(batch, sources, targets, strict=True):
            if max(len(source), len(target)) >= self._max_tokens:  # </s> comes on top
                self.counts["too_long"] += 1
            elif not source or not target:
                self.counts["empty"] += 1
            else:
                self.counts["pairs"] += 1
                self.counts[kind] += 1
                kept[0].append(source)
                kept[1].append(target)
        eos = [vocabulary.eos]
        for side, sentences in zip(_SIDES, kept, strict=True):
            flat = np.fromiter(
                itertools.chain.from_iterable(itertools.chain(ids, eos) for ids in sentences), self._dtype
            )
            ends = np.cumsum(np.fromiter((len(ids) + 1 for ids in sentences), np.int64, len(sentences)))
            self._files[f"{side} ids"].write(flat.tobytes())
            self._files[f"{side} offsets"].write((ends + self.tokens[side]).tobytes())
            self.tokens[side] += len(flat)

    def finish(self) -> None:
        """Give the files their names."""
        for file in self._files.values():
            _sync_close(file)
        for side in _SIDES:
            self._path(side, "ids").replace(self._folder / f"{side}.bin")
            final = self._folder / f"{side}_offsets.npy"
            temporary = final.with_name(f"{final.name}.tmp-{os.getpid()}")
            with temporary.open("wb") as out, self._path(side, "offsets").open("rb") as raw:
                header = {"descr": "<i8", "fortran_order": False, "shape": (self.counts["pairs"] + 1,)}
                np.lib.format.write_array_header_1_0(out, header)  # type: ignore[no-untyped-call]
                shutil.copyfileobj(raw, out, 1 << 20)
                _sync_close(out)
            temporary.replace(final)


def _sync_close(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())
    file.close()


def _made_from(folder: Path) -> Any:
    try:
        return json.loads((folder / _CARD).read_text(encoding="utf-8"))["made_from"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _map(path: Path) -> NDArray[np.int64]:
    # a plain array over the mapping: np.memmap's own indexing does bookkeeping for every slice
    return np.asarray(np.load(path, mmap_mode="r"))


def _map_ids(path: Path, dtype: np.dtype[Any]) -> NDArray[Any]:
    return np.asarray(np.memmap(path, dtype=dtype, mode="r"))
