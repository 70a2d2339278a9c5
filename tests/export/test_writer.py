"""A pack is written whole or not at all, and nothing but a pack is ever replaced."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest

from mobilenmt.export.writer import PackWriter, write_manifest
from mobilenmt.runtime import atomic
from mobilenmt.runtime.errors import ExportError
from mobilenmt.runtime.pack import Pack
from places import SRC
from small_packs import CONTENT, fill, make_folder, manifest, tree, write
from tiny_models import default_signals


def test_commit_writes_a_pack_that_opens(tmp_path: Path) -> None:
    path = write(tmp_path / "en-de")
    assert path == tmp_path / "en-de"
    opened = Pack.open(path)
    assert set(opened.manifest.files) == set(CONTENT)
    for name, content in CONTENT.items():
        assert opened.manifest.files[name].bytes == len(content)
        assert opened.manifest.files[name].sha256 == hashlib.sha256(content).hexdigest()
    assert opened.manifest.with_files({}) == manifest()
    assert os.listdir(tmp_path) == ["en-de"]  # noqa: PTH208


def test_pack_json_is_for_people_too(tmp_path: Path) -> None:
    text = (write(tmp_path / "en-de") / "pack.json").read_text("utf-8")
    assert "für Tests" in text
    assert text == json.dumps(json.loads(text), indent=1, ensure_ascii=False) + "\n"


def test_rights_are_the_users_own_choice(tmp_path: Path) -> None:
    (tmp_path / "reference").mkdir()
    path = write(tmp_path / "en-de")
    assert path.stat().st_mode == (tmp_path / "reference").stat().st_mode


@pytest.mark.parametrize("out", ["en-de", "en-de/", "./en-de", "sub/../en-de", "Ünï cödé 🚉", "x" * 255, "-x", "a.b"])
def test_any_spelling_of_the_path_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str) -> None:
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path)
    path = write(out)
    assert path.is_absolute()
    Pack.open(path)
    assert write(out, force=True) == path
    assert len(list(tmp_path.iterdir())) == 2


def test_sealed_pack_can_be_verified_before_it_is_in_place(tmp_path: Path) -> None:
    with PackWriter(tmp_path / "en-de") as writer:
        fill(writer)
        Pack.open(writer.seal(manifest()))
        assert not (tmp_path / "en-de").exists()
        Pack.open(writer.commit())


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, RuntimeError, MemoryError, GeneratorExit])
@pytest.mark.parametrize("sealed", [False, True])
def test_whatever_ends_the_block_leaves_nothing(tmp_path: Path, error: type[BaseException], sealed: bool) -> None:
    def export() -> None:
        with PackWriter(tmp_path / "en-de") as writer:
            fill(writer)
            if sealed:
                writer.seal(manifest())
            (work,) = tmp_path.iterdir()
            assert work.name.startswith(f".en-de.tmp-{os.getpid()}-")
            raise error

    with pytest.raises(error):
        export()
    assert not list(tmp_path.iterdir())


def test_block_left_without_commit_leaves_nothing(tmp_path: Path) -> None:
    with PackWriter(tmp_path / "en-de") as writer:
        fill(writer)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
def test_real_ctrl_c_leaves_nothing(tmp_path: Path) -> None:
    program = (
        "import sys, time\nsys.path.insert(0, sys.argv[1])\n"
        "from mobilenmt.export.writer import PackWriter\n"
        "with PackWriter(sys.argv[2]) as writer:\n"
        "    writer.path('weights.bin').write_bytes(bytes(1000000))\n"
        "    print('ready', flush=True)\n"
        "    time.sleep(30)\n"
    )
    arguments = [sys.executable, "-c", program, str(SRC), str(tmp_path / "en-de")]
    process = subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, preexec_fn=default_signals
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    assert len(list(tmp_path.iterdir())) == 1
    process.send_signal(signal.SIGINT)
    process.wait(timeout=20)
    process.stdout.close()
    assert process.returncode != 0
    assert not list(tmp_path.iterdir())


# ---- a full disk


def disk_is_full(path: Path) -> OSError:
    return OSError(errno.ENOSPC, "No space left on device", str(path))


def test_full_disk_while_files_are_written(tmp_path: Path) -> None:
    def export() -> None:
        with PackWriter(tmp_path / "en-de") as writer:
            writer.path("weights.bin").write_bytes(bytes(5000))
            raise disk_is_full(writer.path("weights.bin"))

    with pytest.raises(
        ExportError, match=r"disk of .* is full: .* needs more than 5000 bytes, [0-9]+ are free"
    ) as caught:
        export()
    assert str(tmp_path) in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_full_disk_reported_by_numpy_without_an_error_number(tmp_path: Path) -> None:
    def export() -> None:
        with PackWriter(tmp_path / "en-de"):
            raise OSError("1048576 requested and 4096 written")

    with pytest.raises(ExportError, match="is full"):
        export()


@pytest.mark.parametrize("out", ["en-de", "en-de.zip"])
@pytest.mark.parametrize("force", [False, True])
def test_full_disk_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str, force: bool) -> None:
    if force:
        write(tmp_path / out, name="old")
    before = tree(tmp_path)

    def full(path: Path) -> None:
        raise disk_is_full(path)

    monkeypatch.setattr(atomic, "_sync", full)
    with pytest.raises(ExportError, match="is full"):
        write(tmp_path / out, force=force)
    assert tree(tmp_path) == before


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_truly_full_device(tmp_path: Path) -> None:
    def export() -> None:
        with PackWriter(tmp_path / "en-de") as writer:
            writer.path("weights.bin").symlink_to("/dev/full")
            writer.path("weights.bin").write_bytes(bytes(100_000))

    with pytest.raises(ExportError, match="is full"):
        export()
    assert not list(tmp_path.iterdir())


def test_lack_of_room_is_told_before_work_begins(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free

    def export() -> None:
        with PackWriter(tmp_path / "en-de") as writer:
            writer.reserve(1000)
            writer.reserve(free * 10)

    with pytest.raises(ExportError, match=f"needs {free * 10} bytes, the disk of .* has [0-9]+ left"):
        export()


def test_errors_of_other_files_pass_unchanged(tmp_path: Path) -> None:
    def export() -> None:
        with PackWriter(tmp_path / "en-de"):
            (tmp_path / "checkpoint").read_bytes()

    with pytest.raises(FileNotFoundError):
        export()
    assert not list(tmp_path.iterdir())


# ---- what may be written


@pytest.mark.parametrize("name", ["../x", "/x", "a/b", "a\\b", "pack.json", "", ".x", "ü"])
def test_only_plain_names_are_given_a_path(tmp_path: Path, name: str) -> None:
    with PackWriter(tmp_path / "en-de") as writer, pytest.raises(ExportError, match="may not name"):
        writer.path(name)


def test_stray_files_and_folders_are_not_packed(tmp_path: Path) -> None:
    for make in (Path.mkdir, Path.touch):
        with PackWriter(tmp_path / "en-de") as writer:
            fill(writer)
            make(writer.path("x").with_name("stray one"))
            with pytest.raises(ExportError, match="stray one"):
                writer.commit(manifest())
    assert not list(tmp_path.iterdir())


DEEP: dict[str, Any] = {}
for _ in range(50):
    DEEP = {"deeper": DEEP}


@pytest.mark.parametrize(
    "card", [{"score": math.nan}, {"score": math.inf}, {1: "x"}, {"x": {1, 2}}, {"x": (1, 2)}, {"x": "\ud800"}, DEEP]
)
def test_card_that_no_reader_could_read_is_refused(tmp_path: Path, card: Any) -> None:
    with pytest.raises(ExportError, match="the manifest of"):
        write(tmp_path / "en-de", card=card)
    assert not list(tmp_path.iterdir())


def test_writer_is_used_once_and_inside_its_block(tmp_path: Path) -> None:
    writer = PackWriter(tmp_path / "en-de")
    with pytest.raises(ExportError):
        writer.path("weights.bin")
    with writer:
        fill(writer)
        with pytest.raises(ExportError, match="needs a manifest"):
            writer.commit()
        writer.commit(manifest())
        with pytest.raises(ExportError):
            writer.commit(manifest())
    with pytest.raises(ExportError):
        writer.path("weights.bin")
    Pack.open(tmp_path / "en-de")


def test_manifest_of_a_finished_pack_can_be_written_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_folder(tmp_path / "en-de")
    scores = {"scores": {"dev": 31.25}}
    assert write_manifest(folder, manifest(card=scores)).card == scores
    assert Pack.open(folder).manifest.card == scores

    def full(path: Path) -> None:
        raise disk_is_full(path)

    monkeypatch.setattr(atomic, "_sync", full)
    with pytest.raises(OSError, match="No space"):
        write_manifest(folder, manifest())
    assert Pack.open(folder).manifest.card == scores
    assert {path.name for path in folder.iterdir()} == {*CONTENT, "pack.json"}


# ---- zips


def test_zip_is_the_same_every_time_and_opens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOBILENMT_CACHE", str(tmp_path / "cache"))
    first = write(tmp_path / "first.zip")
    time.sleep(0.01)
    second = write(tmp_path / "second.ZIP")
    assert first.read_bytes() == second.read_bytes()
    assert Pack.open(first).manifest.with_files({}) == manifest()
    with zipfile.ZipFile(first) as archive:
        assert archive.namelist() == ["pack.json", *sorted(CONTENT)]
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
    assert {path.name for path in tmp_path.iterdir()} == {"cache", "first.zip", "second.ZIP"}


def test_force_replaces_a_zip_of_a_pack_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOBILENMT_CACHE", str(tmp_path / "cache"))
    out = write(tmp_path / "en-de.zip")
    write(out, force=True, name="new")
    assert Pack.open(out).manifest.name == "new"
    photos = tmp_path / "photos.zip"
    with zipfile.ZipFile(photos, "w") as archive:
        archive.writestr("photo.jpg", b"x")
    before = photos.read_bytes()
    with pytest.raises(ExportError, match="is not a pack"):
        write(photos, force=True)
    assert photos.read_bytes() == before


def test_many_writers_beside_each_other_do_not_meet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getpid", lambda: 1)
    with PackWriter(tmp_path / "en-de") as one, PackWriter(tmp_path / "en-de") as two:
        fill(one)
        fill(two)
        one.commit(manifest(name="one"))
        with pytest.raises(ExportError, match="exists already"):
            two.commit(manifest(name="two"))
    assert Pack.open(tmp_path / "en-de").manifest.name == "one"
