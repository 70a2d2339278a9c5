"""Packs of a few bytes for the tests of finding, reading and writing them; nothing in them can translate."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

from mobilenmt.export.writer import PackWriter, write_manifest
from mobilenmt.runtime.manifest import GenerationDefaults, ModelInfo, PackManifest, TokenIds

CONTENT = {
    "tokenizer.json": b"{}",
    "weights.bin": bytes(range(256)) * 16,
    "encoder.onnx": b"encoder",
    "decoder.onnx": b"decoder",
    "greedy.onnx": b"greedy",
    "translator.onnx": b"translator",
}


def manifest(**changes: Any) -> PackManifest:
    """A manifest of a 256-wide model; keyword arguments replace its values."""
    model = ModelInfo("marian", 256, 6, 2, 4, 4, 1024, 1024, "relu", 7999, 7999, 256, 8905791)
    values: dict[str, Any] = {
        "name": "en-de",
        "source_language": "en",
        "target_language": "de",
        "precision": "int8",
        "model": model,
        "tokens": TokenIds(start=7998, eos=0, pad=7998, unk=1),
        "generation": GenerationDefaults(forced_eos_token_id=0, bad_token_ids=(7998,)),
        "card": {"licence": "CC-BY-4.0", "notes": ["für Tests"]},
        "tools": {"mobilenmt": "0.1.0"},
    }
    return PackManifest(**{**values, **changes})


def make_folder(folder: Path, **changes: Any) -> Path:
    """Write a sound pack."""
    folder.mkdir(parents=True)
    for name, content in CONTENT.items():
        (folder / name).write_bytes(content)
    write_manifest(folder, manifest(**changes))
    return folder


def make_zip(target: Path, folder: Path, prefix: str = "") -> Path:
    """Zip a folder's files, each under ``prefix`` + its name."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.iterdir()):
            archive.write(path, prefix + path.name)
    return target


def fill(writer: PackWriter, **changes: bytes) -> None:
    for name, content in {**CONTENT, **changes}.items():
        writer.path(name).write_bytes(content)


def write(out: Any, *, force: bool = False, **manifest_changes: Any) -> Path:
    with PackWriter(out, force=force) as writer:
        fill(writer)
        return writer.commit(manifest(**manifest_changes))


def tree(folder: Path) -> dict[str, bytes | None]:
    """Every file and folder below, with its content."""
    return {str(path.relative_to(folder)): None if path.is_dir() else path.read_bytes() for path in folder.rglob("*")}
