"""Files as streams of bytes, decompressed on the way: gzip, xz, bzip2 and zstd, known by their first bytes."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

_BUFFER = 1 << 18


class Damaged(Exception):
    """What a compressed file holds is cut short or is not what its head says."""


class _ZstdReader(io.RawIOBase):
    """Reads zstd frames one after the other; unlike zstandard's own reader it notices a file that was cut short."""

    def __init__(self, raw: IO[bytes]) -> None:
        import zstandard

        self._raw = raw
        self._decompressor = zstandard.ZstdDecompressor()
        self._frame: zstandard.ZstdDecompressionObj | None = None
        self._error = zstandard.ZstdError
        self._ready = memoryview(b"")
        self._rest = b""

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        self._raw.close()
        super().close()

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        while not self._ready:
            data = self._rest or self._raw.read(_BUFFER)
            self._rest = b""
            if not data:
                if self._frame is not None:
                    raise Damaged("it ends in the middle: cut short")
                return 0
            if self._frame is None:
                self._frame = self._decompressor.decompressobj()
            try:
                self._ready = memoryview(self._frame.decompress(data))
            except self._error as error:
                raise Damaged(str(error)) from error
            if self._frame.eof:
                self._rest = self._frame.unused_data
                self._frame = None
        count = min(len(view), len(self._ready))
        view[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count


class Meter:
    """How far the files that are being read have come."""

    def __init__(self) -> None:
        self._share: dict[Path, float] = {}

    def set(self, path: Path, share: float) -> None:
        """Note the share of a file, 0 to 1, that was read."""
        self._share[path] = share

    @property
    def share(self) -> float:
        """Mean share of the files noted so far."""
        return sum(self._share.values()) / len(self._share) if self._share else 0.0


def open_bytes(path: Path) -> IO[bytes]:
    """Open a file for reading its decompressed bytes.

    Reading raises :class:`Damaged`, or one of :data:`READ_ERRORS`, where the content is damaged.

    :raises OSError: no such file, or it cannot be read.
    """
    with path.open("rb") as raw:
        opener = _opener(raw)
    return path.open("rb") if opener is None else io.BufferedReader(opener(path), _BUFFER)


def _opener(raw: IO[bytes]) -> Callable[[Any], Any] | None:
    """What decompresses a path or an open file; None where there is nothing to decompress."""
    head = raw.read(6)
    raw.seek(0)
    return next((opener for magic, opener in _OPENERS.items() if head.startswith(magic)), None)


_OPENERS: dict[bytes, Callable[[Any], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"\xfd7zXZ\0": lzma.open,
    b"BZh": bz2.open,
    b"\x28\xb5\x2f\xfd": lambda file: _ZstdReader(file.open("rb") if isinstance(file, Path) else file),
}
READ_ERRORS = (Damaged, OSError, EOFError, lzma.LZMAError, zlib.error)
"""What reading a damaged or unreadable file can raise."""


def count_lines(path: Path) -> int:
    """Number of lines of a file, the last one counted with or without a line end. Raises as reading does."""
    count, last = 0, b"\n"
    with open_bytes(path) as stream:
        while block := stream.read(1 << 20):
            count += block.count(b"\n")
            last = block[-1:]
    return count + (last != b"\n")


def numbered_lines(path: Path, meter: Meter | None = None) -> Iterator[tuple[int, bytes]]:
    """Yield (line number from 1, line without its line end). Lines end at LF or CR LF. Raises as reading does."""
    with path.open("rb") as raw:
        opener = _opener(raw)
        stream = raw if opener is None else io.BufferedReader(opener(raw), _BUFFER)
        size = max(1, os.fstat(raw.fileno()).st_size)
        for number, line in enumerate(stream, 1):
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")  # a byte order mark is no text
            if meter is not None and number % 1024 == 0:
                meter.set(path, raw.tell() / size)
            if line.endswith(b"\r\n"):
                yield number, line[:-2]
            else:
                yield number, line.removesuffix(b"\n")
