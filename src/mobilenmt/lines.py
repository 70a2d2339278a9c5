"""Lines in, lines out: bytes split on \\n only, as they arrive, in constant memory."""

from __future__ import annotations

import codecs
import contextlib
import errno
import os
import stat
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from mobilenmt.runtime.atomic import atomic_path
from mobilenmt.runtime.errors import DeadlineError, InputError

_READ = 1 << 16  # bytes asked for at once; what is there is returned, so nobody waits for a full block
_BATCH_LINES = 64
_BATCH_BYTES = 1 << 15
_MOST_HELD = 1 << 16  # characters


MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # begins as that of utf-16-le does
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
"""Byte order marks and what they stand for. That of UTF-8 is a character like others here: it stays in the text."""

_LONGEST_MARK = 4  # bytes


def check_encoding(name: str) -> str:
    """An encoding of text by the name that Python gives it.

    Raises:
        InputError: there is none of that name.
    """
    try:
        found = codecs.lookup(name)
        "".encode(name)  # refuses codecs that are no encodings of text, such as hex
    except (LookupError, ValueError):
        raise InputError(f"--encoding: {name!r} is no encoding of text; try utf-8, utf-16, cp1252 or latin-1") from None
    return found.name


class Source:
    """An open file descriptor whose bytes are text, if only nearly.

    Without an encoding it is UTF-8, or UTF-16 or UTF-32 where the text begins with a byte order mark of theirs.
    """

    def __init__(self, descriptor: int, name: str, encoding: str | None = None) -> None:
        self._descriptor = descriptor
        self._name = name
        self.encoding = encoding
        """None until the first block has been read, and then for UTF-8."""
        self._warned = False

    def blocks(self) -> Iterator[bytes]:
        """What can be read, as soon as it can, as UTF-8."""
        block = self._read()
        if self.encoding is None:
            while block and len(block) < _LONGEST_MARK and any(mark.startswith(block[:2]) for mark, _ in MARKS):
                more = self._read()
                if not more:
                    break
                block += more
            for mark, marked in MARKS:
                if block.startswith(mark):
                    self.encoding, block = marked, block[len(mark) :]
                    break
        encoding = self.encoding
        if encoding in (None, "utf-8"):
            while block:
                yield block
                block = self._read()
            return
        decoder = codecs.getincrementaldecoder(str(encoding))("strict")
        decoder.errors = _handler(lambda: self._warn(str(encoding).upper()))
        while block:
            yield decoder.decode(block).encode("utf-8", "replace")
            block = self._read()
        yield decoder.decode(b"", final=True).encode("utf-8", "replace")

    def _read(self) -> bytes:
        try:
            return os.read(self._descriptor, _READ)
        except OSError as error:
            error.filename = self._name
            raise

    def decode(self, line: bytes) -> str:
        """UTF-8, with U+FFFD for what is not, and one warning for the whole input."""
        try:
            return line.decode("utf-8")
        except UnicodeDecodeError:
            self._warn("UTF-8")
            return line.decode("utf-8", "replace")

    def _warn(self, encoding: str) -> None:
        if not self._warned:
            self._warned = True
            print(
                f"mobilenmt: warning: {self._name} is not all {encoding}; U+FFFD stands for the rest", file=sys.stderr
            )


def _handler(warn: Callable[[], None]) -> str:
    """The name of a way to go on after bytes that are no text: U+FFFD for each, once a warning."""

    def replace(error: UnicodeError) -> tuple[str | bytes, int]:
        warn()
        return codecs.replace_errors(error)

    name = f"mobilenmt.{id(replace)}"
    codecs.register_error(name, replace)
    return name


class Sink:
    """Text out, flushed at every write."""

    def __init__(self, stream: BinaryIO, name: str, encoding: str | None = None) -> None:
        self._stream = stream
        self._name = name
        self._encoding = encoding or "utf-8"
        self._encoder = codecs.getincrementalencoder(self._encoding)("replace")  # writes a byte order mark once
        self._encoder.errors = "replace" if self._encoding == "utf-8" else _handler(self._warn)
        self._warned = False

    def _warn(self) -> None:
        if not self._warned:
            self._warned = True
            print(
                f"mobilenmt: warning: {self._name}: {self._encoding.upper()} lacks characters of the translation; "
                "? stands for them",
                file=sys.stderr,
            )

    def write(self, text: str) -> None:
        """Write and flush."""
        try:
            self._stream.write(self._encoder.encode(text))
            self._stream.flush()
        except OSError as error:  # a full disk, which does not say where
            error.filename = self._name
            raise


def decode_arguments(texts: Sequence[str]) -> Iterator[str]:
    """Arguments as text: what was no UTF-8, which Python hands over as lone surrogates, becomes U+FFFD."""
    warned = False
    for text in texts:
        clean = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        if clean != text and not warned:
            warned = True
            print("mobilenmt: warning: TEXT is not all UTF-8; U+FFFD stands for the rest", file=sys.stderr)
        yield clean


def read_batches(source: Source) -> Iterator[tuple[list[str], bool]]:
    """Yield lines that are complete, in batches; false with the last one if it had no line end.

    A batch holds what has arrived, up to 64 lines: a line that a person typed is yielded at once, a file in batches.
    """
    rest: list[bytes] = []  # parts of a line whose end has not come yet; joined once, so a long line costs linear time
    for block in source.blocks():
        *complete, tail = block.split(b"\n")
        if complete:
            complete[0] = b"".join([*rest, complete[0]])
            rest = []
        if tail:
            rest.append(tail)
        batch: list[bytes] = []
        size = 0
        for line in complete:
            if batch and (len(batch) >= _BATCH_LINES or size + len(line) > _BATCH_BYTES):
                yield [source.decode(item) for item in batch], True
                batch, size = [], 0
            batch.append(line)
            size += len(line)
        if batch:
            yield [source.decode(item) for item in batch], True
    if rest:
        yield [source.decode(b"".join(rest))], False


def unwrap_batches(batches: Iterator[tuple[list[str], bool]]) -> Iterator[tuple[list[str], bool]]:
    """Join wrapped lines into paragraphs, one string each: a paragraph is complete at the empty line behind it.

    Up to 64 kB of lines without an empty one between are held; where there are more, a paragraph may be parted.
    """
    from mobilenmt.runtime.text.unwrap import unwrap

    held: list[str] = []
    size = 0
    last_ended = True
    for lines, ended in batches:
        last_ended = ended
        ready: list[str] = []
        for line in lines:
            held.append(line)
            size += len(line) + 1
            if not line.strip() or size > _MOST_HELD:
                ready += unwrap("\n".join(held)).split("\n")
                held, size = [], 0
        if ready:
            yield ready, True
    if held:
        yield unwrap("\n".join(held)).split("\n"), last_ended


@contextlib.contextmanager
def open_input(path: Path | None, encoding: str | None = None) -> Iterator[Source]:
    """Standard input, or a file; see :class:`Source` for what no encoding means."""
    if path is None:
        if sys.stdin is None:
            raise OSError(errno.EBADF, "is closed", "standard input")
        yield Source(sys.stdin.fileno(), "standard input", encoding)
        return
    with path.open("rb", buffering=0) as stream:
        yield Source(stream.fileno(), str(path), encoding)


@contextlib.contextmanager
def open_output(path: Path | None, encoding: str | None = None) -> Iterator[Sink]:
    """Standard output, or a file that gets its name only when the block has ended well; UTF-8 without an encoding."""
    if path is None:
        if sys.stdout is None:
            raise OSError(errno.EBADF, "is closed", "standard output")
        yield Sink(sys.stdout.buffer, "standard output", encoding)
        return
    temporary: Path | None = None
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):  # told below
        path.stat()  # a link to itself, which versions of Python resolve differently, ends here
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "is a folder", str(path))
    try:
        if path.exists() and (not path.is_file() or _descriptor(path)):  # a named pipe: nothing to rename
            with _open_special(path) as stream:
                yield Sink(stream, str(path), encoding)
            return
        if path.exists() and not os.access(path, os.W_OK):
            raise PermissionError(errno.EACCES, "is read-only", str(path))  # a rename would replace it all the same
        target = path.resolve()
        if not target.parent.is_dir():
            raise FileNotFoundError(errno.ENOENT, "no such folder", str(target.parent))
        old = stat.S_IMODE(path.stat().st_mode) if path.exists() else None
        with atomic_path(target, hidden=True) as temporary:
            temporary.touch(0o666 if old is None else 0o600)  # nobody reads what was for fewer eyes while it is written
            with temporary.open("wb") as stream:
                yield Sink(stream, str(path), encoding)
            if old is not None:
                temporary.chmod(old)
    except DeadlineError:  # a TimeoutError, and that an OSError: not about the file
        raise
    except OSError as error:
        # closing a full file fails without a name, making the temporary one with a name that nobody gave
        if error.filename is None or str(error.filename) == str(temporary):
            raise OSError(error.errno, error.strerror, str(path)) from None
        raise


def _descriptor(path: Path) -> Path | None:
    """The entry of /proc/PID/fd or /dev/fd that a name stands for, as /dev/stdout does, which is a link to one."""
    folder = path.parent.resolve()
    if folder.name == "fd" and folder.parts[1] in ("proc", "dev"):
        return folder / path.name
    return _descriptor(folder / path.readlink()) if path.is_symlink() else None


def _open_special(path: Path) -> BinaryIO:
    """Open what is no plain file. An open file is gone on with where it stands: another program may have begun it."""
    entry = _descriptor(path)
    if entry is not None and entry.parent in (Path("/proc/self/fd").resolve(), Path("/dev/fd")):
        return os.fdopen(os.dup(int(entry.name)), "wb")
    return path.open("wb" if entry is None else "ab")
