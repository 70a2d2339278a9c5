"""What verify --bits takes and says, what info says of the engine, and JSON that every reader takes."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest

from command_line import fails, run
from mobilenmt import InputError, PackError
from mobilenmt.cli import main
from mobilenmt.commands import _json_line
from mobilenmt.runtime.hypothesis import SearchOptions
from mobilenmt.runtime.manifest import GenerationDefaults
from mobilenmt.runtime.native import LIBRARY
from mobilenmt.runtime.translation import Sentence, Translation
from places import TESTS

needs_core = pytest.mark.skipif(not LIBRARY.is_file(), reason=f"the C core was not compiled: {LIBRARY} is not there")


@needs_core
def test_bits_counts_what_it_leaves_out(tiny_pack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "lines"
    source.write_text("the dog\tx\n\n \t\nthe cat\n" + "the dog and " * 200 + "\n\u200b\n", encoding="utf-8")
    assert main(["verify", str(tiny_pack), "--bits", str(source)]) == 0
    out = capsys.readouterr().out
    assert "left out: 1 lines of 64 tokens or more, which do not fit" in out
    counts = {line.split(": ")[1] for line in out.splitlines() if " lines, " in line and "digest" not in line}
    kept = {int(text.split()[0]) for text in counts if text[0].isdigit()}
    dropped = sum(int(line.split()[2]) for line in out.splitlines() if line.startswith("left out"))
    assert len(kept) == 1 and kept.pop() + dropped == 4


@needs_core
@pytest.mark.parametrize("text", ["", "\n\n", "\t\n \tx\n", "the dog and " * 200])
def test_bits_of_nothing_are_an_error(
    text: str, tiny_pack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "lines").write_text(text)
    assert main(["verify", str(tiny_pack), "--bits", str(tmp_path / "lines")]) == 2
    assert "the same" not in (found := capsys.readouterr()).out
    assert "there is nothing to" in found.err


def test_lines_need_bits(tiny_pack: Path, tmp_path: Path) -> None:
    fails(run("verify", tiny_pack, "--lines", 5), "--lines needs --bits")
    (tmp_path / "lines").write_text("the dog\n")
    fails(run("verify", tiny_pack, "--bits", tmp_path / "lines", "--lines", 0), "--lines must be at least 1, not 0")


def test_a_pack_without_native_bin_names_the_command_that_makes_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = TESTS / "golden" / "tiny-2.0"
    (tmp_path / "lines").write_text("the dog\n")
    assert main(["verify", str(old), "--bits", str(tmp_path / "lines")]) == 2
    assert "`mobilenmt upgrade`" in capsys.readouterr().err
    assert main(["info", str(old)]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("engine here:")]
    assert "ONNX Runtime: the pack has no native.bin" in line and "`mobilenmt upgrade`" in line


@needs_core
def test_info_says_of_a_damaged_pack_that_nothing_runs_it(
    tiny_pack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "pack"
    shutil.copytree(tiny_pack, folder)
    manifest = json.loads((folder / "pack.json").read_text())
    manifest["tokens"]["start"] = 9
    (folder / "pack.json").write_text(json.dumps(manifest))
    assert main(["info", str(folder)]) == 0
    assert "none: the pack is damaged" in (out := capsys.readouterr().out) and "tokens.start: 9" in out
    assert main(["verify", str(folder)]) == 2
    assert "tokens.start: 9" in capsys.readouterr().err


@pytest.mark.parametrize("score", [-math.inf, math.inf, math.nan])
def test_json_has_no_infinity(score: float) -> None:
    """In no place; most readers of JSON refuse it."""
    sentence = Sentence((0, 1), (0, 1), score, (), score)
    found = Translation("a", score, (), (Translation("b", score),), (), (sentence,))

    def refuse(text: str) -> float:
        raise AssertionError(text)

    value = json.loads(_json_line("x", found), parse_constant=refuse)
    assert value["score"] is value["alternatives"][0]["score"] is value["sentences"][0]["score"] is None
    assert value["sentences"][0]["confidence"] is None


@pytest.mark.parametrize("penalty", [-100, 10.5, math.nan, "1", True])
def test_an_absurd_length_penalty_is_refused(penalty: object) -> None:
    with pytest.raises(PackError, match=r"^length_penalty: expected a number from -10 to 10"):
        GenerationDefaults(length_penalty=penalty)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="length_penalty must be from -10 to 10"):
        SearchOptions(length_penalty=penalty)  # type: ignore[arg-type]
