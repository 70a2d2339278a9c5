"""A folder for other tools, there complete or not at all."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path

from mobilenmt.runtime.atomic import atomic_path
from mobilenmt.runtime.errors import ExportError

_EXISTS = {errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR, errno.EISDIR}


@contextmanager
def new_folder(out: str | os.PathLike[str], *, replace: tuple[str, ...] = ()) -> Iterator[Path]:
    """Yield an empty folder beside ``out``, which gets that name at the end; left by an exception it leaves nothing.

    Args:
        out: the folder to write.
        replace: patterns of paths below a folder that is already there, as ``fnmatch`` has them; it is replaced if
            they name every file in it. None: nothing is replaced.

    Raises:
        ExportError: ``out`` is there and may not be replaced, or cannot be written, or the disk is full.
    """
    name = os.fspath(out)
    target = Path(os.path.abspath(name)) if name and "\0" not in name else Path()  # noqa: PTH100
    if not target.name:
        raise ExportError(f"{name!r} is no path to write a folder to")
    if not target.parent.is_dir():
        raise ExportError(f"{out} cannot be written: there is no folder {target.parent}; make it first")
    _check(target, name, replace)
    try:
        with atomic_path(target, hidden=True, replace=bool(replace)) as temporary:
            temporary.mkdir()
            yield temporary
            _check(target, name, replace)  # again: it takes minutes
    except OSError as error:
        if error.errno in _EXISTS:
            raise ExportError(f"{out} appeared while it was written; it was left alone") from error
        raise ExportError(f"{out} cannot be written: {error.strerror or error}; nothing was left behind") from error


def _check(target: Path, name: str, replace: tuple[str, ...]) -> None:
    if not os.path.lexists(target):
        return
    if not replace:
        raise ExportError(f"{name} exists already; choose another path")
    if not target.is_dir() or target.is_symlink():
        raise ExportError(f"{name} is not replaced: it is no folder; remove it yourself or choose another path")
    for path in sorted(target.rglob("*")):
        inside = path.relative_to(target).as_posix()
        if not path.is_dir() and not any(fnmatch(inside, pattern) for pattern in replace):
            raise ExportError(
                f"{name} is not replaced: it holds {inside}, which does not belong there; "
                "remove it yourself or choose another path"
            )
