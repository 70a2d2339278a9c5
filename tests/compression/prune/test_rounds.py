"""Pruning in rounds: how much goes in each, what is trained between them, and what a kill costs."""

from __future__ import annotations

from dataclasses import fields
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from mobilenmt.compression.core.errors import RecipeError, StageError
from mobilenmt.compression.core.stage import StageResult
from mobilenmt.compression.prune import prune as prune_module
from mobilenmt.compression.prune import stage
from mobilenmt.compression.prune.rounds import round_shapes
from mobilenmt.compression.prune.settings import PruneSettings
from mobilenmt.compression.prune.target import check_target
from mobilenmt.compression.train.hidden.matching import read_matches, weights_digest
from mobilenmt.compression.train.job import TrainingJob
from mobilenmt.compression.train.settings import DistillSettings
from mobilenmt.compression.train.size import count_parameters
from mobilenmt.compression.train.student import StudentShape
from mobilenmt.compression.train.tally import Tally
from mobilenmt.export.checkpoint import load_checkpoint
from training_data import prunable, write_pairs

SMALL = StudentShape(
    d_model=16,
    encoder_layers=1,
    decoder_layers=1,
    encoder_attention_heads=2,
    decoder_attention_heads=2,
    encoder_ffn_dim=16,
    decoder_ffn_dim=16,
    max_position_embeddings=64,
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("rounds")
    prunable(root / "teacher")
    write_pairs(root / "pairs.tsv.zst", 150)
    return root


def start(root: Path, folder: Path, told: list[str] | None = None, **changes: Any) -> StageResult:
    """In three rounds, with the teacher's hidden states as targets."""
    settings = PruneSettings(**{"rounds": 3, "round_steps": 6, "sentences": 60, **changes})
    training = DistillSettings(
        steps=99,
        batch_tokens=300,
        accumulation=1,
        max_tokens=32,
        precision="fp32",
        threads=1,
        save_every=2,
        hidden=1.0,
        teacher=root / "teacher",
    )
    report = (lambda line: None) if told is None else told.append
    pairs, vocabulary = root / "pairs.tsv.zst", root / "teacher"
    return stage.run(
        settings,
        folder,
        checkpoint=root / "teacher",
        shape=SMALL,
        vocabulary=vocabulary,
        pairs=pairs,
        languages=("", ""),
        student=TrainingJob(SMALL, training, pairs, vocabulary, report=report),
    )


@pytest.fixture(scope="module")
def whole(root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, StageResult]:
    """A run that nothing disturbs."""
    folder = tmp_path_factory.mktemp("whole") / "prune"
    return folder, start(root, folder)


def weights(folder: Path) -> bytes:
    return (folder / "checkpoint" / "model.safetensors").read_bytes()


@pytest.mark.parametrize("schedule", ["geometric", "linear"])
def test_each_round_is_a_part_of_the_one_before(schedule: Any) -> None:
    large = StudentShape(512, 6, 6, 8, 8, 2048, 2048)
    for small in (StudentShape(192, 5, 2, 4, 4, 448, 320), StudentShape(512, 6, 6, 8, 8, 512, 512)):
        settings = PruneSettings(rounds=4, round_schedule=schedule)
        shapes = [large, *round_shapes(large, small, settings, 8000)]
        assert len(shapes) == 5 and shapes[-1] == small
        sizes = [count_parameters(shape, 8000) for shape in shapes]
        for before, after in pairwise(shapes):
            check_target(after, before)
        first, last = sizes[0], sizes[-1]
        shares = [number / 4 for number in range(5)]
        wanted = [first * (last / first) ** share for share in shares]
        if schedule == "linear":
            wanted = [first + (last - first) * share for share in shares]
        assert sizes == pytest.approx(wanted, rel=0.08)  # layers come whole
        assert all(shape.d_model % 16 == 0 for shape in shapes)


def test_rounds_that_would_change_nothing_are_left_out() -> None:
    small = StudentShape(254, 6, 2, 2, 2, 1024, 1024)
    large = StudentShape(256, 6, 2, 2, 2, 1024, 1024)
    assert round_shapes(large, small, PruneSettings(rounds=9), 8000) == [small]
    assert round_shapes(large, large, PruneSettings(rounds=9), 8000) == [large]


def test_the_model_is_trained_between_rounds(root: Path, whole: tuple[Path, StageResult]) -> None:
    folder, result = whole
    rounds = result.summary["rounds"]
    assert [one["updates"] for one in rounds] == [6, 6]
    sizes = [load_checkpoint(root / "teacher").parameters, *(one["parameters"] for one in rounds)]
    assert all(before > after for before, after in pairwise([*sizes, result.summary["parameters"]]))
    for number in ("1", "2"):
        pruned, trained = (folder / "rounds" / number / name for name in ("pruned", "distill/checkpoint"))
        assert weights_digest(pruned) != weights_digest(trained)
        assert not (folder / "rounds" / number / "distill" / "dataset").exists()
    made = load_checkpoint(folder / "checkpoint").config
    assert all(
        getattr(made, item.name) == getattr(SMALL, item.name)
        for item in fields(StudentShape)
        if item.name != "max_position_embeddings"
    )


def test_what_comes_out_is_matched_to_the_teacher_and_to_each_round(
    root: Path, whole: tuple[Path, StageResult]
) -> None:
    folder, _ = whole
    known = read_matches(folder / "checkpoint")
    rounds = [folder / "rounds" / number / "distill" / "checkpoint" for number in ("2", "1")]
    assert list(known) == [weights_digest(one) for one in (*rounds, root / "teacher")]
    last, first = known[weights_digest(root / "teacher")], known[weights_digest(rounds[0])]
    between = read_matches(rounds[0])[weights_digest(root / "teacher")]
    assert last == first.behind(between)
    assert last.channels is not None and len(set(last.channels)) == 16


class Killed(BaseException):
    pass


@pytest.mark.parametrize("moment", ["pruning", "training"])
def test_a_killed_run_goes_on_in_the_round_it_was_in(
    root: Path, whole: tuple[Path, StageResult], moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    real_write, real_add = prune_module.write_model, Tally.add

    def write(*arguments: Any) -> None:
        real_write(*arguments)
        calls.append("write")
        if moment == "pruning" and len(calls) == 2:
            raise Killed

    def add(self: Tally, step: int, *arguments: Any) -> None:
        if moment == "training" and len(calls) == 2 and step == 5:
            raise Killed
        real_add(self, step, *arguments)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(prune_module, "write_model", write)
        patch.setattr(Tally, "add", add)
        start(root, tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoint").exists()
    first = (tmp_path / "run" / "rounds" / "1" / "distill" / "log.jsonl").stat().st_mtime_ns
    told: list[str] = []
    again = start(root, tmp_path / "run", told)
    assert ("going on after update 4 of 6" in told) == (moment == "training")
    assert (tmp_path / "run" / "rounds" / "1" / "distill" / "log.jsonl").stat().st_mtime_ns == first
    assert weights(tmp_path / "run") == weights(whole[0])
    assert again.summary == whole[1].summary
    assert start(root, tmp_path / "run").skipped


def test_other_rounds_are_other_settings(root: Path, whole: tuple[Path, StageResult]) -> None:
    with pytest.raises(StageError, match="round_steps was 6 and is 7"):
        start(root, whole[0], round_steps=7)
    with pytest.raises(RecipeError, match="rounds: must be from 1 to 100, found 0"):
        PruneSettings(rounds=0)
