"""A run that is killed, stopped or short of room goes on as if nothing had happened."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mobilenmt.compression.core.errors import StoppedError, TrainingError
from mobilenmt.compression.train import interrupt
from mobilenmt.compression.train.averaging import Snapshots
from mobilenmt.compression.train.resume import load_state, save_state
from mobilenmt.compression.train.runlog import read_log
from mobilenmt.compression.train.student import StudentShape, make_student, save_checkpoint, trained_parameters
from places import HELPERS
from tiny_models import default_signals
from train_worker import run
from training_data import toy_vocabulary

pytestmark = pytest.mark.skipif(os.name != "posix", reason="kills children of a forked process")


class Worker:
    """A process that trains in children."""

    def __init__(self, root: Path) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
        environment["PYTHONPATH"] = os.pathsep.join([str(HELPERS), *sys.path])
        self.process = subprocess.Popen(
            [sys.executable, str(HELPERS / "train_worker.py"), str(root)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            preexec_fn=default_signals,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def train(self, folder: Path, seconds: float = 0.0) -> str:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{folder}\t{seconds}\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().rstrip("\n")

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(60)


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    worker = Worker(tmp_path_factory.mktemp("worker"))
    yield worker
    worker.close()


@pytest.fixture(scope="module")
def undisturbed(worker: Worker, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], float]:
    """The files of a run that nothing disturbs, and the seconds it takes."""
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    begin = time.monotonic()
    assert worker.train(folder) == "done"
    return contents(folder), time.monotonic() - begin


def contents(folder: Path) -> dict[str, Any]:
    """Every file by name; of the log all but the times."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file():
            found[name] = path.read_bytes()
    untimed = [json.loads(line) for line in found.pop("log.jsonl").splitlines()]
    for entry in untimed:
        entry.pop("seconds", None)
        entry.pop("tokens_per_second", None)
    found["log.jsonl"] = untimed
    return found


def check_killed_runs(worker: Worker, undisturbed: tuple[dict[str, Any], float], root: Path, kills: int) -> None:
    """Kill that many runs, each at a random moment, let them end, and compare."""
    wanted, seconds = undisturbed
    generator = random.Random(kills)
    trial = killed = 0
    while killed < kills:
        folder = root / f"run{trial}"
        trial += 1
        begin = time.monotonic()
        answer = worker.train(folder, generator.uniform(0.02, 1.0) * seconds)
        if answer == "done":
            seconds = time.monotonic() - begin  # the machine has become faster
        else:
            assert answer == "killed"
            killed += 1
            assert worker.train(folder) == "done"
        found = contents(folder)
        assert found.keys() == wanted.keys()
        for name, value in wanted.items():
            assert found[name] == value, name


def test_a_killed_run_ends_with_the_same_files(
    worker: Worker, undisturbed: tuple[dict[str, Any], float], tmp_path: Path
) -> None:
    check_killed_runs(worker, undisturbed, tmp_path, 2)


@pytest.mark.slow
def test_a_run_killed_at_twenty_moments_ends_with_the_same_files(
    worker: Worker, undisturbed: tuple[dict[str, Any], float], tmp_path: Path
) -> None:
    check_killed_runs(worker, undisturbed, tmp_path, 20)


@pytest.mark.slow
def test_a_run_killed_again_and_again_ends_with_the_same_files(
    worker: Worker, undisturbed: tuple[dict[str, Any], float], tmp_path: Path
) -> None:
    wanted, seconds = undisturbed
    generator = random.Random(5)
    for _ in range(40):
        if worker.train(tmp_path / "run", generator.uniform(0.3, 0.7) * seconds) == "done":
            break
    else:
        assert worker.train(tmp_path / "run") == "done"
    assert contents(tmp_path / "run") == wanted


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_saves_the_state(tmp_path: Path, number: int, request: pytest.FixtureRequest) -> None:
    def send() -> None:
        while not (tmp_path / "run" / "last").exists():
            time.sleep(0.01)
        for _ in range(2):  # a key that bounces is not a wish to lose the work
            os.kill(os.getpid(), number)
            time.sleep(0.02)

    kept = signal.getsignal(number)
    if kept is signal.SIG_IGN:  # as under nohup, which training heeds
        request.addfinalizer(lambda: signal.signal(number, kept))
        kept = signal.SIG_DFL
        signal.signal(number, kept)
    sender = threading.Thread(target=send)
    sender.start()
    with pytest.raises(
        StoppedError, match=r"stopped by (Ctrl-C|SIG\w+) after update \d+ of 100,000; .*to go on"
    ) as told:
        run(tmp_path, tmp_path / "run", steps=100_000, dev=(), average_last=0)
    sender.join()
    assert told.value.exit_code == 128 + number
    assert signal.getsignal(number) is kept
    state = load_state(tmp_path / "run" / "last")
    assert state is not None
    result = run(tmp_path, tmp_path / "run", steps=state.step + 3, dev=(), average_last=0)
    assert result["steps"] == state.step + 3


def test_a_signal_acts_as_usual_when_it_comes_again_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupt, "_BOUNCE", 0.0)
    came = []
    kept = signal.signal(signal.SIGTERM, lambda number, frame: came.append(number))
    try:
        with interrupt.StopRequest() as stop:
            signal.raise_signal(signal.SIGTERM)
            assert (stop.name, came) == ("SIGTERM", [])
            time.sleep(0.01)
            signal.raise_signal(signal.SIGTERM)
            assert came == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, kept)


def test_nohup_is_heeded() -> None:
    kept = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interrupt.StopRequest() as stop:
            signal.raise_signal(signal.SIGHUP)
        assert stop.name is None
    finally:
        signal.signal(signal.SIGHUP, kept)


def test_a_damaged_state_falls_back_to_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run(tmp_path, tmp_path / "whole", steps=30, save_seconds=0.0)
    monkeypatch.setattr("mobilenmt.compression.train.train._tidy", lambda folder: None)
    run(tmp_path, tmp_path / "run", steps=29, save_seconds=0.0, save_every=10)
    latest = max((tmp_path / "run" / "last").iterdir())
    assert latest.name == "step-000000029"
    file = latest / "optimizer.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    assert run(tmp_path, tmp_path / "run", steps=30, save_seconds=0.0)["tokens"] == whole["tokens"]
    for name in ("checkpoint/model.safetensors", "last/step-000000030/optimizer.safetensors"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.parametrize(
    "damage", ["{", "[]", "null", '{"format": 1, "step": 10, "sha256": {}, "values": {}}', '{"format": 1, "sha256": 3}']
)
def test_only_damaged_states_are_an_error(tmp_path: Path, damage: str) -> None:
    run(tmp_path, tmp_path / "run", steps=10)
    states = list((tmp_path / "run" / "last").iterdir())
    assert states
    for state in states:
        (state / "state.json").write_text(damage, encoding="utf-8")
    with pytest.raises(TrainingError, match=r"no saved state can be read .*begin again with --force"):
        run(tmp_path, tmp_path / "run", steps=20)


def test_the_log_has_each_update_once(tmp_path: Path) -> None:
    run(tmp_path, tmp_path / "run", steps=30, log_every=1)
    log = tmp_path / "run" / "log.jsonl"
    text = log.read_text(encoding="utf-8")
    damage = '{"step": 1}\n{"step": "x", "kind": "train", "nll": 1.0}\n[1]\n{"step": 2, "kind": "dev", "scores": 5}\n'
    log.write_text(text + damage + '{"step": 31, "kind": "train", "nll": 1.0}\n{"step": 32, "ki', encoding="utf-8")
    run(tmp_path, tmp_path / "run", steps=40, log_every=1)
    steps = [entry["step"] for entry in read_log(log) if entry["kind"] == "train"]
    assert steps == list(range(1, 41))


def test_a_finished_run_is_left_as_it_is(tmp_path: Path) -> None:
    first = run(tmp_path, tmp_path / "run")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}
    assert tmp_path / "run" / "checkpoint" / "model.safetensors" in before
    assert run(tmp_path, tmp_path / "run") == first
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")} == before


def test_another_configuration_is_refused_and_a_longer_run_goes_on(tmp_path: Path) -> None:
    run(tmp_path, tmp_path / "run", steps=20)
    with pytest.raises(TrainingError, match=r"another configuration: settings.batch_tokens was 300 and is 400"):
        run(tmp_path, tmp_path / "run", steps=30, batch_tokens=400)
    assert run(tmp_path, tmp_path / "run", steps=30)["steps"] == 30
    whole = run(tmp_path, tmp_path / "whole", steps=30)
    assert whole["steps"] == 30
    name = "last/step-000000030/model.safetensors"
    assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_full_disk_is_one_clear_error_and_nothing_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import safetensors.torch

    real = safetensors.torch.save_file

    def full(tensors: Any, filename: Any) -> None:
        if "step-000000024" in str(filename):
            Path(filename).write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        real(tensors, filename)

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    with pytest.raises(TrainingError, match=r"state after update 24 cannot be saved: .*No space left.*Make room"):
        run(tmp_path, tmp_path / "run", save_seconds=0.0)
    assert sorted(path.name for path in (tmp_path / "run" / "last").iterdir()) == ["step-000000008", "step-000000016"]
    monkeypatch.setattr(safetensors.torch, "save_file", real)
    run(tmp_path, tmp_path / "run", save_seconds=0.0)
    run(tmp_path, tmp_path / "whole", save_seconds=0.0)
    assert contents(tmp_path / "run") == contents(tmp_path / "whole")


@pytest.mark.parametrize("what", ["the state after update 3", "a snapshot", "cannot be written"])
def test_a_full_disk_is_told_in_the_words_of_safetensors_too(tmp_path: Path, what: str) -> None:
    vocabulary = toy_vocabulary(tmp_path / "vocabulary")
    student = make_student(StudentShape(d_model=32), vocabulary, seed=1)
    values = trained_parameters(student)
    resource = pytest.importorskip("resource")
    kept = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, kept[1]))
    try:
        with pytest.raises(TrainingError, match=f"{what}.*File too large"):
            if what.startswith("the state"):
                save_state(tmp_path / "last", 3, {"epoch": 0}, {"model": values})
            elif what == "a snapshot":
                Snapshots(tmp_path / "snapshots", 1).add(3, values)
            else:
                save_checkpoint(student, vocabulary, tmp_path / "checkpoint")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, kept)
    assert not list(tmp_path.rglob("*.safetensors"))
