"""Every engine does the same work, in a process of its own, with a model that its own tools made."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks.engines.base import SPECS
from benchmarks.engines.textual import open_text
from benchmarks.harness import prepare
from benchmarks.harness.errors import BenchmarkError
from benchmarks.harness.settings import Settings
from benchmarks.harness.worker import Worker, child_command, start
from benchmarks.parts.speed import take_turns

from mobilenmt.export.shortlist import Shortlist
from tiny_models import WORDS, make_checkpoint

SOURCES = [[5, 9, 20, 7], [30, 31, 8], [12, 40, 41, 42, 6, 10, 11]]


@pytest.mark.parametrize("beam", [1, 4])
@pytest.mark.parametrize("name", ["ours-int8", "ctranslate2-int8", "torch-fp32", "torch-int8"])
def test_every_engine_generates_the_forced_length(name: str, beam: int, settings: Settings) -> None:
    path = prepare.artifact(SPECS[name].artifact, settings)
    engine = SPECS[name].load(str(path), 1)
    for length in (2, 9):
        outputs = engine.outputs(engine.run(engine.prepare(SOURCES), beam, length, length))
        assert [steps for _, steps in outputs] == [length] * len(SOURCES)


def test_every_engine_gets_the_same_ids_and_chooses_the_same_words(settings: Settings) -> None:
    found = {}
    for name in ("ours-fp32", "ctranslate2-fp32", "torch-fp32"):
        engine = SPECS[name].load(str(prepare.artifact(SPECS[name].artifact, settings)), 1)
        outputs = engine.outputs(engine.run(engine.prepare(SOURCES), 1, 0, 20))
        found[name] = [ids[:19] for ids, _ in outputs]
    assert any(found["torch-fp32"])
    assert found["ours-fp32"] == found["torch-fp32"] == found["ctranslate2-fp32"]


def test_ctranslate2_keeps_to_the_shortlist_of_the_checkpoint(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match="needs a shortlist"):
        prepare.artifact("ct2-vmap-int8", settings)
    folder = shutil.copytree(settings.checkpoint, tmp_path / "short")
    rows = json.loads((folder / "config.json").read_text(encoding="utf-8"))["vocab_size"]
    lexical = np.repeat(np.arange(rows, dtype=np.int32)[:, None] % 5 + 10, 2, axis=1)
    shortlist = Shortlist(np.array([0, 4, 6], np.int32), lexical)
    shortlist.save(folder / "shortlist.npz")
    path = prepare.artifact("ct2-vmap-int8", replace(settings, checkpoint=folder))
    engine = SPECS["ctranslate2-vmap-int8"].load(str(path), 1)
    for source in SOURCES:
        ((found, _),) = engine.outputs(engine.run(engine.prepare([source]), 1, 12, 12))
        assert found and {*found} <= {*shortlist.candidates(np.array(source)).tolist(), 1}  # and the unknown one


def test_artifacts_are_made_once_and_again_for_another_checkpoint(settings: Settings, tmp_path: Path) -> None:
    first = prepare.artifact("ct2-int8", settings)
    before = first.stat().st_mtime_ns
    assert prepare.artifact("ct2-int8", settings) == first
    assert first.stat().st_mtime_ns == before
    other = make_checkpoint(tmp_path / "other", seed=5)
    changed = replace(settings, checkpoint=other)
    assert prepare.artifact("ct2-int8", changed) != first


def test_a_failed_conversion_leaves_nothing(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(settings: Settings, out: Path) -> None:
        out.mkdir()
        (out / "half").write_text("x")
        raise ImportError("no such package")

    monkeypatch.setitem(prepare._MAKERS, "half-made", fail)
    with pytest.raises(BenchmarkError, match="not installed"):
        prepare.artifact("half-made", settings)
    (folder,) = settings.build.glob("half-made-*")
    assert list(folder.iterdir()) == []


def test_a_worker_answers_as_the_engine_does_and_its_end_is_reported(settings: Settings) -> None:
    path = prepare.artifact("pack-int8", settings)
    engine = SPECS["ours-int8"].load(str(path), 1)
    wanted = [ids for ids, _ in engine.outputs(engine.run(SOURCES, 1, 0, 20))]
    with Worker("ours-int8", path, 1, settings.pinned(1)) as worker:
        answer = worker.generate(SOURCES, max_length=20, warm=1, calls=3)
        assert answer["ids"] == wanted
        assert len(answer["seconds"]) == 3 and min(answer["seconds"]) > 0
        with pytest.raises(BenchmarkError, match="ours-int8: its process ended"):
            worker.generate([[10**6]], max_length=20)


def test_a_text_is_translated_once_or_in_a_worker(settings: Settings) -> None:
    path, tokenizer = prepare.artifact("ct2-int8", settings), settings.checkpoint / "tokenizer.json"
    command = [*child_command("ctranslate2-int8", path, 1, tokenizer), WORDS[0]]
    with start(command, 1, settings.pinned(1)) as once:
        said = once.communicate(timeout=120)[0]
    assert said == open_text("ctranslate2-int8", str(path), str(tokenizer), 1)(WORDS[0]) + "\n"
    with Worker("ctranslate2-int8", path, 1, settings.pinned(1), tokenizer) as worker:
        seconds = worker.ask("translate", text=WORDS[0], warm=1, calls=2)["seconds"]
    assert len(seconds) == 2 and min(seconds) > 0


def test_engines_take_turns_and_a_slow_one_fewer() -> None:
    asked: list[tuple[str, int]] = []

    def work(engine: Any, turn: int, first: bool) -> list[float]:
        asked.append((engine, turn))
        assert first == (turn == 0)
        return [7.0 if engine == "slow" else 1.0]

    rows = take_turns({"fast": "fast", "slow": "slow"}, range(6), work)  # type: ignore[dict-item]
    assert asked[:4] == [("fast", 0), ("slow", 0), ("fast", 1), ("slow", 1)]
    assert rows == [{"engine": "fast", "seconds": [[1.0]] * 5}, {"engine": "slow", "seconds": [[7.0]] * 3}]
