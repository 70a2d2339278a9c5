"""The stages: text and vocabulary in, checkpoint out; the teacher's distributions stored and live."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from absent import without_japanese_and_korean
from mobilenmt.compression.chain.chain import Chain
from mobilenmt.compression.chain.recipe import load_recipe
from mobilenmt.compression.core.errors import EvaluationError, StageError, TrainingError
from mobilenmt.compression.dataset.batches import make_batch
from mobilenmt.compression.dataset.dataset import PackedDataset
from mobilenmt.compression.train import soft_targets as soften
from mobilenmt.compression.train import stage as distill
from mobilenmt.compression.train.job import TrainingJob
from mobilenmt.compression.train.run import TrainingRun
from mobilenmt.compression.train.runlog import read_log
from mobilenmt.compression.train.settings import DistillSettings, TeacherModelSettings, TrainSettings
from mobilenmt.compression.train.soft_targets import SoftTeacher, StoredTargets
from mobilenmt.compression.train.student import make_student, save_checkpoint
from mobilenmt.compression.train.tally import Tally
from mobilenmt.compression.train.update import DeviceBatch, UpdateResult
from mobilenmt.compression.vocabulary.vocabulary import Vocabulary
from training_data import SHAPE, toy_vocabulary, write_dev, write_pairs

QUICK: dict[str, Any] = {
    "steps": 12,
    "batch_tokens": 400,
    "accumulation": 2,
    "max_tokens": 40,
    "warmup_steps": 4,
    "log_every": 3,
    "threads": 1,
    "device": "cpu",
    "precision": "fp32",
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pairs, a vocabulary, a dev set, and a teacher's checkpoint."""
    root = tmp_path_factory.mktemp("distill")
    vocabulary = toy_vocabulary(root / "vocabulary")
    write_pairs(root / "pairs.tsv.zst", 150)
    write_dev(root / "dev.tsv", 5)
    save_checkpoint(make_student(SHAPE, vocabulary, seed=8), vocabulary, root / "teacher")
    return root


def start(root: Path, folder: Path, *, force: bool = False, **changes: Any) -> Any:
    return distill.run(job(root, DistillSettings(**{**QUICK, **changes})), folder, force=force)


def job(root: Path, settings: TrainSettings) -> TrainingJob:
    return TrainingJob(SHAPE, settings, root / "pairs.tsv.zst", root / "vocabulary", seed=4)


def losses(folder: Path, key: str) -> list[float]:
    return [entry[key] for entry in read_log(folder / "log.jsonl") if entry["kind"] == "train"]


def test_stage_makes_a_checkpoint_and_is_skipped_when_done(root: Path, tmp_path: Path) -> None:
    dev = (root / "dev.tsv",)
    first = start(root, tmp_path / "run", dev=dev)
    assert not first.skipped
    assert first.summary["steps"] == 12
    assert (tmp_path / "run" / "checkpoint" / "model.safetensors").is_file()
    again = start(root, tmp_path / "run", dev=dev)
    assert again.skipped
    assert again.summary == first.summary
    with pytest.raises(StageError, match=r"dropout was 0.1 and is 0.2"):
        start(root, tmp_path / "run", dev=dev, dropout=0.2)
    assert start(root, tmp_path / "run", dev=dev, save_every=3).skipped  # changes no file that comes out


def test_of_the_vocabulary_only_the_tokenizer_counts(root: Path, tmp_path: Path) -> None:
    copy = tmp_path / "root"
    shutil.copytree(root, copy)
    report, config = copy / "vocabulary" / "report.json", copy / "vocabulary" / "tokenizer_config.json"
    report.write_text('{"memory_bytes": 1}')
    assert not start(copy, tmp_path / "run", steps=2).skipped
    report.write_text('{"memory_bytes": 2}')  # as a vocabulary made again measures it
    assert start(copy, tmp_path / "run", steps=2).skipped
    config.write_text(json.dumps({**json.loads(config.read_text()), "source_lang": "fr"}))
    with pytest.raises(StageError, match=r"input tokenizer_config\.json changed"):
        start(copy, tmp_path / "run", steps=2)
    shutil.copyfile(root / "vocabulary" / config.name, config)
    tokenizer = copy / "vocabulary" / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text() + " ")
    with pytest.raises(StageError, match="input vocabulary changed"):
        start(copy, tmp_path / "run", steps=2)
    shutil.rmtree(copy / "vocabulary")
    with pytest.raises(StageError, match="is not there; run the stage that makes it"):
        start(copy, tmp_path / "run", steps=2)


def test_a_mistake_is_found_before_the_folder_is_begun(root: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"no such dev file|is not there"):
        start(root, tmp_path / "run", dev=(root / "missing.tsv",))
    with pytest.raises(TrainingError, match="max_tokens 100 exceeds"):
        start(root, tmp_path / "run", max_tokens=100)
    assert not (tmp_path / "run" / "started.json").exists()
    start(root, tmp_path / "run")


class Killed(BaseException):
    pass


def test_a_killed_stage_goes_on_with_other_threads_and_another_device(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They change no result, and the next machine may have more cores, or a GPU."""
    first = {"dev": (root / "dev.tsv",), "save_every": 4, "threads": 1}
    other = {**first, "save_every": 5, "threads": 2, "device": "auto"}
    whole = start(root, tmp_path / "whole", **first)
    real = Tally.add

    def dying(self: Tally, step: int, result: UpdateResult, tokens: int) -> None:
        if step == 11:
            raise Killed
        real(self, step, result, tokens)

    folder = tmp_path / "run"
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Tally, "add", dying)
        start(root, folder, **first)
    dataset = (folder / "dataset" / "source.bin").stat().st_mtime_ns
    told: list[str] = []
    again = distill.run(replace(job(root, DistillSettings(**{**QUICK, **other})), report=told.append), folder)
    assert told[0] == "going on after update 8 of 12"
    assert (again.skipped, again.summary["tokens"]) == (False, whole.summary["tokens"])
    assert losses(folder, "nll") == pytest.approx(losses(tmp_path / "whole", "nll"), rel=1e-3)
    assert (folder / "dataset" / "source.bin").stat().st_mtime_ns == dataset
    # killed after its result was written, and before the stage was done
    (folder / "manifest.json").unlink()
    stamp = (folder / "checkpoint").stat().st_mtime_ns
    assert start(root, folder, **first).summary == again.summary
    assert (folder / "checkpoint").stat().st_mtime_ns == stamp


def test_a_killed_run_may_be_moved(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = tmp_path / "old"
    shutil.copytree(root, old)
    with monkeypatch.context() as patch, pytest.raises(Killed):

        def killed(self: TrainingRun) -> None:
            raise Killed

        patch.setattr(TrainingRun, "finish", killed)
        start(old, old / "run", initial=old / "teacher")
    new = old.rename(tmp_path / "new")
    assert start(new, new / "run", initial=new / "teacher").summary["steps"] == 12


def test_force_trains_anew_on_the_same_dataset_unless_that_has_changed(root: Path, tmp_path: Path) -> None:
    def stamps() -> set[int]:
        return {path.stat().st_mtime_ns for path in (tmp_path / "run" / "dataset").iterdir()}

    start(root, tmp_path / "run", steps=2)
    before, checkpoint = stamps(), (tmp_path / "run" / "checkpoint").stat().st_mtime_ns
    assert len(before) > 1
    assert not start(root, tmp_path / "run", steps=2, threads=2, dropout=0.2, force=True).skipped
    assert stamps() == before and (tmp_path / "run" / "checkpoint").stat().st_mtime_ns != checkpoint
    start(root, tmp_path / "run", steps=2, max_tokens=20, force=True)
    assert not stamps() & before


def test_what_is_missing_to_score_dev_files_is_told_before_anything_is_made(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "root"
    shutil.copytree(root, copy)
    config = copy / "vocabulary" / "tokenizer_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "target_lang": "ja"}))
    without_japanese_and_korean(monkeypatch)
    wanted = r"distill\.dev: sacrebleu cannot score ja: .*sacrebleu\[ja\].*or train without dev files"
    with pytest.raises(EvaluationError, match=wanted):
        start(copy, tmp_path / "run", dev=(copy / "dev.tsv",))
    assert not (tmp_path / "run").exists()
    recipe = copy / "recipe.toml"
    head = 'name = "x"\nsource_language = "en"\ntarget_language = "ja"\n[[corpus.sources]]\npaths = ["a.tsv"]\n'
    recipe.write_text(f'{head}[distill]\ndev = ["dev.tsv"]\nmax_tokens = 40\n')
    with pytest.raises(EvaluationError, match=wanted):
        distill.STAGE.check(Chain(load_recipe(recipe), tmp_path / "work"), True)
    start(copy, tmp_path / "run", steps=2)


def test_stored_and_live_distributions_train_alike(root: Path, tmp_path: Path) -> None:
    word_level = {"word_level": 0.5, "teacher": root / "teacher", "temperature": 1.5, "top_k": 6, "dropout": 0.0}
    start(root, tmp_path / "stored", **word_level)
    start(root, tmp_path / "live", **word_level, soft_targets="live")
    start(root, tmp_path / "without", dropout=0.0)
    stored, live = losses(tmp_path / "stored", "kl"), losses(tmp_path / "live", "kl")
    assert stored == pytest.approx(live, rel=1e-3)
    assert losses(tmp_path / "stored", "loss") == pytest.approx(losses(tmp_path / "live", "loss"), rel=1e-3)
    assert stored[-1] < 0.95 * stored[0]
    assert losses(tmp_path / "without", "nll")[-1] < losses(tmp_path / "stored", "nll")[-1]


def test_distributions_are_those_of_the_teacher(root: Path, tmp_path: Path) -> None:
    from transformers import MarianMTModel

    start(root, tmp_path / "run", word_level=1.0, teacher=root / "teacher", top_k=6)
    dataset = PackedDataset(tmp_path / "run" / "dataset")
    vocabulary = Vocabulary.load(root / "vocabulary")
    stored = StoredTargets(tmp_path / "run" / "soft", dataset, vocabulary, 6)
    model = MarianMTModel.from_pretrained(root / "teacher").eval()
    for index in (0, 17, len(dataset) - 1):
        source, target = dataset.source(index), dataset.target(index)
        start_ids = np.concatenate(([vocabulary.pad], target[:-1]))
        with torch.no_grad():
            logits = model(
                input_ids=torch.from_numpy(source)[None], decoder_input_ids=torch.from_numpy(start_ids)[None]
            ).logits[0, :, :-1]
        wanted, ids = torch.log_softmax(logits, dim=1).topk(6)
        found_ids, found = stored(np.array([index]))
        assert np.array_equal(found_ids, ids.numpy())
        np.testing.assert_allclose(found, wanted.numpy(), atol=5e-3)


def test_distributions_killed_halfway_are_finished_alike(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(soften, "SHARD", 40)
    settings = DistillSettings(**QUICK, word_level=0.5, teacher=root / "teacher", top_k=4)
    start(root, tmp_path / "run")
    dataset = PackedDataset(tmp_path / "run" / "dataset")
    vocabulary = Vocabulary.load(root / "vocabulary")

    def store(folder: Path) -> None:
        soften.store_targets(settings, dataset, vocabulary, folder, Accelerator(cpu=True))

    store(tmp_path / "whole")
    real, calls = SoftTeacher.best, []

    def dying(self: SoftTeacher, batch: DeviceBatch) -> Any:
        calls.append(len(batch.labels))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(self, batch)

    monkeypatch.setattr(SoftTeacher, "best", dying)
    with pytest.raises(KeyboardInterrupt):
        store(tmp_path / "killed")
    done = len(list((tmp_path / "killed" / "done").iterdir()))
    assert 0 < done < 4
    store(tmp_path / "killed")
    assert len(calls) == 3 + 4 - done
    for name in ("ids.bin", "logprobs.bin"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_batches_bring_the_rows_of_their_tokens(root: Path, tmp_path: Path) -> None:
    start(root, tmp_path / "run", word_level=0.5, teacher=root / "teacher", top_k=4)
    dataset = PackedDataset(tmp_path / "run" / "dataset")
    vocabulary = Vocabulary.load(root / "vocabulary")
    stored = StoredTargets(tmp_path / "run" / "soft", dataset, vocabulary, 4)
    indices = np.array([5, 2, 90])
    batch = make_batch(dataset, indices, vocabulary.pad, stored)
    assert batch.soft_ids is not None
    assert batch.soft_ids.shape == (batch.tokens, 4)
    alone = np.concatenate([stored(np.array([index]))[0] for index in indices])
    assert np.array_equal(batch.soft_ids, alone)


def test_a_teacher_of_another_vocabulary_is_refused_before_the_start(root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "teacher"
    vocabulary = toy_vocabulary(tmp_path / "other")
    save_checkpoint(make_student(SHAPE, vocabulary, seed=8), vocabulary, folder)
    file = folder / "tokenizer.json"
    file.write_text(file.read_text(encoding="utf-8").replace("▁house", "▁hose"), encoding="utf-8")
    with pytest.raises(TrainingError, match="has another vocabulary"):
        start(root, tmp_path / "run", word_level=0.5, teacher=folder)


def test_a_full_disk_is_found_before_the_teacher_reads(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(TrainingError, match=r"no room for the teacher's distributions.*lower top_k"):
        start(root, tmp_path / "run", word_level=0.5, teacher=root / "teacher")
    monkeypatch.undo()
    start(root, tmp_path / "run", word_level=0.5, teacher=root / "teacher")


def test_a_teacher_is_trained_with_the_same_trainer(root: Path, tmp_path: Path) -> None:
    settings = TeacherModelSettings(**QUICK, shape=SHAPE)
    result = distill.run(job(root, settings), tmp_path / "teacher_model", name="teacher_model")
    student = start(root, tmp_path / "distill")
    assert result.name == "teacher_model"
    assert result.summary == student.summary


def test_training_goes_on_from_given_weights(root: Path, tmp_path: Path) -> None:
    start(root, tmp_path / "first", steps=60)
    start(root, tmp_path / "second", initial=tmp_path / "first" / "checkpoint")
    assert losses(tmp_path / "second", "nll")[0] < 0.8 * losses(tmp_path / "first", "nll")[0]
