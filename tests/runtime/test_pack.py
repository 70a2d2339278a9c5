"""A pack is found by the documented order, opens if it is whole, and is refused with a PackError if not."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mobilenmt.export.writer import write_manifest
from mobilenmt.runtime import locate
from mobilenmt.runtime.errors import InputError, PackError, PackNotFoundError
from mobilenmt.runtime.locate import find_pack
from mobilenmt.runtime.manifest import FileEntry
from mobilenmt.runtime.pack import REQUIRED_FILES, Pack
from places import SRC
from small_packs import CONTENT, make_folder, make_zip, manifest


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cache, data and working folder of each test are its own."""
    monkeypatch.setenv("MOBILENMT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.delenv("MOBILENMT_PACKS", raising=False)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_folder(tmp_path / "packs" / "xx-yy")


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the JSON of a pack's manifest."""
    path = folder / "pack.json"
    data = json.loads(path.read_text("utf-8"))
    change(data)
    path.write_text(json.dumps(data), "utf-8")


# ---- the files


def test_sound_pack_opens(folder: Path) -> None:
    opened = Pack.open(folder)
    assert opened.path == folder
    assert opened.manifest.files["weights.bin"] == FileEntry(4096, hashlib.sha256(CONTENT["weights.bin"]).hexdigest())
    assert opened.file("weights.bin") == folder / "weights.bin"
    assert opened.total_bytes == sum(path.stat().st_size for path in folder.iterdir())
    opened.check()


def test_path_stays_valid_when_the_working_folder_changes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    opened = Pack.open("xx-yy")
    monkeypatch.chdir("/")
    assert opened.file("decoder.onnx").read_bytes() == b"decoder"


def test_extra_files_are_ignored(folder: Path) -> None:
    before = Pack.open(folder).total_bytes
    (folder / "README.md").write_text("hello")
    (folder / "sub").mkdir()
    assert Pack.open(folder).total_bytes == before


@pytest.mark.parametrize("name", CONTENT)
def test_changed_byte_is_found(folder: Path, name: str) -> None:
    content = bytearray((folder / name).read_bytes())
    content[-1] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(PackError, match=f"{name}.*SHA-256"):
        Pack.open(folder)
    unverified = Pack.open(folder, verify=False)
    with pytest.raises(PackError, match=name):
        unverified.check()


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize("name", [*CONTENT, "pack.json"])
def test_missing_file_is_named(folder: Path, name: str, verify: bool) -> None:
    (folder / name).unlink()
    with pytest.raises(PackError, match=name):
        Pack.open(folder, verify=verify)


@pytest.mark.parametrize("verify", [True, False])
def test_weights_cut_short_are_refused_even_unverified(folder: Path, verify: bool) -> None:
    with (folder / "weights.bin").open("r+b") as stream:
        stream.truncate(4000)
    with pytest.raises(PackError, match=r"weights\.bin: 4000 bytes instead of the 4096"):
        Pack.open(folder, verify=verify)


@pytest.mark.parametrize("name", REQUIRED_FILES)
def test_pack_that_does_not_list_what_it_needs_is_refused(folder: Path, name: str) -> None:
    edit(folder, lambda data: data["files"].pop(name))
    with pytest.raises(PackError, match=f"{name} not listed"):
        Pack.open(folder)


def test_unknown_file_is_a_pack_error(folder: Path) -> None:
    with pytest.raises(PackError, match=r"no file .*\.\./x"):
        Pack.open(folder).file("../x")


@pytest.mark.skipif(os.name != "posix", reason="links need rights on Windows")
@pytest.mark.parametrize("name", ["weights.bin", "pack.json"])
def test_link_out_of_the_pack_is_refused(folder: Path, tmp_path: Path, name: str) -> None:
    outside = tmp_path / "outside"
    (folder / name).rename(outside)
    (folder / name).symlink_to(outside)
    with pytest.raises(PackError, match="leads out of the pack"):
        Pack.open(folder)


@pytest.mark.skipif(os.name != "posix", reason="links need rights on Windows")
def test_links_inside_and_to_the_pack_work_but_not_in_a_circle(folder: Path, tmp_path: Path) -> None:
    (folder / "weights.bin").rename(folder / "weights-1.bin")
    (folder / "weights.bin").symlink_to("weights-1.bin")
    (tmp_path / "link").symlink_to(folder)
    assert Pack.open(tmp_path / "link").file("weights.bin").read_bytes() == CONTENT["weights.bin"]
    (folder / "weights.bin").unlink()
    (folder / "weights.bin").symlink_to("weights.bin")
    with pytest.raises(PackError, match=r"weights\.bin"):
        Pack.open(folder)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize("name", ["weights.bin", "pack.json"])
def test_what_is_not_a_regular_file_is_refused_and_never_waited_for(folder: Path, name: str) -> None:
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(PackError, match="not a regular file"):
        Pack.open(folder)
    with pytest.raises(PackError, match="not a regular file"):
        Pack.open(folder / name)
    (folder / name).unlink()
    (folder / name).mkdir()
    with pytest.raises(PackError, match="not a regular file"):
        Pack.open(folder)


def test_file_that_may_not_be_read_is_a_pack_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Path.open

    def refuse(path: Path, *args: Any, **options: Any) -> Any:  # chmod does not stop the superuser tests may run as
        if path.name == "weights.bin":
            raise PermissionError(13, "Permission denied", str(path))
        return original(path, *args, **options)

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(PackError, match=r"weights\.bin: cannot be read: Permission denied"):
        Pack.open(folder)


# ---- finding


def test_lookup_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = make_folder(tmp_path / "data" / "mobilenmt" / "packs" / "xx-yy")
    assert find_pack("xx-yy") == data
    first, second = tmp_path / "first", tmp_path / "second"
    monkeypatch.setenv("MOBILENMT_PACKS", os.pathsep.join([str(first), "", str(second)]))
    assert find_pack("xx-yy") == data
    zipped = second / "xx-yy.zip"
    second.mkdir()
    make_zip(zipped, data)
    assert find_pack("xx-yy") == zipped
    in_first = make_folder(first / "xx-yy")
    assert find_pack("xx-yy") == in_first
    Path("xx-yy").mkdir()  # a folder of that name that is no pack does not hide the pack
    assert find_pack("xx-yy") == in_first
    Path("xx-yy").rmdir()
    here = make_folder(Path("xx-yy").absolute())
    assert find_pack("xx-yy") == here
    assert {"xx-yy"} <= set(locate.installed_packs())


def test_shipped_packs_come_before_the_user_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_folder(tmp_path / "data" / "mobilenmt" / "packs" / "xx-yy")
    monkeypatch.setattr(locate, "__file__", str(tmp_path / "site" / "mobilenmt" / "runtime" / "locate.py"))
    shipped = make_folder(tmp_path / "site" / "mobilenmt" / "models" / "xx-yy")
    assert find_pack("xx-yy") == shipped


def test_error_for_an_unknown_name_says_where_it_looked_and_what_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_folder(tmp_path / "mine" / "aa-bb")
    make_folder(tmp_path / "mine" / ".aa-cc.tmp-1-2")
    monkeypatch.setenv("MOBILENMT_PACKS", str(tmp_path / "mine"))
    with pytest.raises(PackNotFoundError) as caught:
        find_pack("no-such")
    message = str(caught.value)
    assert str(tmp_path / "mine") in message
    assert str(tmp_path / "data" / "mobilenmt" / "packs") in message
    assert "aa-bb" in message
    assert "aa-cc" not in message


@pytest.mark.parametrize("given", ["no/such", "/no/such", "./no", "..x", "a\0b", "a/\0", "x" * 5000, "a/" + "x" * 300])
def test_wrong_path_is_not_found(given: str) -> None:
    with pytest.raises(PackNotFoundError):
        Pack.open(given)


@pytest.mark.parametrize("given", ["", None, 5, True, ["x"]])
def test_what_is_no_path_is_an_input_error(given: Any) -> None:
    with pytest.raises(InputError):
        Pack.open(given)


def test_folder_that_is_no_pack_is_named_so(tmp_path: Path) -> None:
    Path("other").mkdir()
    for given in ("other", "./other", ".", "..", tmp_path):
        with pytest.raises(PackError, match="no pack"):
            Pack.open(given)


def test_file_that_is_no_pack_is_named_so(folder: Path) -> None:
    Path("text").write_text("hello")
    Path("text.zip").write_text("hello")
    for given in ("text", "./text", "text.zip", folder / "weights.bin", folder / "pack.json", "text/x"):
        with pytest.raises(PackError):
            Pack.open(given)


def test_names_never_lead_out_of_the_pack_folders(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOBILENMT_PACKS", str(folder))
    assert find_pack("..") == Path("..").absolute()  # a path, never a name
    with pytest.raises(PackNotFoundError):
        find_pack("../packs/xx-yy/../xx-zz")


def test_relative_xdg_folder_is_ignored(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("MOBILENMT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert locate.cache_folder() == tmp_path / "home" / ".cache" / "mobilenmt"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "c"))
    assert locate.cache_folder() == tmp_path / "c" / "mobilenmt"


# ---- cost


@pytest.fixture
def big_pack(tmp_path: Path) -> Path:
    folder = tmp_path / "big"
    folder.mkdir()
    for name, content in CONTENT.items():
        (folder / name).write_bytes(content)
    (folder / "weights.bin").write_bytes(random.Random(0).randbytes(10_000_000))
    write_manifest(folder, manifest())
    return folder


def test_opening_ten_megabytes_is_quick(big_pack: Path) -> None:
    best = min(_seconds(lambda: Pack.open(big_pack)) for _ in range(5))
    assert best < 0.1  # about 10 ms; the margin is for a busy machine without SHA instructions


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc/self/maps")
def test_opening_maps_nothing(big_pack: Path) -> None:
    opened = Pack.open(big_pack)
    assert str(opened.file("weights.bin")) not in Path("/proc/self/maps").read_text()


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def test_import_needs_the_standard_library_alone_and_no_zipfile() -> None:
    program = (
        "import sys, mobilenmt.runtime.pack\n"
        "print(*sorted({name.split('.')[0] for name in sys.modules} - sys.stdlib_module_names))\n"
        "print('zipfile' in sys.modules, 'shutil' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {str(SRC)!r})\n{program}"],
        capture_output=True,
        text=True,
        check=True,
    )
    foreign, lazy = done.stdout.splitlines()
    assert set(foreign.split()) <= {"__main__", "mobilenmt"}
    assert lazy == "False False"
