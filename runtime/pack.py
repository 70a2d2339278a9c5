"""Open a pack: find it, read its manifest, check its files.

A pack is a folder with a ``pack.json`` and the files that it lists, or one zip of that. Other files in the folder are
ignored. What pack.json says is defined in :mod:`mobilenmt.runtime.manifest`, where packs are looked for in
:mod:`mobilenmt.runtime.locate`.
"""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from mobilenmt.runtime.checks import shown
from mobilenmt.runtime.errors import PackError
from mobilenmt.runtime.locate import find_pack
from mobilenmt.runtime.manifest import MANIFEST_LIMIT, MANIFEST_NAME, PackManifest, parse_manifest

REQUIRED_FILES = ("tokenizer.json", "weights.bin", "greedy.onnx", "translator.onnx")
"""Files without which a pack cannot translate; format 1 had no greedy.onnx."""


@dataclass(frozen=True)
class Pack:
    """A pack whose files were found in place."""

    path: Path
    """The folder, absolute; for a zip, the one it was unpacked into."""
    manifest: PackManifest

    @classmethod
    def open(cls, source: str | os.PathLike[str], *, verify: bool = True) -> Pack:
        """Open the pack with this name or at this path, a folder or a zip (see :func:`find_pack`).

        ``verify`` reads every file to compare its SHA-256, about 1 ms a megabyte; without it only sizes are checked.

        Raises:
            PackNotFoundError: there is none.
            PackError: it is damaged, incomplete, hostile or too new.
        """
        path = find_pack(source)
        if path.is_dir():
            return cls._open_folder(path, verify)
        from mobilenmt.runtime.unpack import unpack  # zipfile, shutil and what they import: only for a zip

        folder = unpack(path)
        try:
            return cls._open_folder(folder, verify)
        except PackError:
            # the cache lost a file or a disk failed: the zip itself decides whether the pack is sound
            return cls._open_folder(unpack(path, again=True), verify)

    @classmethod
    def _open_folder(cls, path: Path, verify: bool) -> Pack:
        pack = cls(path, read_manifest(path))
        older = pack.manifest.format_version < (2, 0)
        required = [name for name in REQUIRED_FILES if not (older and name == "greedy.onnx")]
        missing = [name for name in required if name not in pack.manifest.files]
        if missing:
            raise PackError(f"{path / MANIFEST_NAME}: files: {', '.join(missing)} not listed")
        pack._check(content=verify)
        return pack

    def file(self, name: str) -> Path:
        """Return the path of one of the pack's files; PackError if the pack does not list it."""
        if name not in self.manifest.files:
            raise PackError(f"{self.path}: the pack has no file {shown(name)}")
        return self.path / name

    @property
    def total_bytes(self) -> int:
        """Bytes of all files, pack.json included."""
        listed = sum(entry.bytes for entry in self.manifest.files.values())
        return listed + _regular(self.path, MANIFEST_NAME).st_size

    def check(self) -> None:
        """Compare size and SHA-256 of every file with the manifest; PackError names the first that differs."""
        self._check(content=True)

    def _check(self, *, content: bool) -> None:
        for name, entry in self.manifest.files.items():
            size = _regular(self.path, name).st_size
            if size != entry.bytes:
                raise PackError(
                    f"{self.path / name}: {size} bytes instead of the {entry.bytes} in {MANIFEST_NAME}; "
                    "the copy is incomplete or was changed: copy the pack again"
                )
        if content:
            for name, entry in self.manifest.files.items():
                if _sha256(self.path / name) != entry.sha256:
                    raise PackError(
                        f"{self.path / name}: its content (SHA-256) is not what {MANIFEST_NAME} says; "
                        "the file was changed or damaged: copy the pack again"
                    )


def read_manifest(folder: Path) -> PackManifest:
    """Read the pack.json of a folder, and nothing else; PackError names the file and the key."""
    path = folder / MANIFEST_NAME
    if not os.path.lexists(path):
        raise PackError(f"{folder} is no pack: it has no {MANIFEST_NAME}")
    if _regular(folder, MANIFEST_NAME).st_size > MANIFEST_LIMIT:
        raise PackError(f"{path}: larger than {MANIFEST_LIMIT} bytes; this is no manifest")
    try:
        with path.open("rb") as stream:
            content = stream.read(MANIFEST_LIMIT)
    except OSError as error:
        raise PackError(f"{path}: cannot be read: {error.strerror}") from None
    try:
        return parse_manifest(content)
    except PackError as error:
        raise PackError(f"{path}: {error}") from None


def _regular(folder: Path, name: str) -> os.stat_result:
    """Status of a regular file in the folder; a link may point to another file there, but not out of it."""
    path = folder / name
    try:
        status = path.lstat()
        if stat.S_ISLNK(status.st_mode):
            if path.resolve().parent != folder.resolve():
                raise PackError(f"{path}: a link that leads out of the pack; put the file itself there")
            status = path.stat()
    except (OSError, RuntimeError) as error:  # RuntimeError: a link to itself, before Python 3.13
        missing = isinstance(error, FileNotFoundError | NotADirectoryError)
        what = "the file is missing" if missing else f"cannot be read: {getattr(error, 'strerror', error)}"
        raise PackError(f"{path}: {what}; the pack is incomplete") from None
    if not stat.S_ISREG(status.st_mode):  # to open a named pipe would wait for ever
        raise PackError(f"{path}: not a regular file")
    return status


def _sha256(path: Path) -> str:
    # read, not mapped: mapped pages would count as memory of the process
    try:
        with path.open("rb", buffering=0) as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise PackError(f"{path}: cannot be read: {error.strerror}") from None
