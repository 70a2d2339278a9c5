"""Training text as token ids, packed into memory-mapped files: read in batches at millions of tokens a second.

A folder of five files::

    source.bin, target.bin                  ids of all sentences one after the other, each closed by </s>
    source_offsets.npy, target_offsets.npy  int64 [n + 1]: sentence i is bin[offsets[i]:offsets[i + 1]]
    dataset.json                            what the files are made from, and how much they hold; written last
"""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobilenmt.compression.core.cores import usable_cores
from mobilenmt.compression.core.errors import CorpusError
from mobilenmt.compression.core.pairs import Pair, read_pairs
from mobilenmt.compression.core.progress import progress
from mobilenmt.compression.core.settings import to_mapping
from mobilenmt.compression.core.stage import content_digest, write_json
from mobilenmt.compression.core.tag_weights import Repeater
from mobilenmt.compression.dataset.augment import Augmenter, AugmentSettings
from mobilenmt.compression.dataset.shards import SIDES, Job, make_shards, read_shard
from mobilenmt.compression.vocabulary.vocabulary import Vocabulary
from mobilenmt.runtime.atomic import atomic_path, remove, remove_temporary

FORMAT = 1
_CARD = "dataset.json"


class PackedDataset:
    """A dataset folder, opened. Holds 8 bytes a pair in memory; the ids stay in the page cache.

    Any number of threads may read from it.

    :raises CorpusError: something is missing or does not fit together.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        try:
            card = json.loads((self.folder / _CARD).read_text(encoding="utf-8"))
            if card["format"] != FORMAT:
                raise CorpusError(f"{self.folder}: a dataset of format {card['format']}; this version reads {FORMAT}")
            self.card: dict[str, Any] = card
            count, dtype = int(card["pairs"]), np.dtype(card["dtype"])
            # plain arrays over the mappings: np.memmap's own indexing does bookkeeping for every slice
            tables = [np.load(self.folder / f"{side}_offsets.npy", mmap_mode="r") for side in SIDES]
            self._offsets: list[NDArray[np.int64]] = [np.asarray(table) for table in tables]
            self._ids = [np.asarray(np.memmap(self.folder / f"{side}.bin", dtype, "r")) for side in SIDES]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CorpusError(f"{self.folder}: no complete dataset ({error}); build it anew") from error
        for side, offsets, ids in zip(SIDES, self._offsets, self._ids, strict=True):
            if offsets.shape != (count + 1,) or offsets.dtype != np.int64 or int(offsets[-1]) != len(ids):
                raise CorpusError(f"{self.folder}: {side}.bin and {side}_offsets.npy do not fit; build it anew")

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
    processes: int = 0,
) -> PackedDataset:
    """Tokenize pairs into a dataset folder, in flat memory; a folder made from the same inputs is taken as it is.

    A pair whose tag has weight 3 goes in three times, with 0.5 every second pair of the tag goes in, chosen by a hash
    of its text. Augmented copies (:mod:`mobilenmt.compression.dataset.augment`) stand behind the pairs they are made
    from; order is the trainer's business. Killed, the same call goes on with the shards that are done
    (:mod:`mobilenmt.compression.dataset.shards`).

    :param pairs: file of pairs.
    :param tokenizer: the vocabulary folder, or the tokenizer.json in it.
    :param folder: made if needed; the parent must exist.
    :param weights: by tag, or by a pattern of tags such as ``docs*``
        (:func:`mobilenmt.compression.core.tag_weights.weight_of`).
    :param augment: shares of augmented copies; None for none.
    :param seed: the recipe's seed.
    :param max_tokens: pairs with a longer side, </s> included, are left out and counted.
    :param processes: how many tokenize at most; 0 for one a core this process may use, and never more.
        The bytes do not depend on it.
    :raises CorpusError: pairs cannot be read, none are left, or the files cannot be written.
    :raises VocabularyError: the tokenizer does not follow the conventions.
    """
    vocabulary, folder = Vocabulary.load(tokenizer), Path(folder)
    made_from: dict[str, Any] = {
        "pairs": content_digest(Path(pairs)) if Path(pairs).exists() else "",
        "tokenizer": content_digest(vocabulary.path),
        "languages": list(vocabulary.languages),
        "weights": {tag: float(weight) for tag, weight in weights.items()},
        "augment": None if augment is None else to_mapping(augment),
        "seed": seed,
        "max_tokens": max_tokens,
    }
    with contextlib.suppress(CorpusError):
        found = PackedDataset(folder)
        if found.card["made_from"] == made_from:
            return found
    dtype = "uint16" if vocabulary.size <= 1 << 16 else "uint32"
    job = Job(str(folder / "shards"), str(vocabulary.path), made_from["tokenizer"], dtype, max_tokens)
    shards = []
    try:
        Path(job.folder).mkdir(parents=True, exist_ok=True)
        (folder / _CARD).unlink(missing_ok=True)
        remove_temporary(folder)
        augmenter = None
        if augment is not None and augment.total() > 0:
            augmenter = Augmenter(augment, seed, languages=vocabulary.languages, pairs=lambda: read_pairs(pairs))
        stream = _weighted(pairs, weights, augmenter, seed)
        cores = usable_cores()
        making = make_shards(job, stream, min(processes or cores, cores))
        with contextlib.closing(making), progress("tokenize", "pairs") as bar:
            for shard, count in making:
                shards.append(shard)
                bar.update(count)
        counts: Counter[str] = Counter()
        for shard in shards:
            counts.update(json.loads(str(read_shard(shard, "counts"))))
        if not counts["pairs"]:
            raise CorpusError(f"{pairs}: no pair is left for training: {dict(counts) or 'it is empty'}")
        card = {
            "format": FORMAT,
            "made_from": made_from,
            "vocabulary": vocabulary.size,
            "dtype": dtype,
            "pairs": counts["pairs"],
            "counts": dict(sorted(counts.items())),
            "tokens": {side: _merge(folder, side, shards, counts["pairs"]) for side in SIDES},
        }
        write_json(folder / _CARD, card)
        remove(Path(job.folder))
    except OSError as error:
        raise CorpusError(f"{folder}: the dataset cannot be written: {error.strerror or error}") from error
    return PackedDataset(folder)


def _weighted(
    pairs: Path, weights: Mapping[str, float], augmenter: Augmenter | None, seed: int
) -> Iterator[tuple[str, Pair]]:
    """Yield (what it is, pair): each pair as often as its weight says, and its augmented copies."""
    repeater = Repeater(weights, seed, "weight")
    for pair in read_pairs(pairs):
        for copy in range(repeater.times(pair)):
            yield "plain", pair
            if augmenter is not None:
                yield from augmenter.augment(pair, copy)


def _merge(folder: Path, side: str, shards: Sequence[Path], pairs: int) -> int:
    """Write the two files of a side; return its tokens."""
    tokens = 0
    offsets = folder / f"{side}_offsets.npy"
    with (
        atomic_path(folder / f"{side}.bin") as ids,
        ids.open("wb") as out,
        atomic_path(offsets) as temporary,
        temporary.open("wb") as table,
    ):
        header = {"descr": "<i8", "fortran_order": False, "shape": (pairs + 1,)}
        np.lib.format.write_array_header_1_0(table, header)  # type: ignore[no-untyped-call]
        table.write(np.zeros(1, np.int64).tobytes())
        for shard in shards:
            out.write(read_shard(shard, side).tobytes())
            ends = np.cumsum(read_shard(shard, f"{side}_lengths"), dtype=np.int64) + tokens
            table.write(ends.tobytes())
            tokens = int(ends[-1]) if len(ends) else tokens
    return tokens
