"""Files and folders that are there complete or not at all: a temporary name, a flush to the disk, a rename."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside ``path``, with its suffix; what is written there gets its name at the end.

    For a file or a folder; both are synced to the disk first, so a power cut leaves the old or the new one. A block
    left by an exception leaves nothing.
    """
    temporary = path.with_name(f"{path.stem}.tmp-{os.getpid()}-{secrets.token_hex(4)}{path.suffix}")
    try:
        yield temporary
        for item in (*temporary.rglob("*"), temporary) if temporary.is_dir() else (temporary,):
            _sync(item)
        if path.is_dir() and temporary.is_dir():  # a folder replaces none but an empty folder
            old = path.with_name(f"{path.name}.tmp-{os.getpid()}-{secrets.token_hex(4)}-old")
            path.rename(old)
            temporary.rename(path)
            shutil.rmtree(old, ignore_errors=True)
        else:
            temporary.replace(path)
        _sync(path.parent)
    finally:
        remove(temporary)


def remove_temporary(folder: Path) -> None:
    """Remove what :func:`atomic_path` left behind when a process was killed."""
    for path in sorted(folder.rglob("*.tmp-*")):
        remove(path)


def remove(path: Path) -> None:
    """Remove a file, a link or a folder with all that is in it, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    if path.is_dir() and os.name != "posix":
        return  # only POSIX can open a folder
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in {22, 95, 30}:  # EINVAL, ENOTSUP, EROFS: not every file system can
            raise
    finally:
        os.close(handle)
