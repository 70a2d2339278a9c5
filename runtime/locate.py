"""Where packs and the cache lie: names to paths. Reads the environment anew on every call, changes nothing."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

from mobilenmt.runtime.checks import shown
from mobilenmt.runtime.errors import InputError, PackError, PackNotFoundError
from mobilenmt.runtime.manifest import MANIFEST_NAME

_ABSENT = {errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.EINVAL}


def find_pack(name_or_path: str | os.PathLike[str]) -> Path:
    """Return the absolute path of a pack: a folder or a zip file. The first of these that exists:

    1. the path itself (a bare name counts as a path only if it is a folder with a pack.json, or a zip file);
    2. NAME or NAME.zip in each folder of ``$MOBILENMT_PACKS`` (separated by ``os.pathsep``);
    3. NAME or NAME.zip among the packs shipped with mobilenmt;
    4. NAME or NAME.zip in ``$XDG_DATA_HOME/mobilenmt/packs`` (``~/.local/share/mobilenmt/packs``).

    Raises PackNotFoundError, which tells where it looked and what there is, PackError for a path that exists but is no
    pack or may not be read, and InputError for what is neither text nor a path. The content is not looked at here.
    """
    try:
        given = os.fsdecode(os.fspath(name_or_path))
    except TypeError:
        raise InputError(f"a pack is given by name or path, not by {shown(name_or_path)}") from None
    if not given:
        raise InputError("a pack is given by name or path, not by an empty string")
    bare = given not in (".", "..") and not any(sep in given for sep in (os.sep, os.altsep) if sep)
    path = Path(given).absolute() if "\0" not in given else None
    exists = path is not None and _exists(path)
    if path is not None and exists and (not bare or _looks_like_pack(path)):
        return path
    folders = list(search_folders())
    if bare and "\0" not in given:
        for folder in folders:
            for candidate in (folder / given, folder / f"{given}.zip"):
                if _looks_like_pack(candidate):
                    return candidate
    if exists:
        raise PackError(f"{path} is no pack: neither a folder with a pack.json nor a zip file")
    raise PackNotFoundError(_not_found(given, bare, folders))


def search_folders() -> Iterator[Path]:
    """The folders in which a name is looked up, in order; they need not exist."""
    for folder in os.environ.get("MOBILENMT_PACKS", "").split(os.pathsep):
        if folder:
            yield Path(folder).absolute()
    yield Path(__file__).absolute().parent.parent / "models"
    data = _base_folder("XDG_DATA_HOME", "~/.local/share")
    if data is not None:
        yield data / "mobilenmt" / "packs"


def cache_folder() -> Path:
    """Where zips are unpacked: ``$MOBILENMT_CACHE``, or ``$XDG_CACHE_HOME/mobilenmt`` (``~/.cache/mobilenmt``)."""
    chosen = os.environ.get("MOBILENMT_CACHE")
    if chosen:
        return Path(chosen).absolute()
    cache = _base_folder("XDG_CACHE_HOME", "~/.cache")
    if cache is None:
        raise PackError("there is no home folder to unpack a zip into; set MOBILENMT_CACHE to a folder")
    return cache / "mobilenmt"


def installed_packs() -> list[str]:
    """Names that :func:`find_pack` resolves, sorted; packs in the working folder are not among them."""
    names: set[str] = set()
    for folder in search_folders():
        try:
            entries = list(folder.iterdir())
        except OSError:
            continue
        # hidden ones are the temporary folders of an export
        found = (entry for entry in entries if not entry.name.startswith(".") and _looks_like_pack(entry))
        names.update(entry.name.removesuffix(".zip") for entry in found)
    return sorted(names)


def _base_folder(variable: str, default: str) -> Path | None:
    chosen = Path(os.environ.get(variable, ""))
    if chosen.is_absolute():  # the XDG specification: a relative path is to be ignored
        return chosen
    try:
        return Path(default).expanduser()
    except RuntimeError:  # no home folder
        return None


def _exists(path: Path) -> bool:
    try:
        path.stat()
    except OSError as error:
        if error.errno in _ABSENT:
            return False
        raise PackError(f"{path} cannot be read: {error.strerror}") from None
    return True


def _looks_like_pack(path: Path) -> bool:
    return _is_file(path / MANIFEST_NAME) or (path.suffix == ".zip" and _is_file(path))


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name too long, a folder that may not be read
        return False


def _not_found(given: str, bare: bool, folders: list[Path]) -> str:
    if not bare:
        return f"there is no pack at {shown(given)}: no such file or folder"
    looked = ", ".join(str(folder) for folder in (Path.cwd(), *folders))
    names = ", ".join(installed_packs()) or "none"
    return f"there is no pack named {shown(given)}; looked in {looked}; names that exist: {names}"
