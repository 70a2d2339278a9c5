"""A pack of an earlier format gets what it lacks in its place, and is a whole pack at every moment."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from mobilenmt import ExportError, Pack, PackError, Translator
from mobilenmt.cli import main
from mobilenmt.export.native import upgrade as module
from mobilenmt.export.native.upgrade import upgrade
from mobilenmt.runtime.hypothesis import SearchOptions
from mobilenmt.runtime.manifest import FORMAT_VERSION, Alignment
from mobilenmt.runtime.native import LIBRARY
from mobilenmt.runtime.onnx.engine import Engine
from places import SRC, TESTS

GOLDEN = TESTS / "golden"
TEXT = "Where is the train station?"


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return Path(shutil.copytree(GOLDEN / "tiny-2.0", tmp_path / "old"))


def words(pack: Path) -> list[str]:
    translator = Translator(pack)
    found = translator._engine.generate([translator._tokenizer.encode(TEXT)], [12], SearchOptions())
    return translator._tokenizer.pieces(found[0][0].ids)


def test_a_pack_of_format_2_0_runs_on_the_c_core_afterwards(old: Path) -> None:
    """The golden packs have the same weights: so it becomes what the exporter of today writes."""
    lines: list[str] = []
    pack = upgrade(old, report=lines.append)
    assert pack.manifest.format_version == FORMAT_VERSION
    assert (old / "native.bin").read_bytes() == (GOLDEN / "tiny-2.1" / "native.bin").read_bytes()
    assert Translator(old).engine == ("native" if LIBRARY.is_file() else "onnx")
    assert words(old) == json.loads((GOLDEN / "tiny-2.1.json").read_text())["1"][0]
    before = (old / "pack.json").stat().st_mtime_ns
    assert upgrade(old, report=lines.append) == pack
    assert (old / "pack.json").stat().st_mtime_ns == before
    assert [line.partition(": ")[2].split()[0] for line in lines] == ["format", "nothing"]


def test_a_zip_stays_a_zip(old: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOBILENMT_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "old.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in old.iterdir():
            archive.write(file, file.name)
    upgrade(path)
    assert "native.bin" in zipfile.ZipFile(path).namelist()
    assert words(path) == words(upgrade(old).path)


@pytest.mark.parametrize("listed", [False, True])
def test_a_run_that_is_killed_leaves_a_pack(old: Path, monkeypatch: pytest.MonkeyPatch, listed: bool) -> None:
    """Killed before each of its writes in turn, also where a native.bin is replaced by another."""
    if listed:
        upgrade(old)
        monkeypatch.setattr(
            module, "native_bytes", lambda *_, **__: (GOLDEN / "tiny-2.1/native.bin").read_bytes() + b"x"
        )
    wanted = words(old)
    writes = 0

    def killed(write: Any, at: int) -> Any:
        def run(*arguments: Any, **options: Any) -> Any:
            nonlocal writes
            writes += 1
            if writes == at:
                raise KeyboardInterrupt
            return write(*arguments, **options)

        return run

    for at in (1, 2, 3, 4):
        folder = Path(shutil.copytree(old, old.parent / f"killed-{at}"))
        writes = 0
        with monkeypatch.context() as patch:
            for name in ("save_manifest", "atomic_path"):
                patch.setattr(module, name, killed(getattr(module, name), at))
            try:
                upgrade(folder)
            except KeyboardInterrupt:
                assert at <= writes
            else:
                assert at > writes >= 3
        Pack.open(folder, verify=True)
        assert Translator(folder, engine="onnx").translate(TEXT)
        assert not listed or words(folder) == wanted


def test_what_cannot_have_one_says_why_and_stays(tiny_fp32_pack: Path, tmp_path: Path) -> None:
    for folder in (tiny_fp32_pack, GOLDEN / "tiny-1.0"):
        before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
        with pytest.raises(ExportError, match=r"no native\.bin: its"):
            upgrade(folder)
        assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    with pytest.raises(PackError):
        upgrade(tmp_path / "nothing")


def test_the_command_needs_no_torch(old: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = sys.modules['transformers'] = None\n"
        "from mobilenmt.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, "upgrade", str(old)]
    found = subprocess.run(command, capture_output=True, text=True, check=False, env={"PYTHONPATH": str(SRC)})
    assert (found.returncode, found.stderr) == (0, "")
    assert found.stdout.endswith("native.bin, decoder.onnx, pack.json written\n")


def test_its_decoder_tells_where_it_looks(tiny_pack: Path, old: Path, tmp_path: Path) -> None:
    """The same as one that was exported so; and one of format 2.0 can after all."""
    pack = Pack.open(tiny_pack)
    model = onnx.load(str(pack.file("decoder.onnx")), load_external_data=False)
    for output in [output for output in model.graph.output if output.name.startswith("cross_query.")]:
        model.graph.output.remove(output)
    shy = Path(shutil.copytree(tiny_pack, tmp_path / "shy"))
    (shy / "decoder.onnx").write_bytes(model.SerializeToString(deterministic=True))
    shy_pack = replace(pack, path=shy)
    (shy / "decoder.onnx").write_bytes(module.decoder_that_looks(shy_pack))
    source, target = [9, 10, 11], [12, 13]
    wanted = Engine(pack)._stepper().attention(source, target)
    assert np.array_equal(Engine(shy_pack)._stepper().attention(source, target), wanted)
    asked = SearchOptions(alignment=True)
    assert Engine(upgrade(old)).generate([source], [12], asked)[0][0].alignment is not None


def _identity() -> bytes:
    """A sound graph, but none of a pack's."""
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    other = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["y"])], "g", [value], [other])
    return bytes(onnx.helper.make_model(graph).SerializeToString())


@pytest.mark.parametrize("set_head", [False, True])
@pytest.mark.parametrize(
    ("name", "damage", "words"),
    [
        ("weights.bin", lambda data: data[: len(data) // 2], r"weights\.bin: damaged: \d+ bytes, but .+\.onnx has"),
        ("weights.bin", lambda data: data[:-1], r"weights\.bin: damaged"),
        ("tokenizer.json", lambda data: b"junk", r"tokenizer\.json: damaged: no tokenizer"),
        ("tokenizer.json", lambda data: b"{}", r"tokenizer\.json: damaged: no tokenizer"),
        ("tokenizer.json", lambda data: b"\xff\xfe", r"tokenizer\.json: damaged: no tokenizer"),
        *(
            (f"{stem}.onnx", lambda data: b"junk", rf"{stem}\.onnx: damaged")
            for stem in ("encoder", "decoder", "greedy", "batch", "translator")
        ),
        ("greedy.onnx", lambda data: data[: len(data) // 2], r"greedy\.onnx: damaged"),
        ("encoder.onnx", lambda data: b"", r"encoder\.onnx: damaged: a graph without a node"),
    ],
)
def test_a_damaged_pack_with_right_hashes_is_left_alone(
    old: Path, name: str, damage: Callable[[bytes], bytes], words: str, set_head: bool
) -> None:
    """Hashes say what was copied, not what it is worth."""
    _replace(old, name, damage((old / name).read_bytes()))
    before = {path.name: path.read_bytes() for path in old.iterdir()}
    with pytest.raises(PackError, match=words):
        if set_head:
            module.set_alignment(old, Alignment(0, 0, 1))
        else:
            upgrade(old)
    assert {path.name: path.read_bytes() for path in old.iterdir()} == before
    if not set_head:
        assert main(["upgrade", str(old)]) == 2


def test_graphs_that_are_none_of_ours_are_told_in_one_line(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _replace(old, "decoder.onnx", _identity())
    assert main(["upgrade", str(old)]) == 2
    assert "damaged: its graphs or its tokenizer are not what an exporter writes" in capsys.readouterr().err
    assert not (old / "native.bin").exists()


def _replace(folder: Path, name: str, content: bytes) -> None:
    """Put other content in a file of a pack, and its hash into pack.json."""
    (folder / name).write_bytes(content)
    manifest = json.loads((folder / "pack.json").read_text())
    manifest["files"][name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (folder / "pack.json").write_text(json.dumps(manifest))
