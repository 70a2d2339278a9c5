"""Where a pack may be written, and that only a pack is ever replaced, by a swap that loses nothing."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from mobilenmt.export.writer import PackWriter
from mobilenmt.runtime import atomic
from mobilenmt.runtime.errors import ExportError
from mobilenmt.runtime.pack import Pack
from small_packs import CONTENT, fill, make_folder, manifest, tree, write

# ---- the destination


def test_existing_path_is_refused_without_force(tmp_path: Path) -> None:
    make_folder(tmp_path / "pack")
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty").mkdir()
    (tmp_path / "zipped.zip").write_text("x")
    before = tree(tmp_path)
    for name in ("pack", "file", "empty", "zipped.zip", "."):
        with pytest.raises(ExportError, match=r"exists already.*--force"):
            write(tmp_path / name)
    assert tree(tmp_path) == before


def test_force_replaces_a_pack(tmp_path: Path) -> None:
    old = make_folder(tmp_path / "en-de")
    (old / "tokenizer.target.json").write_text("left over")
    (old / ".DS_Store").write_text("litter")
    write(old, force=True, name="new")
    assert Pack.open(old).manifest.name == "new"
    assert {path.name for path in old.iterdir()} == {*CONTENT, "pack.json"}
    assert len(list(tmp_path.iterdir())) == 1


def test_force_replaces_a_damaged_pack_and_an_empty_folder(tmp_path: Path) -> None:
    damaged = make_folder(tmp_path / "damaged")
    (damaged / "pack.json").write_bytes(b"{")
    (tmp_path / "empty").mkdir()
    for name in ("damaged", "empty", "new"):
        Pack.open(write(tmp_path / name, force=True))


def test_force_replaces_a_damaged_pack_with_every_file_that_the_exporter_writes(
    tiny_pack: Path, tmp_path: Path
) -> None:
    damaged = Path(shutil.copytree(tiny_pack, tmp_path / "damaged"))
    (damaged / "pack.json").write_bytes(b"{")
    Pack.open(write(damaged, force=True))


def make_home(folder: Path) -> None:
    (folder / "Documents").mkdir(parents=True)
    (folder / "thesis.txt").write_text("years of work")


def make_home_with_a_stray_manifest(folder: Path) -> None:
    make_home(folder)
    (folder / "pack.json").write_text("{}")


def make_pack_with_notes(folder: Path) -> None:
    make_folder(folder)
    (folder / "notes.txt").write_text("mine")


def make_pack_with_a_folder(folder: Path) -> None:
    make_folder(folder)
    (folder / "weights.bin").unlink()
    (folder / "weights.bin").mkdir()


def make_file(folder: Path) -> None:
    folder.write_text("x")


@pytest.mark.parametrize(
    "make", [make_home, make_home_with_a_stray_manifest, make_pack_with_notes, make_pack_with_a_folder, make_file]
)
@pytest.mark.parametrize("zipped", [False, True])
def test_force_never_replaces_what_is_not_a_pack(tmp_path: Path, make: Any, zipped: bool) -> None:
    target = tmp_path / ("precious.zip" if zipped else "precious")
    make(target)
    before = tree(tmp_path)
    with pytest.raises(ExportError, match="is not replaced"):
        write(target, force=True)
    assert tree(tmp_path) == before


def test_force_looks_again_before_it_replaces(tmp_path: Path) -> None:
    old = make_folder(tmp_path / "en-de")

    def export() -> None:
        with PackWriter(old, force=True) as writer:
            fill(writer)
            (old / "notes.txt").write_text("written while the export ran")
            writer.commit(manifest())

    with pytest.raises(ExportError, match=r"notes\.txt"):
        export()
    assert (old / "notes.txt").exists()
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("make", [make_home, make_file])
def test_path_that_appears_meanwhile_is_left_alone(tmp_path: Path, make: Any) -> None:
    def export() -> None:
        with PackWriter(tmp_path / "en-de") as writer:
            fill(writer)
            make(tmp_path / "en-de")
            writer.commit(manifest())

    with pytest.raises(ExportError, match="exists already"):
        export()
    assert [path.name for path in tmp_path.iterdir()] == ["en-de"]


@pytest.mark.skipif(os.name != "posix", reason="links need rights on Windows")
def test_link_to_a_pack_stays_a_link(tmp_path: Path) -> None:
    make_folder(tmp_path / "real" / "en-de")
    (tmp_path / "link").symlink_to(tmp_path / "real" / "en-de")
    write(tmp_path / "link", force=True, name="new")
    assert (tmp_path / "link").is_symlink()
    assert Pack.open(tmp_path / "real" / "en-de").manifest.name == "new"
    (tmp_path / "circle").symlink_to("circle")
    with pytest.raises(ExportError):
        write(tmp_path / "circle", force=True)


@pytest.mark.parametrize("out", ["", "a\0b", "/", "missing/en-de", "file/en-de", "x" * 256])
def test_impossible_path_is_an_export_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("x")
    for force in (False, True):
        with pytest.raises(ExportError):
            write(out, force=force)
    assert os.listdir(tmp_path) == ["file"]  # noqa: PTH208


def test_unwritable_parent_is_an_export_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, *args: Any, **options: Any) -> None:  # chmod does not stop the superuser tests may run as
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(ExportError, match="cannot be written: Permission denied"):
        write(tmp_path / "en-de")


# ---- swapping


@pytest.mark.parametrize("error", [OSError(errno.EIO, "Input/output error"), KeyboardInterrupt()])
@pytest.mark.parametrize("after", [False, True])
def test_old_pack_survives_a_swap_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, after: bool
) -> None:
    old = make_folder(tmp_path / "en-de")
    replace = Path.replace

    def fail(path: Path, target: Path) -> Path:
        if target == old:
            raise error
        return replace(path, target)

    rename = Path.rename

    def interrupted(path: Path, target: Path) -> Path:
        done = rename(path, target)
        if path == old:
            raise error
        return done

    monkeypatch.setattr(Path, "rename" if after else "replace", interrupted if after else fail)
    with pytest.raises(ExportError if isinstance(error, OSError) else KeyboardInterrupt):
        write(old, force=True, name="new")
    assert Pack.open(old).manifest.name == "en-de"
    assert len(list(tmp_path.iterdir())) == 1


def test_old_pack_that_cannot_be_put_back_is_kept_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = make_folder(tmp_path / "en-de")

    rename, replace = Path.rename, Path.replace

    def fail(path: Path, target: Path) -> Path:
        if target == old:
            raise OSError(errno.EIO, "Input/output error", str(path))
        return rename(path, target) if path == old else replace(path, target)

    monkeypatch.setattr(Path, "replace", fail)
    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(ExportError, match=r"could not be put back.*it is in ") as caught:
        write(old, force=True)
    Pack.open(str(caught.value).rpartition("it is in ")[2])


def test_interrupt_after_the_swap_keeps_the_new_pack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = make_folder(tmp_path / "en-de")
    sync = atomic._sync

    def interrupt(path: Path) -> None:
        if path == tmp_path:
            raise KeyboardInterrupt
        sync(path)

    monkeypatch.setattr(atomic, "_sync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write(old, force=True, name="new")
    assert Pack.open(old).manifest.name == "new"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.skipif(os.name != "posix", reason="an open folder cannot be renamed on Windows")
def test_reader_meets_a_whole_pack_before_and_after(tmp_path: Path) -> None:
    old = make_folder(tmp_path / "en-de")
    with (old / "weights.bin").open("rb") as weights:
        write(old, force=True)
        assert weights.read() == CONTENT["weights.bin"]
