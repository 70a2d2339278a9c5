"""Write a pack so that it either stands complete under its name or not at all.

Everything is written into a hidden work folder beside the destination, on the same disk, and moved into place at the
very end. Whatever ends the block early, Ctrl-C included, removes the work folder.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import zipfile
from pathlib import Path
from types import TracebackType

from mobilenmt.runtime.atomic import atomic_path, remove, temporary_name
from mobilenmt.runtime.errors import ExportError, PackError
from mobilenmt.runtime.manifest import MANIFEST_NAME, FileEntry, PackManifest, check_file_name, parse_manifest
from mobilenmt.runtime.pack import read_manifest

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_STANDARD_FILES = {
    "tokenizer.json",
    "tokenizer.target.json",
    "weights.bin",
    "native.bin",
    "encoder.onnx",
    "decoder.onnx",
    "translator.onnx",
    "greedy.onnx",
    "batch.onnx",
}
_LITTER = {".DS_Store", "Thumbs.db", "desktop.ini"}  # file managers leave these behind on their own


class PackWriter:
    """Context manager that writes the folder ``out``, or the file ``out`` if its name ends in ``.zip``::

        with PackWriter("packs/en-de", force=False) as writer:
            writer.path("weights.bin").write_bytes(weights)
            ...
            folder = writer.seal(manifest)      # optional: the finished pack, to be verified where it is
            writer.commit()                     # or commit(manifest) at once

    A block left without :meth:`commit` leaves nothing. ``force`` replaces a pack that is already there, and nothing
    but a pack: a folder that holds any file which is not part of a pack is refused, so no slip of the keyboard can
    delete someone's documents. The old pack is removed only after the new one stands in its place.

    Raises:
        ExportError: the destination exists, cannot be written or may not be replaced, or the disk is full.
    """

    def __init__(self, out: str | os.PathLike[str], *, force: bool = False) -> None:
        if not os.fspath(out) or "\0" in os.fspath(out):
            raise ExportError(f"{os.fspath(out)!r} is no path to write a pack to")
        self.out = Path(os.path.abspath(out))  # noqa: PTH100 (absolute() would keep "..", and with it an empty name)
        self.force = force
        try:
            self._target = self.out.resolve()  # a link stays, what it points to is replaced
        except (OSError, RuntimeError) as error:  # RuntimeError: a link to itself, before Python 3.13
            raise ExportError(f"{self.out} is no path to write a pack to: {error}") from None
        if not self._target.name:
            raise ExportError(f"{self.out} is no path to write a pack to")
        self._zipped = self._target.suffix.lower() == ".zip"
        self._folder = temporary_name(self._target, hidden=True)
        self._open = False
        self._sealed = False
        self._reserved = 0

    def __enter__(self) -> PackWriter:
        try:
            self._check_target()
            self._folder.mkdir()
        except OSError as error:
            raise self._explain(error) from None
        self._open = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open = False
        explained = self._explain(error) if isinstance(error, OSError) and self._is_ours(error) else None
        remove(self._folder)
        if explained is not None:
            raise explained from error

    def reserve(self, size: int) -> None:
        """Say that the pack will take ``size`` bytes; ExportError at once if the disk has less room than that."""
        self._reserved = size
        free = shutil.disk_usage(self._target.parent).free
        if free < size:
            raise ExportError(
                f"the pack needs {size} bytes, the disk of {self._target.parent} has {free} left; "
                "make room or choose another place"
            )

    def path(self, name: str) -> Path:
        """Return where to write the file ``name`` of the pack."""
        self._check_open()
        try:
            return self._folder / check_file_name(name)
        except PackError as error:
            raise ExportError(str(error)) from None

    def seal(self, manifest: PackManifest) -> Path:
        """Write pack.json and return the folder, which from then on is a pack that can be opened, in a work place.

        ``manifest.files`` is filled from the files written. To be followed by :meth:`commit` without a manifest.
        """
        self._check_open()
        try:
            complete = write_manifest(self._folder, manifest)
        except OSError as error:
            raise self._explain(error) from error
        self._reserved = sum(entry.bytes for entry in complete.files.values())
        self._sealed = True
        return self._folder

    def commit(self, manifest: PackManifest | None = None) -> Path:
        """Seal the pack if a manifest is given, move it into place and return its path."""
        self._check_open()
        if manifest is not None:
            self.seal(manifest)
        if not self._sealed:
            raise ExportError("commit needs a manifest, here or in seal")
        try:
            with atomic_path(self._target, hidden=True, replace=self.force) as finished:
                if self._zipped:
                    _write_zip(self._folder, finished)
                else:
                    self._folder.replace(finished)
                self._check_target()  # again: an export takes minutes
        except OSError as error:
            if not self.force and error.errno in {errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR, errno.EISDIR}:
                raise ExportError(f"{self.out} appeared while the pack was written; it was left alone") from error
            raise self._explain(error) from error
        self._open = False
        remove(self._folder)
        return self.out

    def _check_target(self) -> None:
        parent = self._target.parent
        if not parent.is_dir():
            raise ExportError(f"{self.out} cannot be written: there is no folder {parent}; make it first")
        try:
            self._target.lstat()
        except FileNotFoundError:
            return
        if not self.force:
            raise ExportError(f"{self.out} exists already; choose another path, or replace the pack with --force")
        reason = _zip_foreign(self._target) if self._zipped else _folder_foreign(self._target)
        if reason:
            raise ExportError(f"{self.out} is not replaced: {reason}; remove it yourself or choose another path")

    def _check_open(self) -> None:
        if not self._open:
            raise ExportError("the writer of a pack is used inside its with block, before commit")

    def _is_ours(self, error: OSError) -> bool:
        # numpy's tofile reports a full disk without an error number
        full = error.errno in _FULL or (error.errno is None and "requested and" in str(error))
        return full or str(error.filename or "").startswith(str(self._folder))

    def _explain(self, error: OSError) -> ExportError:
        parent = self._target.parent
        if error.errno not in _FULL and error.errno is not None:
            where = f" ({error.filename})" if error.filename else ""
            return ExportError(f"{self.out} cannot be written: {error.strerror}{where}")
        written = sum(path.stat().st_size for path in self._folder.rglob("*") if path.is_file())
        remove(self._folder)  # first, so that the room it took counts as free
        needed = f"{self._reserved}" if self._reserved > written else f"more than {written}"
        free = shutil.disk_usage(parent).free
        return ExportError(
            f"the disk of {parent} is full: {self.out} needs {needed} bytes, {free} are free; "
            "nothing was left behind; make room or choose another place"
        )


def write_manifest(folder: Path, manifest: PackManifest) -> PackManifest:
    """Write the pack.json of a folder and return what it says: ``manifest`` with size and SHA-256 of every file.

    The file appears complete or not at all. Raises ExportError if the folder holds what a pack may not, or if the
    manifest would not be readable again (a card with NaN, with keys that are not text, nested too deeply).
    """
    entries = {}
    for path in sorted(folder.iterdir()):
        if path.name == MANIFEST_NAME:
            continue
        if path.is_symlink() or not path.is_file():
            raise ExportError(f"{path}: not a regular file; a pack holds nothing else")
        try:
            check_file_name(path.name)
        except PackError as error:
            raise ExportError(str(error)) from None
        with path.open("rb", buffering=0) as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        entries[path.name] = FileEntry(path.stat().st_size, digest)
    complete = manifest.with_files(entries)
    save_manifest(folder, complete)
    return complete


def save_manifest(folder: Path, complete: PackManifest) -> None:
    """Write a pack.json as it is; it appears complete or not at all.

    Raises:
        ExportError: it would not be readable again.
    """
    try:
        text = json.dumps(complete.to_dict(), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        content = text.encode("utf-8")
        if parse_manifest(content) != complete:
            raise ExportError(f"the manifest of {folder} does not survive being written: use JSON's own types")
    except (PackError, ValueError, TypeError, RecursionError) as error:
        raise ExportError(f"the manifest of {folder} cannot be written: {error}") from None
    with atomic_path(folder / MANIFEST_NAME, hidden=True) as temporary:
        temporary.write_bytes(content)


def _write_zip(folder: Path, target: Path) -> None:
    # stored: weights do not compress; fixed dates, rights and order: the same pack gives the same zip
    names = sorted((path.name for path in folder.iterdir()), key=lambda name: (name != MANIFEST_NAME, name))
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for name in names:
            info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            info.create_system = 3  # Unix, wherever this runs: the rights below are Unix rights
            info.external_attr = 0o100644 << 16
            info.file_size = (folder / name).stat().st_size  # lets zipfile choose 64-bit sizes when they are needed
            with (folder / name).open("rb") as source, archive.open(info, "w") as entry:
                shutil.copyfileobj(source, entry, 2**18)


def _folder_foreign(target: Path) -> str | None:
    """Why a folder may not be replaced, or None if it is empty or holds a pack and nothing else."""
    if not target.is_dir():
        return "it is not a folder"
    names = {path.name for path in target.iterdir()} - _LITTER
    if not names:
        return None
    if MANIFEST_NAME not in names:
        return f"it has no {MANIFEST_NAME}, so it is not a pack"
    listed = _STANDARD_FILES | {MANIFEST_NAME}
    with contextlib.suppress(PackError):  # a damaged pack may be replaced too
        listed |= set(read_manifest(target).files)
    foreign = sorted(name for name in names if name not in listed or not (target / name).is_file())
    return f"it holds {foreign[0]!r}, which is not part of the pack" if foreign else None


def _zip_foreign(target: Path) -> str | None:
    if not target.is_file():
        return "it is not a file"
    try:
        with zipfile.ZipFile(target) as archive:
            packs = [name for name in archive.namelist() if name.rpartition("/")[2] == MANIFEST_NAME]
    except (zipfile.BadZipFile, ValueError, RuntimeError):
        return "it is not a zip file"
    return None if packs else f"it has no {MANIFEST_NAME}, so it is not a pack"
