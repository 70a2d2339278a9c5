"""A run loses nothing when it is stopped, mixes no settings, and says in one line what is wrong."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from benchmarks.__main__ import main
from benchmarks.engines.base import SPECS
from benchmarks.harness import machine
from benchmarks.harness.bench import Bench
from benchmarks.harness.errors import BenchmarkError
from benchmarks.harness.machine import source_digest
from benchmarks.harness.results import Results, read, write, write_json
from benchmarks.harness.settings import Settings

from benchmarks import run as runner
from places import ROOT


def test_a_run_writes_samples_report_and_plots(settings: Settings) -> None:
    results = runner.run(settings, ["latency", "throughput"])
    content = read(results.path)
    rows = content["parts"]["latency"]["rows"]
    assert [(row["engine"], row["length"]) for row in rows] == [
        (engine, length) for length in (3, 6) for engine in ("ours-int8", "ctranslate2-int8")
    ]
    assert [len(row["seconds"]) for row in rows] == [2, 2, 2, 2]
    forced = [row for row in content["parts"]["throughput"]["rows"] if row["forced"]]
    assert len({row["generated"] for row in forced}) == 1, "every engine did the same work"
    text = results.path.with_suffix(".md").read_text(encoding="utf-8")
    assert "CTranslate2 INT8" in text
    assert "## Budgets" in text
    assert (settings.out / "latency.png").stat().st_size > 1000


def test_a_stopped_run_goes_on_with_what_is_missing(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def part(name: str, fails: bool = False) -> Callable[[Bench], dict[str, Any]]:
        def measure(bench: Bench) -> dict[str, Any]:
            calls.append(name)
            if fails:
                raise KeyboardInterrupt
            return {"rows": []}

        return measure

    monkeypatch.setattr(runner, "PARTS", {"one": part("one"), "two": part("two", fails=True)})
    with pytest.raises(KeyboardInterrupt):
        runner.run(settings)
    assert list(read(settings.out / "results.json")["parts"]) == ["one"]
    monkeypatch.setattr(runner, "PARTS", {"one": part("one"), "two": part("two")})
    runner.run(settings, resume=True)
    assert calls == ["one", "two", "two"]
    assert list(read(settings.out / "results.json")["parts"]) == ["one", "two"]


def test_a_part_that_fails_does_not_stop_the_others(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(bench: Bench) -> dict[str, Any]:
        raise BenchmarkError("no network")

    monkeypatch.setattr(runner, "PARTS", {"one": fail, "two": lambda bench: {"rows": []}})
    with pytest.raises(BenchmarkError, match="one: no network"):
        runner.run(settings)
    assert list(read(settings.out / "results.json")["parts"]) == ["two"]


def test_more_threads_than_cores_are_refused(settings: Settings) -> None:
    with pytest.raises(BenchmarkError, match="2 threads need as many cores"):
        replace(settings, threads=(2,), cores=(0,))


def test_results_of_other_settings_are_not_mixed(settings: Settings) -> None:
    Results.start(settings, resume=False).add("one", {"rows": []}, 0.0)
    with pytest.raises(BenchmarkError, match="another setting"):
        Results.start(replace(settings, turns=7), resume=True)


def test_a_file_is_never_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "results.json"
    write(file, "whole")

    def fail(descriptor: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        write(file, "other")
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]
    assert file.read_text() == "whole"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "--checkpoint", "/nowhere", "--quick"], "is no checkpoint"),
        (["run", "--pack", "/nowhere", "--quick"], "/nowhere"),
        (["run", "--sentences", "/nowhere", "--quick"], "there is no file"),
        (["run", "--engines", "bing", "--quick"], "no engine bing"),
        (["report", "/nowhere/results.json"], "cannot be read"),
    ],
)
def test_errors_are_one_line(
    arguments: list[str], message: str, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if arguments[0] == "run" and not {"--checkpoint", "--pack"} & {*arguments}:
        arguments = [*arguments, "--checkpoint", str(checkpoint)]
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and message in said and said.count("\n") == 1


@pytest.mark.parametrize("key", ["format", "machine", "versions", "parts"])
@pytest.mark.parametrize("value", [None, "text", []])
def test_results_that_are_not_whole_are_refused(key: str, value: object, tmp_path: Path) -> None:
    whole: dict[str, Any] = {"format": 1, "machine": {}, "versions": {}, "parts": {}}
    write_json(tmp_path / "results.json", whole)
    assert read(tmp_path / "results.json") == whole
    write_json(tmp_path / "results.json", {**whole, key: value})
    with pytest.raises(BenchmarkError, match="holds no results of format 1"):
        read(tmp_path / "results.json")


def test_an_unknown_part_is_refused(settings: Settings) -> None:
    with pytest.raises(BenchmarkError, match="no part speed"):
        runner.run(settings, ["speed"])


def test_the_readme_names_every_part_command_and_engine() -> None:
    text = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    for name in (*runner.PARTS, *SPECS):
        assert f"`{name}`" in text, name


@pytest.mark.parametrize("name", ["export/graph.py", "runtime/pack.py", "runtime/native/a.c", "runtime/native/b/a.h"])
def test_the_digest_of_the_source_tells_code_and_the_c_core(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "ROOT", tmp_path)
    write(tmp_path / name, "one")
    before = source_digest()
    write(tmp_path / "runtime" / "native" / "built.so", "not source")
    assert source_digest() == before
    write(tmp_path / name, "two")
    assert source_digest() != before
