"""Two processes, started by ``accelerate launch``, do what one does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from mobilenmt.compression.train.runlog import read_log
from places import HELPERS

pytestmark = pytest.mark.skipif(os.name != "posix", reason="gloo")

SCRIPT = """
import json, os, sys
from pathlib import Path
from mobilenmt.compression.train import stage as distill
from mobilenmt.compression.core.pairs import Pair, PairWriter
from mobilenmt.compression.core.settings import from_mapping
from mobilenmt.compression.train.job import TrainingJob
from mobilenmt.compression.train.settings import DistillSettings
from mobilenmt.compression.train.tally import Tally
from training_data import SHAPE

root, folder, changes, stop = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3]), int(sys.argv[4])
add = Tally.add

def dying(self, step, *arguments):
    if step == stop:
        os._exit(3)
    add(self, step, *arguments)

Tally.add = dying
result = distill.run(
    TrainingJob(
        SHAPE, from_mapping(DistillSettings, changes, "distill"), root / "pairs.tsv.zst", root / "vocabulary", seed=4
    ),
    folder,
)
answer = folder.parent / f"answer{os.environ.get('RANK', '0')}.json"
answer.write_text(json.dumps({"skipped": result.skipped, "steps": result.summary["steps"]}))
"""
SETTINGS: dict[str, Any] = {
    "steps": 16,
    "batch_tokens": 400,
    "max_tokens": 40,
    "warmup_steps": 4,
    "log_every": 4,
    "dev_every": 8,
    "threads": 1,
    "device": "cpu",
    "precision": "fp32",
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from training_data import toy_vocabulary, write_dev, write_pairs

    root = tmp_path_factory.mktemp("accelerate")
    toy_vocabulary(root / "vocabulary")
    write_pairs(root / "pairs.tsv.zst", 150)
    write_dev(root / "dev.tsv", 7)
    (root / "script.py").write_text(SCRIPT, encoding="utf-8")
    return root


def launch(root: Path, folder: Path, processes: int, *, stop: int = 0, **changes: Any) -> list[dict[str, Any]]:
    """Run the script; returns what each process says. ``stop``: all of them die in this update."""
    settings = {**SETTINGS, "dev": [str(root / "dev.tsv")], **changes}
    command = [sys.executable]
    if processes > 1:
        command += ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", str(processes)]
        command += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
        command += ["--main_process_port", "0"]
    command += [str(root / "script.py"), str(root), str(folder), json.dumps(settings), str(stop)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(HELPERS), *sys.path])
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert bool(done.returncode) == bool(stop), done.stderr[-3000:]
    if stop:
        return []
    answers = [folder.parent / f"answer{rank}.json" for rank in range(processes)]
    found = [json.loads(path.read_text(encoding="utf-8")) for path in answers]
    for path in answers:
        path.unlink()
    return found


def curve(folder: Path) -> list[tuple[int, float, float, int]]:
    return [
        (entry["step"], entry["nll"], entry["norm"], entry["tokens"])
        for entry in read_log(folder / "log.jsonl")
        if entry["kind"] == "train"
    ]


def check_alike(first: Path, second: Path, tolerance: float) -> None:
    assert [entry[0] for entry in curve(first)] == [4, 8, 12, 16]
    for one, two in zip(curve(first), curve(second), strict=True):
        assert one[0] == two[0]
        assert one[3] == two[3]
        assert one[1:3] == pytest.approx(two[1:3], rel=tolerance)
    name = Path("checkpoint") / "model.safetensors"
    one, two = load_file(first / name), load_file(second / name)
    assert one.keys() == two.keys() and len(one) > 30
    for key, value in one.items():
        assert (value - two[key]).abs().max() < 20 * tolerance, key


def test_two_processes_with_whole_pieces_train_as_one_does_dropout_included(root: Path, tmp_path: Path) -> None:
    changes = {"accumulation": 2, "dropout": 0.2}
    launch(root, tmp_path / "one", 1, **changes)
    answers = launch(root, tmp_path / "two", 2, **changes)
    assert answers == [{"skipped": False, "steps": 16}] * 2
    check_alike(tmp_path / "one", tmp_path / "two", 1e-4)
    evaluated = [entry for entry in read_log(tmp_path / "two" / "log.jsonl") if entry["kind"] == "dev"]
    assert [entry["step"] for entry in evaluated] == [8, 16]
    assert [list(entry["scores"]) for entry in evaluated] == [["dev"], ["dev"]]
    # the first process finds the stage done, and says so to the other
    assert launch(root, tmp_path / "two", 2, **changes) == [{"skipped": True, "steps": 16}] * 2


@pytest.mark.slow
def test_two_processes_share_the_sentences_of_an_odd_number_of_pieces(root: Path, tmp_path: Path) -> None:
    changes = {"accumulation": 1, "dropout": 0.0}
    launch(root, tmp_path / "one", 1, **changes)
    launch(root, tmp_path / "two", 2, **changes)
    check_alike(tmp_path / "one", tmp_path / "two", 1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2)])
def test_a_killed_run_goes_on_with_another_number_of_processes_and_threads(
    root: Path, tmp_path: Path, before: int, after: int
) -> None:
    from mobilenmt.compression.train.resume import load_state

    changes = {"accumulation": 2, "dev": [], "save_every": 5}
    launch(root, tmp_path / "whole", 1, **changes)
    launch(root, tmp_path / "run", before, **changes, stop=11)
    state = load_state(tmp_path / "run" / "last")
    assert state is not None
    assert state.step == 10
    stamp = (tmp_path / "run" / "dataset" / "source.bin").stat().st_mtime_ns
    answers = launch(root, tmp_path / "run", after, **{**changes, "threads": 2, "device": "auto", "save_every": 4})
    assert answers == [{"skipped": False, "steps": 16}] * after
    assert (tmp_path / "run" / "dataset" / "source.bin").stat().st_mtime_ns == stamp
    found, wanted = curve(tmp_path / "run"), curve(tmp_path / "whole")
    assert [(step, tokens) for step, *_, tokens in found] == [(step, tokens) for step, *_, tokens in wanted]
    # of the updates between the last line and the kill, one process's share is known
    assert [nll for _, nll, *_ in found] == pytest.approx([nll for _, nll, *_ in wanted], rel=0.02)
    name = Path("checkpoint") / "model.safetensors"
    one, two = load_file(tmp_path / "whole" / name), load_file(tmp_path / "run" / name)
    assert one.keys() == two.keys() and len(one) > 30
    for key, value in one.items():
        assert (value - two[key]).abs().max() < 2e-3, key
