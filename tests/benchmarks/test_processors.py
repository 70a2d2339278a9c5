"""Translations of several processors are compared line by line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from benchmarks.harness import prepare
from benchmarks.harness.settings import Settings
from benchmarks.report.processors import differences, main

from mobilenmt.cli import main as mobilenmt


@pytest.fixture
def files(settings: Settings, sentences: Path, tmp_path: Path) -> list[Path]:
    """What this processor says, greedy and with a beam, and another one that differs in three lines of the greedy."""
    pack = str(prepare.artifact("pack-int8", settings))
    found = []
    for beam in ("1", "4"):
        out = tmp_path / f"here.beam-{beam}.jsonl"
        files = ["--input", str(sentences), "--output", str(out)]
        assert mobilenmt(["translate", "--pack", pack, "--beam", beam, "--json", *files]) == 0
        rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
        if beam == "1":
            rows[2]["tokens"].append("x")
            rows[2]["score"] += 9
            rows[0]["score"] += 0.25
        there = tmp_path / f"there.beam-{beam}.jsonl"
        there.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        found += [out, there]
    return found


def test_processors_are_compared_line_by_line(files: list[Path], tmp_path: Path) -> None:
    rows = {(row["run"], row["search"]): row for row in differences(files)}
    assert [*rows] == [(name, search) for search in ("beam-1", "beam-4") for name in ("here", "there")]
    assert [row["same words"] for row in rows.values()] == [12, 11, 12, 12]
    changed = rows["there", "beam-1"]
    assert changed["largest distance of scores, same words"] == pytest.approx(0.25)
    tokens = sum(len(json.loads(line)["tokens"]) for line in files[0].read_text(encoding="utf-8").splitlines())
    assert changed["tokens before they part"] == pytest.approx(tokens / (tokens + 1))  # one was added behind the last
    assert main([*map(str, files), "--out", str(tmp_path / "out")]) == 0
    assert json.loads((tmp_path / "out" / "processors.json").read_text()) == {"rows": [*rows.values()]}
    written = " ".join((tmp_path / "out" / "processors.md").read_text(encoding="utf-8").split())
    assert "| there | beam-1 | 12 | 11 |" in written


@pytest.mark.parametrize("content", ["no JSON", "[1]", '{"text": "x"}'])
def test_another_file_is_refused_in_one_line(content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "here.beam-1.jsonl"
    file.write_text(content, encoding="utf-8")
    assert main([str(file), "--out", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {file}: not the lines") and said.count("\n") == 1


def test_other_lines_are_refused(files: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = files[0].read_text(encoding="utf-8").splitlines()
    files[1].write_text("\n".join(lines[1:]), encoding="utf-8")
    assert main([*map(str, files), "--out", str(tmp_path)]) == 2
    assert "has other lines than the first" in capsys.readouterr().err
