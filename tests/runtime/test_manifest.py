"""A manifest says what it means in checked types, and hostile JSON is a PackError that names file and key."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mobilenmt.runtime.errors import PackError
from mobilenmt.runtime.manifest import FORMAT_VERSION, FileEntry, ModelInfo, Segmentation, TokenIds, parse_manifest
from mobilenmt.runtime.pack import Pack
from small_packs import make_folder, manifest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_folder(tmp_path / "packs" / "xx-yy")


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the JSON of a pack's manifest."""
    path = folder / "pack.json"
    data = json.loads(path.read_text("utf-8"))
    change(data)
    path.write_text(json.dumps(data), "utf-8")


def test_manifest_survives_json() -> None:
    whole = manifest().with_files({"weights.bin": FileEntry(3, "0" * 64)})
    assert parse_manifest(json.dumps(whole.to_dict()).encode()) == whole


def test_manifest_has_the_documented_keys() -> None:
    data = manifest().to_dict()
    assert data["format"] == "mobilenmt-pack"
    assert data["format_version"] == "2.1"
    assert data["tokens"] == {"start": 7998, "eos": 0, "pad": 7998, "unk": 1}
    assert data["generation"] == {
        "num_beams": 1,
        "length_penalty": 1.0,
        "early_stopping": False,
        "renormalize_logits": False,
        "forced_eos_token_id": 0,
        "bad_token_ids": [7998],
        "max_length": 256,
    }


def test_segmentation_is_optional_and_means_sentences(folder: Path) -> None:
    """Packs that do not say were made of models of sentence pairs, which lose some of several sentences at once."""
    assert manifest().to_dict()["segmentation"] == {"sentences": True}
    edit(folder, lambda data: data.pop("segmentation"))
    assert Pack.open(folder).manifest.segmentation == Segmentation(True)
    edit(folder, lambda data: data.update(segmentation={"later": 1}))
    assert Pack.open(folder).manifest.segmentation == Segmentation(True)
    edit(folder, lambda data: data.update(segmentation={"sentences": False}))
    assert Pack.open(folder).manifest.segmentation == Segmentation(False)


HOSTILE_VALUES: list[tuple[str, object]] = [
    ("format", "other"),
    ("format", None),
    ("format_version", 1.0),
    ("format_version", "1"),
    ("format_version", "0.9"),
    ("format_version", "1.0\n"),
    ("format_version", "١.٠"),
    ("name", ""),
    ("name", "two\nlines"),
    ("name", "\x1b[2J"),
    ("name", 5),
    ("name", "x" * 201),
    ("source_language", 5),
    ("precision", "int3"),
    ("precision", []),
    ("model", []),
    ("model", None),
    ("model.architecture", None),
    ("model.d_model", True),
    ("model.d_model", 256.0),
    ("model.d_model", "256"),
    ("model.d_model", 0),
    ("model.d_model", -256),
    ("model.d_model", 10**30),
    ("model.d_model", 10**4000),
    ("model.encoder_layers", 10**6),
    ("model.encoder_attention_heads", 3),
    ("model.source_vocab_size", 2**31),
    ("model.parameters", [1]),
    ("tokens", "x"),
    ("tokens.eos", True),
    ("tokens.eos", None),
    ("tokens.eos", -1),
    ("tokens.eos", 7999),
    ("tokens.start", 8000),
    ("tokens.unk", 7999),
    ("generation.num_beams", 0),
    ("generation.length_penalty", True),
    ("generation.length_penalty", "1"),
    ("generation.length_penalty", 10**400),
    ("generation.early_stopping", 1),
    ("generation.early_stopping", "ever"),
    ("generation.renormalize_logits", 0),
    ("generation.forced_eos_token_id", 7999),
    ("generation.bad_token_ids", 7998),
    ("generation.bad_token_ids", [True]),
    ("generation.bad_token_ids", [7999]),
    ("generation.bad_token_ids", {"0": 1}),
    ("generation.max_length", 0),
    ("files", []),
    ("files", {"weights.bin": 5}),
    ("files", {"weights.bin": {"bytes": 5}}),
    ("files", {"weights.bin": {"bytes": -1, "sha256": "0" * 64}}),
    ("files", {"weights.bin": {"bytes": True, "sha256": "0" * 64}}),
    ("files", {"weights.bin": {"bytes": 5, "sha256": "0" * 63}}),
    ("files", {"weights.bin": {"bytes": 5, "sha256": "A" * 64}}),
    ("files", {"weights.bin": {"bytes": 5, "sha256": 0}}),
    ("segmentation", None),
    ("segmentation", True),
    ("segmentation.sentences", 1),
    ("segmentation.sentences", "yes"),
    ("card", "text"),
    ("card", None),
    ("tools", {"onnx": 1}),
]


@pytest.mark.parametrize(("key", "value"), HOSTILE_VALUES, ids=lambda v: str(v)[:40])
def test_wrong_value_is_refused_naming_file_and_key(folder: Path, key: str, value: object) -> None:
    def change(data: dict[str, Any]) -> None:
        *parents, last = key.split(".")
        for parent in parents:
            data = data[parent]
        data[last] = value

    edit(folder, change)
    with pytest.raises(PackError) as caught:
        Pack.open(folder)
    message = str(caught.value)
    assert str(folder / "pack.json") in message
    assert key.split(".")[-1] in message
    assert len(message) < 600
    assert message.isprintable()


@pytest.mark.parametrize(
    "name",
    [
        "../x",
        "/etc/passwd",
        "a/b",
        "a\\b",
        "C:x",
        "..",
        ".",
        ".hidden",
        "",
        "a\0b",
        "pack.json",
        "x" * 200,
        "ü",
        "a\n",
        "a.",
    ],
)
def test_file_name_that_is_not_plain_is_refused(folder: Path, name: str) -> None:
    edit(folder, lambda data: data["files"].update({name: {"bytes": 1, "sha256": "0" * 64}}))
    with pytest.raises(PackError, match="may not name a file of a pack"):
        Pack.open(folder)


@pytest.mark.parametrize("key", ["name", "model", "tokens", "files", "generation", "precision", "source_language"])
def test_missing_key_is_named(folder: Path, key: str) -> None:
    edit(folder, lambda data: data.pop(key))
    with pytest.raises(PackError, match=f"{key}: missing"):
        Pack.open(folder)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"5",
        b"\xff\xfe{\0}\0",
        b'"\xff"',
        b"[" * 1_000_000,
        b'{"a":' * 500_000,
        b"[" * 100 + b"]" * 100,
        b'{"card": ' + b'{"a":' * 200 + b"1" + b"}" * 201,
        b'{"format": NaN}',
        b'{"format": Infinity}',
        b'{"format": 1e999}',
        b'{"format": ' + b"1" * 10_000 + b"}",
        b'{"format": "a", "format": "mobilenmt-pack"}',
        b'{"format": "mobilenmt-pack", "format_version": "1.0", "card": {"\\ud800": "\\udfff"}}',
        b'{"a": 1} trailing',
        b"PK\x03\x04",
    ],
    ids=lambda content: repr(content[:24]),
)
def test_hostile_json_is_a_pack_error(folder: Path, content: bytes) -> None:
    (folder / "pack.json").write_bytes(content)
    with pytest.raises(PackError, match=r"pack\.json"):
        Pack.open(folder)


def test_huge_manifest_is_refused_without_being_read(folder: Path) -> None:
    with (folder / "pack.json").open("r+b") as stream:
        stream.truncate(2**30)  # sparse: takes no room
    start = time.perf_counter()
    with pytest.raises(PackError, match="this is no manifest"):
        Pack.open(folder)
    assert time.perf_counter() - start < 0.1


def test_newer_major_version_is_refused_whatever_else_it_says(folder: Path) -> None:
    newer = f"{FORMAT_VERSION[0] + 1}.0"
    (folder / "pack.json").write_text(json.dumps({"format": "mobilenmt-pack", "format_version": newer}))
    with pytest.raises(PackError, match=f"format {newer}.*reads up to 2.1.*update mobilenmt"):
        Pack.open(folder)


def test_newer_minor_version_is_read_and_its_new_keys_are_ignored(folder: Path) -> None:
    def change(data: dict[str, Any]) -> None:
        data["format_version"] = f"{FORMAT_VERSION[0]}.{FORMAT_VERSION[1] + 7}"
        data["added"] = data["model"]["added"] = data["tokens"]["added"] = data["generation"]["added"] = {"x": 1}
        data["files"]["weights.bin"]["added"] = None

    edit(folder, change)
    assert Pack.open(folder).manifest.format_version == (2, FORMAT_VERSION[1] + 7)


def test_values_are_checked_when_made_in_python_too() -> None:
    with pytest.raises(PackError, match="eos"):
        TokenIds(start=1, eos=-1, pad=0, unk=None)
    with pytest.raises(PackError, match=r"tokens\.eos"):
        manifest(tokens=TokenIds(start=0, eos=8000, pad=0, unk=None))
    with pytest.raises(PackError, match="do not divide"):
        ModelInfo("marian", 10, 1, 1, 3, 3, 4, 4, "relu", 9, 9, 9, 9)
