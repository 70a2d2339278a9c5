"""runtime/atomic.py: what is written has its name when it is whole, and what it replaces is never lost."""

from __future__ import annotations

import errno
import sys
from pathlib import Path

import pytest

from mobilenmt.runtime import atomic
from mobilenmt.runtime.atomic import atomic_path


def make(folder: Path, content: str) -> Path:
    folder.mkdir()
    (folder / "file").write_text(content)
    return folder


def test_a_folder_is_replaced_whole_and_nothing_else_stays(tmp_path: Path) -> None:
    old = make(tmp_path / "folder", "old")
    with atomic_path(old) as temporary:
        make(temporary, "new")
        assert (old / "file").read_text() == "old"
    assert (old / "file").read_text() == "new"
    assert list(tmp_path.iterdir()) == [old]


def test_a_folder_that_is_not_to_be_replaced_stays(tmp_path: Path) -> None:
    old = make(tmp_path / "folder", "old")
    with pytest.raises(OSError) as caught, atomic_path(old, replace=False) as temporary:
        make(temporary, "new")
    assert caught.value.errno in (errno.ENOTEMPTY, errno.EEXIST)
    assert (old / "file").read_text() == "old"
    assert list(tmp_path.iterdir()) == [old]


def test_an_old_folder_is_put_back_when_the_new_one_cannot_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = make(tmp_path / "folder", "old")

    def fail(path: Path, target: Path) -> Path:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(KeyboardInterrupt), atomic_path(old) as temporary:
        make(temporary, "new")
    assert (old / "file").read_text() == "old"
    assert list(tmp_path.iterdir()) == [old]


def test_names_are_hidden_where_asked_and_keep_the_suffix(tmp_path: Path) -> None:
    for hidden in (False, True):
        with atomic_path(tmp_path / "a.npz", hidden=hidden) as temporary:
            temporary.write_text("x")
            assert temporary.name.startswith(".a.tmp-" if hidden else "a.tmp-")
            assert temporary.suffix == ".npz"
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]


@pytest.mark.parametrize("name", ["x" * 255, "x" * 100 + "." + "ü" * 70])
def test_the_longest_names_have_room(tmp_path: Path, name: str) -> None:
    with atomic_path(tmp_path / name, hidden=True) as temporary:
        temporary.write_text("x")
    assert (tmp_path / name).read_text() == "x"


@pytest.mark.parametrize("mode", [0o200, 0o400])
def test_files_of_any_mode_can_be_synced(tmp_path: Path, mode: int) -> None:
    with atomic_path(tmp_path / "file") as temporary:
        temporary.write_text("x")
        temporary.chmod(mode)
    assert (tmp_path / "file").stat().st_mode & 0o777 == mode


def test_a_second_interrupt_while_a_folder_is_removed_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    real, calls = shutil.rmtree, 0

    def interrupted(path: Path, ignore_errors: bool = False) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise KeyboardInterrupt
        real(path, ignore_errors=ignore_errors)

    monkeypatch.setattr(shutil, "rmtree", interrupted)
    with pytest.raises(KeyboardInterrupt):
        atomic.remove(make(tmp_path / "folder", "x"))
    assert not list(tmp_path.iterdir())


def test_what_a_link_points_to_is_left_alone(tmp_path: Path) -> None:
    """A folder may hold a link to a program that runs, which cannot be opened for writing."""
    with atomic_path(tmp_path / "folder") as temporary:
        temporary.mkdir()
        (temporary / "python").symlink_to(sys.executable)
        (temporary / "nothing").symlink_to(tmp_path / "nothing")
    assert (tmp_path / "folder" / "python").is_symlink() and (tmp_path / "folder" / "nothing").is_symlink()
