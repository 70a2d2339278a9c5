"""A zipped pack is unpacked once into the cache, whole or not at all, and nothing hostile gets out of it."""

from __future__ import annotations

import hashlib
import json
import os
import random
import struct
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mobilenmt.runtime import unpack as unpacking
from mobilenmt.runtime.errors import PackError
from mobilenmt.runtime.pack import Pack
from places import SRC
from small_packs import CONTENT, make_folder, make_zip


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MOBILENMT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "packs"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_folder(tmp_path / "packs" / "xx-yy")


@pytest.fixture
def zipped(tmp_path: Path, cache: Path, folder: Path) -> Path:
    return make_zip(tmp_path / "xx-yy.zip", folder)


def write_zip(target: Path, entries: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return target


def entries_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("prefix", ["", "xx-yy/", "ünï cödé/"])
def test_pack_lies_at_the_root_or_in_one_top_folder(folder: Path, cache: Path, tmp_path: Path, prefix: str) -> None:
    opened = Pack.open(make_zip(tmp_path / "p.zip", folder, prefix))
    assert opened.path.parent == cache
    assert entries_of(opened.path) == entries_of(folder)


def test_mac_resource_entries_and_extra_files_are_left_out(folder: Path, cache: Path, tmp_path: Path) -> None:
    entries = {f"xx-yy/{name}": content for name, content in entries_of(folder).items()}
    extra = {"__MACOSX/xx-yy/._pack.json": b"x", "__MACOSX/._xx-yy": b"x", "xx-yy/README.md": b"x"}
    opened = Pack.open(write_zip(tmp_path / "p.zip", {**entries, **extra}))
    assert entries_of(opened.path) == entries_of(folder)


def test_same_content_is_unpacked_once(zipped: Path, cache: Path, tmp_path: Path) -> None:
    first = Pack.open(zipped).path
    marker = (first / "weights.bin").stat()
    copy = tmp_path / "copy.zip"
    copy.write_bytes(zipped.read_bytes())
    assert Pack.open(copy).path == first
    again = (first / "weights.bin").stat()
    assert (again.st_ino, again.st_mtime_ns) == (marker.st_ino, marker.st_mtime_ns)
    assert [path.name for path in cache.iterdir()] == [first.name]


def test_changed_zip_gets_a_folder_of_its_own(zipped: Path, folder: Path, cache: Path) -> None:
    first = Pack.open(zipped).path
    stamp = zipped.stat()
    make_zip(zipped, folder, "xx-yy/")
    os.utime(zipped, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert Pack.open(zipped).path != first


def damage_truncate(folder: Path) -> None:
    with (folder / "weights.bin").open("r+b") as stream:
        stream.truncate(100)


def damage_byte(folder: Path) -> None:
    (folder / "weights.bin").write_bytes(bytes(len(CONTENT["weights.bin"])))


def damage_remove(folder: Path) -> None:
    (folder / "decoder.onnx").unlink()


def damage_manifest(folder: Path) -> None:
    (folder / "pack.json").write_bytes(b"")


@pytest.mark.parametrize("damage", [damage_truncate, damage_byte, damage_remove, damage_manifest])
def test_damaged_cache_is_unpacked_again(zipped: Path, cache: Path, damage: Callable[[Path], None]) -> None:
    first = Pack.open(zipped)
    damage(first.path)
    second = Pack.open(zipped)
    assert second.path == first.path
    second.check()
    assert len(list(cache.iterdir())) == 1


def test_killed_unpacking_leaves_nothing_that_is_used(zipped: Path, cache: Path, tmp_path: Path) -> None:
    program = (
        "import os, sys\nsys.path.insert(0, sys.argv[1])\n"
        "from mobilenmt.runtime import unpack\nfrom mobilenmt.runtime.pack import Pack\n"
        "count = 0\n"
        "def kill(handle):\n"
        "    global count\n"
        "    count += 1\n"
        "    if count == 3: os._exit(9)\n"
        "unpack.os.fsync = kill\n"
        "Pack.open(sys.argv[2])\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(SRC), str(zipped)])
    assert done.returncode == 9
    (left,) = cache.iterdir()
    assert ".tmp-" in left.name
    Pack.open(zipped).check()
    two_days_ago = time.time() - 2 * 86400
    os.utime(left, (two_days_ago, two_days_ago))
    damage_remove(Pack.open(zipped).path)
    Pack.open(zipped)  # unpacks, and clears away what the killed process left long ago
    assert not left.exists()


def test_many_processes_unpack_one_zip_at_once(zipped: Path, cache: Path, tmp_path: Path) -> None:
    program = (
        "import sys, time, pathlib\nsys.path.insert(0, sys.argv[1])\n"
        "from mobilenmt.runtime import unpack\nfrom mobilenmt.runtime.pack import Pack\n"
        "pathlib.Path(sys.argv[3]).touch()\n"
        "while not pathlib.Path(sys.argv[4]).exists(): time.sleep(0.001)\n"
        "for _ in range(20):\n"
        "    pack = Pack.open(sys.argv[2]); pack.check()\n"
        "print(pack.path)\n"
    )
    go = tmp_path / "go"
    ready = [tmp_path / f"ready{number}" for number in range(4)]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(SRC), str(zipped), str(flag), str(go)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for flag in ready
    ]
    deadline = time.monotonic() + 30
    while not all(flag.exists() for flag in ready) and time.monotonic() < deadline:
        time.sleep(0.005)
    go.touch()
    outputs = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0, 0], outputs
    assert len({output for output, _ in outputs}) == 1
    assert len(list(cache.iterdir())) == 1


def test_slower_process_takes_the_folder_of_the_faster(
    zipped: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extract = unpacking._extract
    running = False

    def overtaken(*arguments: Any) -> None:
        nonlocal running
        extract(*arguments)
        if not running:
            running = True
            Pack.open(zipped)  # the other process, from start to end

    monkeypatch.setattr(unpacking, "_extract", overtaken)
    Pack.open(zipped).check()
    assert len(list(cache.iterdir())) == 1


def test_interrupt_while_unpacking_leaves_no_trace(zipped: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(handle: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        Pack.open(zipped)
    assert not list(cache.iterdir())


def test_full_disk_is_a_pack_error_that_names_the_cache(
    zipped: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(PackError, match="No space left on device; set MOBILENMT_CACHE") as caught:
        Pack.open(zipped)
    assert str(cache) in str(caught.value)
    assert not list(cache.iterdir())


def test_cache_that_is_a_file_is_a_pack_error(zipped: Path, cache: Path) -> None:
    cache.parent.write_text("in the way")
    with pytest.raises(PackError, match="MOBILENMT_CACHE"):
        Pack.open(zipped)


# ---- hostile zips


@pytest.mark.parametrize(("link", "what"), [(False, "a file"), (True, "a link to nothing")])
def test_what_lies_in_the_place_of_a_pack_is_named(zipped: Path, cache: Path, link: bool, what: str) -> None:
    final = cache / hashlib.sha256(zipped.read_bytes()).hexdigest()
    cache.mkdir(parents=True)
    if link:
        final.symlink_to("nowhere")
    else:
        final.write_text("mine")
    with pytest.raises(PackError, match=f"{what} lies at {final}, .*remove it"):
        Pack.open(zipped)
    assert list(cache.iterdir()) == [final]


def test_names_that_lead_out_of_the_folder_are_never_written(folder: Path, cache: Path, tmp_path: Path) -> None:
    hostile = {"../slip": b"x", "/tmp/mobilenmt-slip": b"x", "a/../../slip": b"x", "..\\slip": b"x"}
    Pack.open(write_zip(tmp_path / "p.zip", {**entries_of(folder), **hostile}))
    assert not [path for path in tmp_path.rglob("*") if "slip" in path.name]
    assert not Path("/tmp/mobilenmt-slip").exists()


def test_link_in_a_zip_becomes_no_link(folder: Path, cache: Path, tmp_path: Path) -> None:
    entries = entries_of(folder)
    with zipfile.ZipFile(tmp_path / "p.zip", "w") as archive:
        for name, content in entries.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = (0o120777 if name == "weights.bin" else 0o100644) << 16
            archive.writestr(info, content)
    assert not Pack.open(tmp_path / "p.zip").file("weights.bin").is_symlink()


def with_manifest(folder: Path, change: Callable[[dict[str, Any]], object]) -> dict[str, bytes]:
    entries = entries_of(folder)
    data = json.loads(entries["pack.json"])
    change(data)
    return {**entries, "pack.json": json.dumps(data).encode()}


def test_zip_bombs_are_refused(folder: Path, cache: Path, tmp_path: Path) -> None:
    entries = with_manifest(folder, lambda data: data["files"]["weights.bin"].update(bytes=2**25))
    entries["weights.bin"] = bytes(2**25)
    with pytest.raises(PackError, match=r"unpacks to .* is refused"):
        Pack.open(write_zip(tmp_path / "bomb.zip", entries))
    entries = with_manifest(folder, lambda data: data["files"]["weights.bin"].update(bytes=2**40))
    with pytest.raises(PackError, match="is refused"):
        Pack.open(write_zip(tmp_path / "announced.zip", entries))
    assert not list(cache.iterdir())


def test_manifest_bomb_is_refused(folder: Path, cache: Path, tmp_path: Path) -> None:
    entries = {**entries_of(folder), "pack.json": b" " * (5 * 2**20)}
    with pytest.raises(PackError, match=r"pack\.json is too large"):
        Pack.open(write_zip(tmp_path / "p.zip", entries))


def test_size_other_than_the_manifest_says_is_refused(folder: Path, cache: Path, tmp_path: Path) -> None:
    for content in (b"", bytes(5000)):
        with pytest.raises(PackError, match=r"weights\.bin"):
            Pack.open(write_zip(tmp_path / "p.zip", {**entries_of(folder), "weights.bin": content}))
    assert not list(cache.iterdir())


def test_content_other_than_the_manifest_says_is_refused(folder: Path, cache: Path, tmp_path: Path) -> None:
    entries = {**entries_of(folder), "weights.bin": bytes(4096)}
    with pytest.raises(PackError, match="SHA-256"):
        Pack.open(write_zip(tmp_path / "p.zip", entries))


def test_huge_table_of_contents_is_refused_before_it_is_read(folder: Path, cache: Path, tmp_path: Path) -> None:
    many = {f"{number}-{'x' * 200}": b"" for number in range(5000)}
    with pytest.raises(PackError, match="too many entries"):
        Pack.open(write_zip(tmp_path / "p.zip", {**entries_of(folder), **many}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda e: {}, "no pack.json"),
        (lambda e: {f"a/b/{name}": content for name, content in e.items()}, "no pack.json"),
        (lambda e: {f"{top}/{name}": content for top in "ab" for name, content in e.items()}, "more than one pack"),
        (lambda e: {name: content for name, content in e.items() if name != "weights.bin"}, "weights.bin 0 times"),
        (lambda e: {**e, "pack.json": b"[]"}, "pack.json"),
    ],
    ids=["empty", "too deep", "two packs", "file missing", "no manifest"],
)
def test_zip_of_something_else_is_refused(
    folder: Path, cache: Path, tmp_path: Path, change: Callable[[dict[str, bytes]], dict[str, bytes]], message: str
) -> None:
    with pytest.raises(PackError, match=message):
        Pack.open(write_zip(tmp_path / "p.zip", change(entries_of(folder))))
    assert not list(cache.iterdir())


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_entry_given_twice_is_refused(folder: Path, cache: Path, tmp_path: Path) -> None:
    target = make_zip(tmp_path / "p.zip", folder)
    with zipfile.ZipFile(target, "a") as archive:
        archive.writestr("weights.bin", CONTENT["weights.bin"])
    with pytest.raises(PackError, match=r"weights\.bin 2 times"):
        Pack.open(target)


def test_encrypted_entry_is_refused(zipped: Path) -> None:
    content = bytearray(zipped.read_bytes())
    for signature, offset in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
        at = content.find(signature)
        while at >= 0:
            struct.pack_into("<H", content, at + offset, 1)
            at = content.find(signature, at + 1)
    zipped.write_bytes(content)
    with pytest.raises(PackError, match="encrypted"):
        Pack.open(zipped)


def test_damaged_zip_is_a_pack_error_or_the_same_pack(zipped: Path, folder: Path, cache: Path) -> None:
    sound = zipped.read_bytes()
    expected = entries_of(folder)
    random_numbers = random.Random(1)
    refused = 0
    for _ in range(300):
        content = bytearray(sound)
        for _ in range(random_numbers.randint(1, 4)):
            content[random_numbers.randrange(len(content))] = random_numbers.randrange(256)
        if random_numbers.random() < 0.2:
            content = content[: random_numbers.randrange(len(content))]
        zipped.write_bytes(content)
        try:
            opened = Pack.open(zipped)
        except PackError:
            refused += 1
        else:
            found = entries_of(opened.path)
            assert {name: found[name] for name in CONTENT} == {name: expected[name] for name in CONTENT}
    assert refused > 100
    assert not [path for path in cache.iterdir() if ".tmp-" in path.name]


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), OSError(5, "Input/output error")])
def test_cache_of_another_user_is_named(
    zipped: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    """As root every folder can be looked into, so the refusal is made up."""
    real = Path.stat

    def stat(self: Path, **options: Any) -> os.stat_result:
        if cache in self.parents:
            raise error
        return real(self, **options)

    monkeypatch.setattr(Path, "stat", stat)
    with pytest.raises(PackError, match="set MOBILENMT_CACHE to a folder of your own") as caught:
        Pack.open(zipped)
    assert str(cache) in str(caught.value) and str(error.strerror) in str(caught.value)
