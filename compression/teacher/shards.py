"""Shards of the teacher's work: made in any order by anyone, each kept as soon as it is whole, merged at the end.

``shards/NNNNN.tsv.zst`` holds the finished lines of a shard, ``shards/index.jsonl`` one line for each: number, SHA-256
of the file, and counts. The file takes its name first and is entered second, so a kill leaves at worst a file that is
not entered, which is made again. What a shard holds depends on its sources and the settings alone, so the merged text
is the same after any number of kills, and on any number of machines.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mobilenmt.compression.core.errors import CorpusError, TeacherError
from mobilenmt.compression.core.hashing import Hasher
from mobilenmt.compression.core.pairs import Pair, PairWriter, read_pairs
from mobilenmt.compression.core.stage import file_digest

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

INDEX = "index.jsonl"


class Item(NamedTuple):
    """A source to translate, with the targets and tags it has in the corpus, in their order there."""

    source: str
    targets: tuple[tuple[str, str], ...]
    """(target, tag), without repetitions."""


@dataclass(frozen=True)
class ShardText:
    """A translated shard."""

    number: int
    pairs: Sequence[Pair]
    counts: Mapping[str, int]
    seconds: float


def pack_items(items: Sequence[Item]) -> bytes:
    """A shard's request as bytes: JSON, the same for the same items."""
    return json.dumps(items, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")


def unpack_items(request: bytes) -> list[Item]:
    """Inverse of :func:`pack_items`."""
    raw = json.loads(request.decode("utf-8", "surrogatepass"))
    return [Item(source, tuple((target, tag) for target, tag in targets)) for source, targets in raw]


@dataclass(frozen=True)
class ShardPlan:
    """Which sources make up which shard: distinct sources in the order of their first occurrence."""

    pairs: Path
    shard_size: int
    sources: int
    """Distinct sources."""
    first: npt.NDArray[np.bool_] = field(repr=False)
    """[pairs of the corpus]: whether a source occurs here for the first time."""
    later: Mapping[int, Sequence[tuple[str, str]]] = field(repr=False)
    """For sources (by number) that occur again: the further (target, tag) that matter."""

    @property
    def shards(self) -> int:
        """Number of shards."""
        return -(-self.sources // self.shard_size)

    def size(self, number: int) -> int:
        """Sources of a shard."""
        return min(self.shard_size, self.sources - number * self.shard_size)

    def requests(self, numbers: Iterable[int]) -> Iterator[tuple[int, bytes]]:
        """Yield (number, request) of the given shards, in ascending order, reading the corpus once."""
        wanted = set(numbers)
        items: list[Item] = []
        count = 0
        for pair, is_first in zip(read_pairs(self.pairs), self.first.tolist(), strict=True):
            if not is_first:
                continue
            number = count // self.shard_size
            if number in wanted:
                targets = dict.fromkeys([(pair.target, pair.tag), *self.later.get(count, ())])
                items.append(Item(pair.source, tuple(targets)))
            count += 1
            if items and (count % self.shard_size == 0 or count == self.sources):
                yield number, pack_items(items)
                wanted.discard(number)
                items = []
                if not wanted:
                    return


def plan_shards(pairs: Path, shard_size: int, *, all_targets: bool) -> ShardPlan:
    """Find equal sources, and divide the distinct ones into shards.

    Takes some 40 bytes a pair while it works, and the targets and tags of sources that occur more than once.

    Args:
        pairs: the corpus.
        shard_size: sources of a shard.
        all_targets: keep every target of a source; otherwise the first one for each tag.
    """
    import numpy as np

    hasher = Hasher(0, "teacher")
    hashes = np.fromiter((hasher.integer(pair.source) for pair in read_pairs(pairs)), np.uint64)
    _, places, group, repetitions = np.unique(hashes, return_index=True, return_inverse=True, return_counts=True)
    first = np.zeros(len(hashes), bool)
    first[places] = True
    number_of = (np.cumsum(first) - 1)[places][group]  # in the order of first occurrence
    again = (repetitions > 1)[group]
    later: dict[int, dict[tuple[str, str], None]] = {}
    tags: dict[int, set[str]] = {}
    if again.any():
        for pair, number, is_again in zip(read_pairs(pairs), number_of.tolist(), again.tolist(), strict=True):
            if not is_again:
                continue
            known = tags.setdefault(number, set())
            if all_targets or pair.tag not in known:
                later.setdefault(number, {})[pair.target, pair.tag] = None
            known.add(pair.tag)
    return ShardPlan(pairs, shard_size, len(places), first, {key: tuple(value) for key, value in later.items()})


class ShardStore:
    """The shards that are done: files and their index."""

    def __init__(self, folder: Path, plan: ShardPlan) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._plan = plan
        self._index = self._read_index()

    def path(self, number: int) -> Path:
        """File of a shard."""
        return self._folder / f"{number:05d}.tsv.zst"

    def pending(self) -> list[int]:
        """Numbers of the shards that still have to be made; a damaged one is made again."""
        return [number for number in range(self._plan.shards) if not self._is_whole(number)]

    def fill(self, results: Iterator[ShardText], pending: Sequence[int]) -> None:
        """Store the pending shards as they come, with a progress bar on stderr.

        Raises:
            TeacherError: the disk is full or cannot be written to, or a shard did not come.
        """
        from tqdm import tqdm  # type: ignore[import-untyped,unused-ignore]

        missing = set(pending)
        done = self._plan.sources - sum(self._plan.size(number) for number in pending)
        with tqdm(
            total=self._plan.sources, initial=done, unit="sentence", desc="teacher", file=sys.stderr, smoothing=0.05
        ) as bar:
            for shard in results:
                if shard.number in missing:
                    self._store(shard)
                    missing.discard(shard.number)
                    bar.update(self._plan.size(shard.number))
        if missing:
            raise TeacherError(
                f"{len(missing)} of {len(pending)} shards did not come back, the first is {min(missing)}; "
                "run the command again to have them made"
            )

    def merge(self, path: Path) -> dict[str, Any]:
        """Write all shards as one file of pairs, and return their counts added up."""
        total: dict[str, Any] = {}
        with _disk(path), PairWriter(path) as writer:
            for number in range(self._plan.shards):
                for pair in read_pairs(self.path(number)):
                    writer.write(pair)
                for key, value in self._index[number]["counts"].items():
                    total[key] = total.get(key, 0) + value
        if not writer.count:
            raise TeacherError(
                f"none of {self._plan.sources} sources was left with a translation; read a few lines of the teacher's "
                "output: is the family, the language or the prompt wrong?"
            )
        seconds = sum(entry["seconds"] for entry in self._index.values())
        return {**total, "sources": self._plan.sources, "pairs": writer.count, "seconds": round(seconds, 3)}

    def _store(self, shard: ShardText) -> None:
        path = self.path(shard.number)
        with _disk(path):
            with PairWriter(path) as writer:
                for pair in shard.pairs:
                    writer.write(pair)
            entry = {
                "shard": shard.number,
                "sha256": file_digest(path),
                "counts": dict(shard.counts),
                "seconds": round(shard.seconds, 3),
            }
            with (self._folder / INDEX).open("ab") as stream:
                stream.write(json.dumps(entry).encode() + b"\n")
                stream.flush()
                os.fsync(stream.fileno())
        self._index[shard.number] = entry

    def _is_whole(self, number: int) -> bool:
        entry = self._index.get(number)
        path = self.path(number)
        return entry is not None and path.is_file() and file_digest(path) == entry["sha256"]

    def _read_index(self) -> dict[int, dict[str, Any]]:
        """Read the index; what a kill or a full disk left of a last line is cut off, so that the next stands alone."""
        path = self._folder / INDEX
        if not path.exists():
            return {}
        content = path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):
            os.truncate(path, len(whole))
        found: dict[int, dict[str, Any]] = {}
        for line in whole.splitlines():
            with contextlib.suppress(ValueError, KeyError, TypeError):  # a damaged line: its shard is made again
                entry = json.loads(line)
                if {"sha256", "counts", "seconds"} <= entry.keys():
                    found[int(entry["shard"])] = entry
        return found


@contextlib.contextmanager
def _disk(path: Path) -> Iterator[None]:
    """Turn a failure to write into an error that says what is kept."""
    try:
        yield
    except (OSError, CorpusError) as error:
        cause = error if isinstance(error, OSError) else error.__cause__
        if not isinstance(cause, OSError):
            raise
        full = cause.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        what = "the disk is full" if full else f"cannot be written: {cause.strerror or cause}"
        raise TeacherError(
            f"{path}: {what}; the finished shards are kept: make room, then run the same command again"
        ) from error
