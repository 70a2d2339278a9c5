"""Sentence pairs in a file: ``source<TAB>target<TAB>tag``, UTF-8, one pair a line, compressed with zstd.

The one format between the stages. A tab or a line end inside a sentence becomes a space when it is written; all other
characters stay as they are. Lines end at LF alone: U+2028, U+0085 and their like are ordinary characters here.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, NamedTuple

from mobilenmt.compression.core.errors import CorpusError
from mobilenmt.compression.core.streams import READ_ERRORS, open_bytes

_LAYOUT = re.compile("[\t\n\r]+")


class Pair(NamedTuple):
    """One source sentence, its translation, and the name of the corpus it comes from."""

    source: str
    target: str
    tag: str = ""


class PairWriter:
    """Writes a file of pairs that appears complete or not at all.

    A context manager: the file takes its place when the block ends without an error; otherwise nothing is left.

    :raises CorpusError: the file cannot be written (a full disk, say).
    """

    def __init__(self, path: Path, *, level: int = 3) -> None:
        self.path = Path(path)
        self.count = 0
        """Pairs written so far."""
        self._temporary = self.path.with_name(f"{self.path.name}.tmp-{os.getpid()}")
        self._level = level
        self._raw: IO[bytes] | None = None
        self._out: io.BufferedWriter | None = None

    def __enter__(self) -> PairWriter:
        import zstandard

        try:
            self._raw = self._temporary.open("wb")
        except OSError as error:
            raise CorpusError(f"{self.path}: cannot be written: {error.strerror or error}") from error
        compressor = zstandard.ZstdCompressor(level=self._level, write_checksum=True)
        stream = compressor.stream_writer(self._raw, closefd=False)
        self._out = io.BufferedWriter(stream, 1 << 18)  # type: ignore[arg-type]
        return self

    def write(self, pair: Pair) -> None:
        """Append one pair."""
        assert self._out is not None, "used outside its with block"
        line = "\t".join(pair)
        if line.count("\t") != 2 or "\n" in line or "\r" in line:
            line = "\t".join(_LAYOUT.sub(" ", field) for field in pair)
        try:
            data = line.encode()
        except UnicodeEncodeError:  # half of a surrogate pair
            data = line.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").encode()
        try:
            self._out.write(data + b"\n")
        except OSError as error:
            raise CorpusError(f"{self.path}: cannot be written: {error.strerror or error}") from error
        self.count += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._out is not None and self._raw is not None
        try:
            if kind is None:
                self._out.close()  # flushes, and ends the zstd frame
                self._raw.flush()
                os.fsync(self._raw.fileno())
                self._raw.close()
                self._temporary.replace(self.path)
        except OSError as problem:
            raise CorpusError(f"{self.path}: cannot be written: {problem.strerror or problem}") from problem
        finally:
            self._raw.close()
            self._temporary.unlink(missing_ok=True)


def read_pairs(path: Path) -> Iterator[Pair]:
    """Yield the pairs of a file that :class:`PairWriter` wrote, in their order, in flat memory.

    :raises CorpusError: no such file, cut short, damaged, or a line that is no pair.
    """
    path = Path(path)
    number = 0
    try:
        with io.TextIOWrapper(open_bytes(path), encoding="utf-8", newline="\n") as text:
            for number, line in enumerate(text, 1):
                fields = line.split("\t")
                if len(fields) != 3 or not line.endswith("\n"):
                    raise CorpusError(f"{path}: line {number} is no pair with a tag; make the file anew")
                yield Pair(fields[0], fields[1], fields[2][:-1])
    except FileNotFoundError:
        raise CorpusError(f"{path}: no such file") from None
    except (*READ_ERRORS, UnicodeDecodeError) as error:
        raise CorpusError(f"{path}: cannot be read behind line {number}: {error}; make the file anew") from error
