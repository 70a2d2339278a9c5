"""What identifies a teacher: the content of its files."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

_HASHED_WHOLE = 1 << 24
_HASHED_END = 1 << 20


def fingerprint(checkpoint: str) -> str:
    """Identify a checkpoint: its name on the hub, or SHA-256 over its files.

    Of a large file its size and its first and last megabyte count: a training step changes them all.
    """
    path = Path(checkpoint)
    if not path.exists():
        return checkpoint
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if _counts(file, path))
    total = hashlib.sha256()
    for file in files:
        size = file.stat().st_size
        name = "" if path.is_file() else file.relative_to(path).as_posix()  # a file may be moved
        total.update(f"{name}\0{size}\0".encode())
        with file.open("rb") as stream:
            if size <= _HASHED_WHOLE:
                total.update(stream.read())
            else:
                total.update(stream.read(_HASHED_END))
                stream.seek(-_HASHED_END, os.SEEK_END)
                total.update(stream.read())
    return f"sha256:{total.hexdigest()}"


def _counts(file: Path, folder: Path) -> bool:
    hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
    return file.is_file() and not hidden
