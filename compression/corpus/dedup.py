"""Finds repeated items in a stream of any length in bounded memory: hashes on the disk, sorted part by part."""

from __future__ import annotations

from array import array
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_PARTS = 64  # 100 million items give parts of 25 MB
_BUFFER = 1 << 19  # items kept in memory before they are written
_ENTRY = np.dtype([("hash", "<u8"), ("index", "<u8")])


class Deduplicator:
    """Collects a 64-bit hash for each item of a stream, then tells which items came before.

    Memory: 8 MB of buffer, one part while it is sorted (24 bytes an item, a 64th of all), and one bit an item. Disk:
    16 bytes an item. Two different items out of 100 million are taken for equal with a chance of 3 in 10,000.

    :param folder: where the parts go; the caller removes it.
    """

    def __init__(self, folder: Path) -> None:
        self._files = [folder / f"hashes-{part:02}" for part in range(_PARTS)]
        self._buffer = array("Q")
        self._written = 0

    def __len__(self) -> int:
        return self._written + len(self._buffer)

    def add(self, hash_: int) -> None:
        """Append the next item's hash, in [0, 2^64)."""
        self._buffer.append(hash_)
        if len(self._buffer) >= _BUFFER:
            self._flush()

    def repeated(self) -> Repeated:
        """Which items have an equal one before them."""
        self._flush()
        bits = np.zeros(self._written // 8 + 1, dtype=np.uint8)
        for file in self._files:
            if file.exists():
                entries = np.fromfile(file, dtype=_ENTRY)
                order = np.argsort(entries["hash"], kind="stable")  # the first of equals stays first
                hashes = entries["hash"][order]
                again = entries["index"][order[1:][hashes[1:] == hashes[:-1]]]
                np.bitwise_or.at(bits, again >> 3, np.left_shift(1, again & 7).astype(np.uint8))
                file.unlink()
        return Repeated(bits)

    def _flush(self) -> None:
        hashes = np.frombuffer(self._buffer, dtype=np.uint64)
        entries = np.empty(len(hashes), dtype=_ENTRY)
        entries["hash"] = hashes
        entries["index"] = np.arange(self._written, self._written + len(hashes), dtype=np.uint64)
        parts = hashes >> np.uint64(58)
        entries = entries[np.argsort(parts, kind="stable")]
        ends = np.cumsum(np.bincount(parts.astype(np.int64), minlength=_PARTS))
        begin = 0
        for file, end in zip(self._files, ends.tolist(), strict=True):
            if end > begin:
                with file.open("ab") as stream:
                    stream.write(entries[begin:end].tobytes())
            begin = end
        self._written += len(hashes)
        del hashes
        self._buffer = array("Q")


class Repeated:
    """One bit for each item: whether an equal one came before."""

    def __init__(self, bits: NDArray[np.uint8]) -> None:
        self._bits = bits.tobytes()

    def __getitem__(self, index: int) -> bool:
        return bool(self._bits[index >> 3] >> (index & 7) & 1)
