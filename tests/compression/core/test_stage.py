"""A stage: skipped when done, resumed when killed, refused when anything it was made from has changed."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from mobilenmt.compression.core.errors import StageError
from mobilenmt.compression.core.memory import process_memory
from mobilenmt.compression.core.stage import check_stage, is_finished, run_stage, write_json
from mobilenmt.runtime.atomic import atomic_path


@dataclass(frozen=True)
class Settings:
    words: int = 3
    file: Path = Path("text.txt")
    weights: Mapping[str, float] | None = None


class Work:
    """Writes two files and counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, folder: Path) -> dict[str, Any]:
        self.calls += 1
        (folder / "sub").mkdir(exist_ok=True)
        for name in ("a.txt", "sub/b.txt"):
            with atomic_path(folder / name) as temporary:
                temporary.write_text(name)
        return {"lines": 2}


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("one\n")
    return path


def run(folder: Path, text: Path, work: Callable[[Path], Mapping[str, Any]], **changes: Any) -> Any:
    options = {"name": "corpus", "settings": Settings(), "inputs": {"text": text, "language": "en"}, **changes}
    return run_stage(folder, work=work, **options)


def test_done_once_then_skipped(tmp_path: Path, text: Path) -> None:
    work, folder = Work(), tmp_path / "work" / "corpus"
    first = run(folder, text, work)
    assert (first.skipped, first.summary, work.calls) == (False, {"lines": 2}, 1)
    before = (folder / "manifest.json").stat().st_mtime_ns
    second = run(folder, text, work)
    assert (second.skipped, second.summary, work.calls) == (True, {"lines": 2}, 1)
    assert (folder / "manifest.json").stat().st_mtime_ns == before and is_finished(folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert set(manifest["outputs"]) == {"a.txt", "sub/b.txt"}
    assert manifest["outputs"]["a.txt"]["bytes"] == 5
    assert {"stage", "settings", "inputs", "summary", "cost", "versions"} <= set(manifest)


def test_a_stage_keeps_what_it_cost(tmp_path: Path, text: Path) -> None:
    """Time, and the most memory held: the stage's own, if it raised that, else a bound."""
    sizes: list[int] = []

    def work(folder: Path) -> Mapping[str, Any]:
        time.sleep(0.05)
        if not sizes:
            sizes.append((process_memory("VmHWM") or 0) + 10_000_000)
            assert len(bytearray(b"x") * sizes[0])  # more than ever before, and let go of at once
        return {}

    costs = []
    for name in ("first", "second"):
        run(tmp_path / name, text, work)
        costs.append(json.loads((tmp_path / name / "manifest.json").read_text())["cost"])
    assert all(0.05 <= cost["seconds"] < 30 for cost in costs)
    assert [cost["memory_is_a_bound"] for cost in costs] == [False, True]
    assert costs[0]["memory_bytes"] == costs[1]["memory_bytes"] > sizes[0]


@pytest.mark.parametrize("finished", [True, False])
def test_other_settings_or_inputs_are_refused_before_any_work(finished: bool, tmp_path: Path, text: Path) -> None:
    work, folder = Work(), tmp_path / "corpus"
    if finished:
        run(folder, text, work)
    else:
        with pytest.raises(ZeroDivisionError):
            run(folder, text, lambda folder: {"x": 1 / 0})
    calls = work.calls
    for changes, words in (
        ({"settings": Settings(words=4)}, ["words was 3 and is 4", "--force"]),
        ({"settings": Settings(weights={"a": 1.0})}, ["weights", "weights.a was not there and is 1.0"]),
        ({"inputs": {"text": text, "language": "de"}}, ["input language was 'en' and is 'de'"]),
        ({"inputs": {"text": text}}, ["input language was 'en' and is not there"]),
        ({"name": "teacher"}, ["holds the stage 'corpus', not 'teacher'"]),
    ):
        for call in (lambda c: run(folder, text, work, **c), lambda c: check(folder, text, **c)):
            with pytest.raises(StageError) as caught:
                call(changes)
            assert all(word in str(caught.value) for word in words), caught.value
    text.write_text("two\n")
    with pytest.raises(StageError, match="input text changed"):
        run(folder, text, work)
    assert work.calls == calls
    assert run(folder, text, work, force=True).skipped is False
    assert run(folder, text, work).skipped is True


def check(folder: Path, text: Path, **changes: Any) -> bool:
    options = {"name": "corpus", "settings": Settings(), "inputs": {"text": text, "language": "en"}, **changes}
    return check_stage(folder, **options)


def test_check_says_what_would_happen_and_changes_nothing(tmp_path: Path, text: Path) -> None:
    folder = tmp_path / "corpus"
    assert check(folder, text) is False and not folder.exists()
    run(folder, text, Work())
    assert check(folder, text) is True
    text.unlink()  # another stage may have to make it first
    assert check(folder, text) is True


def test_a_project_may_be_moved(tmp_path: Path) -> None:
    work = Work()
    old = tmp_path / "old"
    old.mkdir()
    (old / "text.txt").write_text("one\n")
    settings = replace(Settings(), file=old / "text.txt")
    run_stage(old / "corpus", name="corpus", settings=settings, inputs={"text": old / "text.txt"}, work=work)
    new = old.rename(tmp_path / "new")
    settings = replace(Settings(), file=new / "text.txt")
    found = run_stage(new / "corpus", name="corpus", settings=settings, inputs={"text": new / "text.txt"}, work=work)
    assert found.skipped and work.calls == 1


def test_damaged_or_missing_results_are_noticed(tmp_path: Path, text: Path) -> None:
    folder = tmp_path / "corpus"
    run(folder, text, Work())
    (folder / "a.txt").write_text("A.txt")  # as long as before
    with pytest.raises(StageError, match=r"a\.txt is not what the stage wrote.*--force"):
        run(folder, text, Work())
    (folder / "a.txt").unlink()
    with pytest.raises(StageError, match=r"a\.txt is gone.*--force"):
        run(folder, text, Work())
    assert run(folder, text, Work(), force=True).skipped is False
    (folder / "manifest.json").write_text("{")
    with pytest.raises(StageError, match="damaged"):
        run(folder, text, Work())


def test_scratch_may_be_deleted(tmp_path: Path, text: Path) -> None:
    folder = tmp_path / "corpus"
    run(folder, text, Work(), scratch=("sub",))
    (folder / "sub" / "b.txt").unlink()
    assert run(folder, text, Work(), scratch=("sub",)).skipped


def test_foreign_files_are_never_touched(tmp_path: Path, text: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    for force in (False, True):
        with pytest.raises(StageError, match=r"thesis\.txt"):
            run(tmp_path / "mine", text, Work(), force=force)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "x"


def test_a_missing_input(tmp_path: Path, text: Path) -> None:
    with pytest.raises(StageError, match=r"nothing\.txt \(text\) is not there"):
        run(tmp_path / "corpus", tmp_path / "nothing.txt", Work())


def test_inputs_of_a_folder_count_by_their_content(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "a.bin").write_text("1")
    options: dict[str, Any] = {"name": "teacher", "settings": {}, "inputs": {"model": model}, "work": Work()}
    run_stage(tmp_path / "teacher", **options)
    os.utime(model / "a.bin", (1, 1))
    assert run_stage(tmp_path / "teacher", **options).skipped
    (model / "b.bin").write_text("1")
    with pytest.raises(StageError, match="input model changed"):
        run_stage(tmp_path / "teacher", **options)


def slow_stage(folder: Path) -> None:
    def work(place: Path) -> dict[str, Any]:
        with atomic_path(place / "a.txt") as temporary:
            temporary.write_text("half")
            time.sleep(60)
        return {}

    run_stage(folder, name="corpus", settings=Settings(), inputs={"language": "en"}, work=work)


def test_two_processes_and_a_kill(tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    process = multiprocessing.get_context("fork").Process(target=slow_stage, args=(folder,))
    process.start()
    for _ in range(400):
        if list(folder.glob("*.tmp-*.txt")):
            break
        time.sleep(0.01)
    options: dict[str, Any] = {"name": "corpus", "settings": Settings(), "inputs": {"language": "en"}}
    with pytest.raises(StageError, match="in use by another process"):
        run_stage(folder, work=Work(), **options)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert list(folder.glob("a.tmp-*")) and not (folder / "a.txt").exists()

    def work(place: Path) -> dict[str, Any]:
        assert not list(place.rglob("*.tmp-*"))  # what the killed process left is gone
        return Work()(place)

    assert run_stage(folder, work=work, **options).summary == {"lines": 2}


def test_atomic_path_leaves_the_old_or_the_new(tmp_path: Path) -> None:
    path = tmp_path / "curve.png"
    with atomic_path(path) as temporary:
        assert temporary.suffix == ".png" and ".tmp-" in temporary.name
        temporary.write_text("new")
        assert not path.exists()
    with pytest.raises(ZeroDivisionError), atomic_path(path) as temporary:
        temporary.write_text("newer")
        _ = 1 / 0
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]


def test_atomic_path_replaces_a_folder(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    for content in ("one", "two"):
        with atomic_path(path) as temporary:
            (temporary / "deep").mkdir(parents=True)
            (temporary / "deep" / "file").write_text(content)
        assert (path / "deep" / "file").read_text() == content and list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_said_with_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, *arguments: object, **options: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space left on device") as told:
        write_json(tmp_path / "value.json", {})
    assert told.value.filename == str(tmp_path / "value.json") and not list(tmp_path.iterdir())


def test_write_json_refuses_what_is_not_json(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "x.json", {"loss": float("nan")})
    write_json(tmp_path / "x.json", {"text": "ü"})
    assert list(tmp_path.iterdir()) == [tmp_path / "x.json"]
    assert (tmp_path / "x.json").read_text(encoding="utf-8") == '{\n "text": "ü"\n}\n'
