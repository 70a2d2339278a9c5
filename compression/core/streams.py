"""Files as streams of bytes, decompressed on the way: gzip, xz, bzip2 and zstd, known by their first bytes."""

from __future__ import annotations

import contextlib
import errno
import lzma
import os
import stat
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO


class Damaged(Exception):
    """A zstd file that is not what its head says."""


READ_ERRORS = (Damaged, OSError, EOFError, lzma.LZMAError, zlib.error)
"""What reading a damaged or unreadable file can raise."""


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


def open_regular(path: Path) -> IO[bytes]:
    """Open a file for reading its bytes; to open a named pipe would wait for ever, a device may never end.

    :raises OSError: no such file, it is none, or it cannot be read.
    """
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # a folder has an error of its own
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return path.open("rb")


@contextlib.contextmanager
def open_bytes(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for reading its decompressed bytes, in a ``with`` block.

    Reading raises one of :data:`READ_ERRORS` where the content is damaged or was cut short.

    :raises OSError: no such file, or it cannot be read.
    """
    with open_regular(path) as raw, _decompressed(raw) as stream:
        yield stream


@contextlib.contextmanager
def _decompressed(raw: IO[bytes]) -> Iterator[IO[bytes]]:
    from backports.zstd import ZstdError  # what xopen reads zstd with
    from xopen import xopen

    try:
        # An open file, so that its first bytes count and not its name; without threads it notices an early end.
        with xopen(raw, "rb", threads=0) as stream:
            yield stream
    except ZstdError as error:
        raise Damaged(str(error)) from error


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
    with open_regular(path) as raw, _decompressed(raw) as stream:
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
