"""PyInstaller's hook for mobilenmt.

The C core and the rules for text go along, and every installed pack with what it is found by.
"""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path

from PyInstaller.utils.hooks import collect_data_files, collect_submodules, copy_metadata

from mobilenmt.runtime.locate import GROUP, pack_in
from mobilenmt.runtime.native import LIBRARY
from mobilenmt.runtime.pack import read_manifest

hiddenimports = collect_submodules("mobilenmt.runtime")  # loaded at their first use
binaries = [(str(LIBRARY), "mobilenmt/runtime/native")] if LIBRARY.is_file() else []  # opened by its path
datas: list[tuple[str, str]] = collect_data_files("mobilenmt.runtime.text")
for entry in entry_points(group=GROUP):
    pack = pack_in(entry.name, entry.value)
    target = Path(*entry.value.split("."), *(["pack"] if pack.name == "pack" else []))
    datas += [(str(pack / name), str(target)) for name in ("pack.json", *read_manifest(pack).files)]
    if entry.dist is not None:
        datas += copy_metadata(entry.dist.name)  # the entry point, and the licence of the weights
    hiddenimports.append(entry.value)
