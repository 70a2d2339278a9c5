"""Unpack a zipped pack into the cache, once, however many processes ask at the same time.

Only files that the pack's own manifest lists, with the sizes it gives, are written, under names it was checked for: so
no entry of a hostile zip can leave the cache folder, and none can be larger than announced.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import stat
import struct
import time
import zipfile
import zlib
from pathlib import Path
from typing import BinaryIO

from mobilenmt.runtime.atomic import atomic_path, remove
from mobilenmt.runtime.errors import PackError
from mobilenmt.runtime.locate import cache_folder
from mobilenmt.runtime.manifest import MANIFEST_LIMIT, MANIFEST_NAME, parse_manifest

LARGEST_PACK = 4 * 2**30
"""Most bytes of an unpacked pack."""

_LARGEST_RATIO = 50  # weights hardly compress; a bomb unpacks to a thousand times its size
_RATIO_FROM = 2**24  # bytes below which the ratio is nobody's harm
_LARGEST_DIRECTORY = 2**20  # bytes of the zip's table of contents: zipfile reads all of it into memory
_DAMAGED = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, RuntimeError, ValueError, OverflowError)
"""What zipfile raises for damaged files."""
_OVERTAKEN = {errno.EEXIST, errno.ENOTEMPTY, errno.ENOENT, errno.EACCES}  # the last is what Windows says
_STALE = 24 * 3600.0  # seconds after which a temporary folder belongs to a process that was killed


def unpack(path: Path, *, again: bool = False) -> Path:
    """Return the cache folder that holds the content of the zip at ``path``; it is named by the zip's SHA-256.

    ``again`` discards what the cache holds, for a cache that turned out to be damaged. Half a pack is never seen under
    its name.

    Raises:
        PackError: it is no zip, holds no pack, is too large, or cannot be written.
    """
    try:
        if not path.is_file():  # to open a named pipe would wait for ever
            raise PackError(f"{path}: not a regular file")
        with path.open("rb") as stream:
            if os.fstat(stream.fileno()).st_size > LARGEST_PACK:
                raise PackError(f"{path}: too large for a pack")
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
            final = cache_folder() / "packs" / digest
            if again or not _is_there(path, final):
                _make(path, stream, final, replace=again)
            return final
    except _DAMAGED as error:
        raise PackError(f"{path}: not a readable zip file: {error}") from None
    except OSError as error:
        raise PackError(f"{path} cannot be read: {error.strerror or error}") from None


def _is_there(path: Path, final: Path) -> bool:
    try:
        found = stat.S_ISDIR(final.stat().st_mode)
        if found:
            final.joinpath(MANIFEST_NAME).stat()
        return found
    except (FileNotFoundError, NotADirectoryError):
        return final.is_dir()
    except OSError as error:  # the cache of another user, most often
        raise PackError(
            f"{path} cannot be unpacked: the cache {final.parent} cannot be looked into: {error.strerror or error}; "
            "set MOBILENMT_CACHE to a folder of your own, or give the pack as a folder"
        ) from None


def _make(path: Path, stream: BinaryIO, final: Path, *, replace: bool) -> None:
    try:
        final.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        _remove_stale(final.parent)
        if os.path.lexists(final) and not final.is_dir():
            what = "a file" if final.exists() else "a link to nothing"
            raise PackError(f"{path} cannot be unpacked: {what} lies at {final}, where its folder belongs; remove it")
        with atomic_path(final, replace=replace) as temporary:
            temporary.mkdir()
            _extract(path, stream, temporary)
    except OSError as error:
        if error.errno in _OVERTAKEN and final.is_dir():
            return  # another process was faster; its folder came by the same rename and holds the same bytes
        raise PackError(
            f"{path} cannot be unpacked into {final.parent}: {error.strerror or error}; "
            "set MOBILENMT_CACHE to a folder with enough room, or give the pack as a folder"
        ) from None


def _extract(path: Path, stream: BinaryIO, folder: Path) -> None:
    packed = _check_directory(path, stream)
    with zipfile.ZipFile(stream) as archive:
        names = [info.filename for info in archive.infolist()]
        prefix = _prefix(path, names)
        content = _member(path, archive, names, prefix + MANIFEST_NAME, limit=MANIFEST_LIMIT)
        with archive.open(content) as source:
            text = source.read(MANIFEST_LIMIT)
        try:
            manifest = parse_manifest(text)
        except PackError as error:
            raise PackError(f"{path}: {MANIFEST_NAME}: {error}") from None
        total = sum(entry.bytes for entry in manifest.files.values())
        if total > LARGEST_PACK or (total > _RATIO_FROM and total > _LARGEST_RATIO * packed):
            raise PackError(f"{path}: a zip of {packed} bytes that unpacks to {total} bytes is refused")
        (folder / MANIFEST_NAME).write_bytes(text)
        for name, entry in manifest.files.items():
            info = _member(path, archive, names, prefix + name, limit=entry.bytes)
            if info.file_size != entry.bytes:
                raise PackError(f"{path}: {name} has {info.file_size} bytes, {MANIFEST_NAME} says {entry.bytes}")
            with archive.open(info) as source, (folder / name).open("xb") as target:
                shutil.copyfileobj(source, target, 2**18)


def _check_directory(path: Path, stream: BinaryIO) -> int:
    """Return the size of the zip in bytes; refuse one whose table of contents alone would fill the memory."""
    size = stream.seek(0, os.SEEK_END)
    stream.seek(max(0, size - 22 - 65535))  # the end record is 22 bytes and a comment of up to 65535
    tail = stream.read()
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) - at < 22:
        raise PackError(f"{path}: neither the folder of a pack nor a zip file of one")
    if struct.unpack_from("<I", tail, at + 12)[0] > _LARGEST_DIRECTORY:
        raise PackError(f"{path}: the zip has too many entries for a pack")
    stream.seek(0)
    return size


def _prefix(path: Path, names: list[str]) -> str:
    """What stands before pack.json: nothing, or the one folder that holds it."""
    if MANIFEST_NAME in names:
        return ""
    folders = {name.removesuffix(MANIFEST_NAME) for name in names if name.count("/") == 1}
    found = [folder for folder in folders if folder.endswith("/") and folder + MANIFEST_NAME in names]
    if len(found) != 1:
        what = "no pack.json" if not found else "more than one pack"
        raise PackError(f"{path}: the zip holds {what} (looked at the root and in its top folders)")
    return found[0]


def _member(path: Path, archive: zipfile.ZipFile, names: list[str], name: str, *, limit: int) -> zipfile.ZipInfo:
    if names.count(name) != 1:
        raise PackError(f"{path}: the zip holds {name} {names.count(name)} times; a pack needs it once")
    info = archive.getinfo(name)
    if info.flag_bits & 1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise PackError(f"{path}: {name} is encrypted or compressed in an unusual way; use stored or deflate")
    if info.file_size > limit:
        raise PackError(f"{path}: {name} is too large: {info.file_size} bytes, at most {limit} expected")
    return info


def _remove_stale(folder: Path) -> None:
    for entry in folder.glob("*.tmp-*"):
        with contextlib.suppress(OSError):
            if time.time() - entry.stat().st_mtime > _STALE:
                remove(entry)
