"""Files and folders that are there complete or not at all: a temporary name, a flush to the disk, a rename."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

_NO_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EROFS}  # what file systems say that cannot


@contextlib.contextmanager
def atomic_path(path: Path, *, hidden: bool = False, replace: bool = True) -> Iterator[Path]:
    """Yield a temporary name beside ``path``, with its suffix; what is written there gets its name at the end.

    For a file or a folder; both are synced to the disk first, so a power cut leaves the old or the new one. A block
    left by an exception leaves nothing.

    Args:
        path: the name; what is there is replaced.
        hidden: for a place where others look while the block runs.
        replace: False leaves a folder that holds something alone.

    Raises:
        OSError: it could not be put in place; EEXIST or ENOTEMPTY for a folder that was not to be replaced. The
            message names where the old folder is if that could not be put back.
    """
    temporary, old = temporary_name(path, hidden=hidden), temporary_name(path, hidden=hidden)
    try:
        yield temporary
        for item in (*temporary.rglob("*"), temporary) if temporary.is_dir() else (temporary,):
            _sync(item)
        if replace and path.is_dir() and temporary.is_dir():  # a folder replaces none but an empty folder
            path.rename(old)
        temporary.replace(path)
        _sync(path.parent)
    finally:
        # judged by what stands on the disk: Ctrl-C may fall between a rename and the line after it
        if old.exists() and not os.path.lexists(path):
            try:
                old.rename(path)
            except OSError as error:
                reason = f"{error.strerror}; {path} could not be put back: it is in {old}"
                raise OSError(errno.EIO, reason) from error
        remove(temporary)
        remove(old)


def temporary_name(path: Path, *, hidden: bool = False) -> Path:
    """A name beside ``path`` that nobody else has, with its suffix."""
    # a name of 255 bytes is allowed and must leave room for the rest
    stem, suffix = path.stem[:40], path.suffix[:20]
    return path.with_name(f"{'.' * hidden}{stem}.tmp-{os.getpid()}-{os.urandom(4).hex()}{suffix}")


def remove_temporary(folder: Path) -> None:
    """Remove what :func:`atomic_path` left behind when a process was killed."""
    for path in sorted(folder.rglob("*.tmp-*")):
        remove(path)


def remove(path: Path) -> None:
    """Remove a file, a link or a folder with all that is in it, if it is there."""
    if not path.is_dir() or path.is_symlink():
        path.unlink(missing_ok=True)
        return
    import shutil  # not before: it costs a cold start 2 ms

    try:
        shutil.rmtree(path, ignore_errors=True)
    except KeyboardInterrupt:  # a second Ctrl-C while the first one is being cleaned up after
        shutil.rmtree(path, ignore_errors=True)
        raise


def _sync(path: Path) -> None:
    if path.is_symlink():
        return  # what it points to is not ours, and may be a program that runs
    folder = path.is_dir()
    if folder and os.name != "posix":
        return  # only POSIX can open a folder
    # Windows syncs only what is open for writing
    handle = os.open(path, os.O_RDONLY if folder or not os.access(path, os.W_OK) else os.O_WRONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise
    finally:
        os.close(handle)
