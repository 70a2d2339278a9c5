"""Give a pack that is there already what a newer exporter would have written: native.bin, and whatever follows.

Nothing but the pack is needed, and no torch: the graphs say where each tensor lies in weights.bin.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from mobilenmt.export.native.file import NATIVE_FILE, native_bytes
from mobilenmt.export.writer import PackWriter, save_manifest
from mobilenmt.runtime.atomic import atomic_path
from mobilenmt.runtime.errors import ExportError
from mobilenmt.runtime.locate import find_pack
from mobilenmt.runtime.manifest import FORMAT_VERSION, FileEntry, PackManifest
from mobilenmt.runtime.pack import Pack


def upgrade(source: str | os.PathLike[str], *, report: Callable[[str], None] = lambda line: None) -> Pack:
    """Write the native.bin of a pack, a folder or a zip, in its place; pack.json follows, with the format of today.

    Whatever ends this early leaves a pack that opens. A pack that has all already is not touched.

    Raises:
        PackError: there is no such pack, or it is damaged.
        ExportError: it cannot have a native.bin, or cannot be written.
    """
    pack = Pack.open(source)
    reasons: list[str] = []
    native = native_bytes(pack.path, pack.manifest, report=reasons.append)
    if native is None:
        raise ExportError(f"{source} stays as it is: {reasons[-1]}")
    return rewrite(source, pack, pack.manifest, {NATIVE_FILE: native}, report=report)


def rewrite(
    source: str | os.PathLike[str],
    pack: Pack,
    manifest: PackManifest,
    files: Mapping[str, bytes],
    *,
    report: Callable[[str], None] = lambda line: None,
) -> Pack:
    """Put ``files``, which a pack can do without, and a new manifest into a pack that was opened from ``source``.

    Raises:
        ExportError: it cannot be written.
    """
    entries = dict(pack.manifest.files)
    entries |= {name: FileEntry(len(data), hashlib.sha256(data).hexdigest()) for name, data in files.items()}
    format_version = max(pack.manifest.format_version, FORMAT_VERSION)
    complete = replace(manifest, files=dict(sorted(entries.items())), format_version=format_version)
    path = find_pack(source)
    if complete == pack.manifest:
        report(f"{path}: nothing to do")
        return pack
    try:
        _write(path, pack, complete, files)
    except OSError as error:
        raise ExportError(f"{path} cannot be written: {error.strerror or error}") from None
    report(f"{path}: format {'.'.join(map(str, format_version))}, {', '.join([*files, 'pack.json'])} written")
    return Pack.open(path)


def _write(path: Path, pack: Pack, complete: PackManifest, files: Mapping[str, bytes]) -> None:
    if not path.is_dir():
        with PackWriter(path, force=True) as writer:
            for name in complete.files:
                if name in files:
                    writer.path(name).write_bytes(files[name])
                else:
                    shutil.copyfile(pack.file(name), writer.path(name))
            writer.commit(complete)
        return
    # At every moment pack.json tells the truth: it lists no file that is about to be replaced.
    changed = {name: data for name, data in files.items() if pack.manifest.files.get(name) != complete.files[name]}
    if changed.keys() & pack.manifest.files.keys():
        left = {name: entry for name, entry in pack.manifest.files.items() if name not in changed}
        save_manifest(path, pack.manifest.with_files(left))
    for name, data in changed.items():
        with atomic_path(path / name, hidden=True) as temporary:
            temporary.write_bytes(data)
    save_manifest(path, complete)
