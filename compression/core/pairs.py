"""Sentence pairs in a file: ``source<TAB>target<TAB>tag``, UTF-8, one pair a line, compressed with zstd.

The one format between the stages. A tab or a line end inside a sentence becomes a space when it is written; all other
characters stay as they are. Lines end at LF alone: U+2028, U+0085 and their like are ordinary characters here.
"""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

from mobilenmt.compression.core.errors import CorpusError
from mobilenmt.compression.core.streams import READ_ERRORS, open_bytes
from mobilenmt.runtime.atomic import atomic_path

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
        self._level = level
        self._stack = contextlib.ExitStack()
        self._out: IO[bytes] | None = None

    def __enter__(self) -> PairWriter:
        import zstandard

        with self._told(), contextlib.ExitStack() as stack:
            raw = stack.enter_context(stack.enter_context(atomic_path(self.path)).open("wb"))
            compressor = zstandard.ZstdCompressor(level=self._level, write_checksum=True)
            stream: Any = compressor.stream_writer(raw, closefd=False)
            self._out = stack.enter_context(io.BufferedWriter(stream, 1 << 18))
            self._stack = stack.pop_all()
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
        with self._told():
            self._out.write(data + b"\n")
        self.count += 1

    def __exit__(self, *error: Any) -> None:
        with self._told():
            self._stack.__exit__(*error)

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise CorpusError(f"{self.path}: cannot be written: {error.strerror or error}") from error


def read_pairs(path: Path) -> Iterator[Pair]:
    """Yield the pairs of a file that :class:`PairWriter` wrote, in their order, in flat memory.

    :raises CorpusError: no such file, cut short, damaged, or a line that is no pair.
    """
    path = Path(path)
    number = 0
    try:
        with open_bytes(path) as stream, io.TextIOWrapper(stream, encoding="utf-8", newline="\n") as text:
            for number, line in enumerate(text, 1):
                fields = line.split("\t")
                if len(fields) != 3 or not line.endswith("\n"):
                    raise CorpusError(f"{path}: line {number} is no pair with a tag; make the file anew")
                yield Pair(fields[0], fields[1], fields[2][:-1])
    except FileNotFoundError:
        raise CorpusError(f"{path}: no such file") from None
    except (*READ_ERRORS, UnicodeDecodeError) as error:
        raise CorpusError(f"{path}: cannot be read behind line {number}: {error}; make the file anew") from error
