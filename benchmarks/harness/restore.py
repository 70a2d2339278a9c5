"""The checkpoint in a pack: what other engines are given when they are to run the very model that we ship.

It is what ``mobilenmt restore`` writes; its export is the same pack, byte for byte.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.harness.prepare import made_once
from mobilenmt.export.ecosystem.restore import restore
from mobilenmt.runtime.pack import Pack


def restored(path: Path, build: Path) -> Path:
    """The checkpoint of a pack, in a folder below ``build``; made once for each content of a pack.

    Raises:
        PackError, ExportError: the pack cannot be turned back into a checkpoint.
    """
    files = Pack.open(path).manifest.files
    return made_once(build / f"checkpoint-{files['weights.bin'].sha256[:12]}", lambda out: restore(path, out))
