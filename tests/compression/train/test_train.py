"""Training: it learns, what it writes down, when it stops, and what comes out."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from mobilenmt.compression.core.errors import RecipeError, TrainingError
from mobilenmt.compression.core.scoring import Score
from mobilenmt.compression.core.settings import from_mapping
from mobilenmt.compression.train import update
from mobilenmt.compression.train.devset import DevEvaluator, read_dev_sets
from mobilenmt.compression.train.runlog import read_log
from mobilenmt.compression.train.schedule import learning_rate, total_steps
from mobilenmt.compression.train.settings import DistillSettings, TeacherModelSettings, TrainSettings
from mobilenmt.compression.train.train import train
from mobilenmt.compression.vocabulary.vocabulary import Vocabulary
from train_worker import run
from training_data import SHAPE, job_for, toy_dataset, toy_pairs, toy_vocabulary, write_dev

LEARNING: dict[str, Any] = {
    "steps": 440,
    "batch_tokens": 1024,
    "accumulation": 2,
    "max_tokens": 40,
    "learning_rate": 6e-3,
    "warmup_steps": 60,
    "final_decay": 0.3,
    "dropout": 0.0,
    "ema_decay": 0.97,
    "dev_every": 220,
    "threads": 1,
    "device": "cpu",
}


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Vocabulary:
    return toy_vocabulary(tmp_path_factory.mktemp("vocabulary"))


@pytest.fixture(scope="module")
def learned(vocabulary: Vocabulary, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A run on a made-up language, and its result."""
    root = tmp_path_factory.mktemp("learned")
    settings = TrainSettings(**LEARNING, dev=(write_dev(root / "dev.tsv", 40),))
    dataset = toy_dataset(vocabulary, toy_pairs(1500))
    return root / "run", train(job_for(settings, vocabulary), dataset, root / "run")


def test_it_learns_a_made_up_language(learned: tuple[Path, dict[str, Any]]) -> None:
    _, result = learned
    assert result["scores"]["dev"]["bleu"] > 70
    assert result["steps"] == 440
    assert result["skipped_updates"] == 0


def test_run_folder_is_complete(learned: tuple[Path, dict[str, Any]]) -> None:
    folder, result = learned
    names = {path.name for path in folder.iterdir()}
    assert names == {"settings.json", "log.jsonl", "curve.png", "last", "best", "checkpoint", "result.json"}
    entries = list(read_log(folder / "log.jsonl"))
    training = [entry for entry in entries if entry["kind"] == "train"]
    assert [entry["step"] for entry in training] == [*range(50, 401, 50), 440]
    assert [entry["step"] for entry in entries if entry["kind"] == "dev"] == [220, 440]
    assert training[0]["nll"] > 2 * training[-1]["nll"]
    assert training[-1]["tokens"] == result["tokens"]
    assert (folder / "curve.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert json.loads((folder / "settings.json").read_text())["settings"]["batch_tokens"] == 1024


def test_padding_row_stays_zero(learned: tuple[Path, dict[str, Any]]) -> None:
    table = load_file(learned[0] / "checkpoint" / "model.safetensors")["model.shared.weight"]
    assert not table[-1].any()
    assert table[:-1].any(dim=1).all()


def test_trained_checkpoint_exports_and_says_the_same_in_ctranslate2(
    learned: tuple[Path, dict[str, Any]], vocabulary: Vocabulary, tmp_path: Path
) -> None:
    ctranslate2 = pytest.importorskip("ctranslate2")
    from transformers import MarianMTModel

    from mobilenmt.export.export import export
    from mobilenmt.runtime.onnx.engine import Engine

    checkpoint = learned[0] / "checkpoint"
    engine = Engine(export(checkpoint, tmp_path / "en-de", precision="int8"))
    ctranslate2.converters.TransformersConverter(str(checkpoint)).convert(str(tmp_path / "ct2"))
    translator = ctranslate2.Translator(str(tmp_path / "ct2"), compute_type="float32")
    model = MarianMTModel.from_pretrained(checkpoint).eval()
    same = 0
    for source, _ in toy_pairs(10, seed=7):
        ids = vocabulary.encode(source)
        with torch.no_grad():
            wanted = model.generate(torch.tensor([[*ids, 0]]), num_beams=1, do_sample=False, max_length=40)
        words = vocabulary.decode(wanted[0, 1:].tolist())
        pieces = translator.translate_batch([vocabulary.pieces([*ids, 0])], beam_size=1, max_decoding_length=40)
        assert "".join(pieces[0].hypotheses[0]).replace("▁", " ").strip() == words
        same += vocabulary.decode(engine.generate([ids], max_lengths=[40])[0][0].ids) == words
    assert same >= 9  # INT8 may decide a close case otherwise


def test_it_learns_in_bf16(vocabulary: Vocabulary, tmp_path: Path) -> None:
    def losses(precision: str) -> list[float]:
        changes = {"steps": 40, "precision": precision, "log_every": 10}
        settings = TrainSettings(**{**LEARNING, **changes})
        dataset = toy_dataset(vocabulary, toy_pairs(300))
        folder = tmp_path / precision
        train(job_for(settings, vocabulary), dataset, folder)
        return [entry["nll"] for entry in read_log(folder / "log.jsonl")]

    assert losses("bf16") == pytest.approx(losses("fp32"), rel=0.02)


def test_accumulation_only_changes_the_order_of_summation(vocabulary: Vocabulary) -> None:
    """The gradient of an update is the mean over its tokens, in however many pieces it is worked off."""
    import numpy as np
    from accelerate import Accelerator

    from mobilenmt.compression.dataset.batches import make_batch
    from mobilenmt.compression.train.student import make_student

    dataset = toy_dataset(vocabulary, toy_pairs(24))
    tokens = int(dataset.target_lengths.sum())
    weights = []
    for parts in (1, 2, 5):
        student = make_student(SHAPE, vocabulary, seed=1)
        settings = TrainSettings(**{**LEARNING, "precision": "fp32", "adam_epsilon": 1e-3, "clip_norm": 0.0})
        updater = update.Updater(student, settings, Accelerator(cpu=True), None, 1)
        work = [
            (number, True, make_batch(dataset, indices, vocabulary.pad, None))
            for number, indices in enumerate(np.array_split(np.arange(24), parts))
        ]
        before = student.model.shared.weight.clone()
        updater.update(1, work, tokens, 1e-2)
        assert (student.model.shared.weight - before).abs().max() > 1e-3
        weights.append(torch.cat([value.detach().flatten() for value in updater.parameters.values()]))
    torch.testing.assert_close(weights[1], weights[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(weights[2], weights[0], rtol=1e-4, atol=1e-5)


def test_best_evaluation_is_kept_and_patience_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = iter([10.0, 30.0, 20.0, 25.0, 29.0])

    def score(self: Any, translations: Any) -> Any:
        return {"dev": Score(next(scores), 50.0)}

    monkeypatch.setattr(DevEvaluator, "score", score)
    result = run(tmp_path, tmp_path / "run", dev_every=4, patience=2, average_last=0)
    assert result["stopped_early"]
    assert (result["chosen"], result["step"], result["steps"]) == ("best", 8, 16)
    assert result["scores"]["dev"]["bleu"] == 30.0
    checkpoint, best = tmp_path / "run" / "checkpoint", tmp_path / "run" / "best"
    assert (checkpoint / "model.safetensors").read_bytes() == (best / "model.safetensors").read_bytes()


def test_average_of_snapshots_is_their_mean(tmp_path: Path) -> None:
    def tables(steps: int, **changes: Any) -> Any:
        folder = tmp_path / f"{steps}{len(changes)}"
        settings = {"dev": (), "ema_decay": 0.0, "warmup_steps": 4, "average_last": 0, **changes}
        result = run(tmp_path, folder, steps=steps, **settings)
        return result, load_file(folder / "checkpoint" / "model.safetensors")["model.shared.weight"]

    result, averaged = tables(12, average_last=2, average_every=4)
    assert result["chosen"] == "average"
    torch.testing.assert_close(averaged, (tables(8)[1] + tables(12)[1]) / 2)


def test_updates_that_are_not_finite_are_skipped_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = update.Updater.update

    def broken(self: update.Updater, step: int, work: Any, tokens: int, rate: float) -> Any:
        if step in (3, 4, 9):
            with torch.no_grad():
                kept = self.parameters["model.encoder.layers.0.fc1.bias"].clone()
                self.parameters["model.encoder.layers.0.fc1.bias"][0] = math.nan
            result = real(self, step, work, tokens, rate)
            with torch.no_grad():
                self.parameters["model.encoder.layers.0.fc1.bias"].copy_(kept)
            return result
        return real(self, step, work, tokens, rate)

    monkeypatch.setattr(update.Updater, "update", broken)
    result = run(tmp_path, tmp_path / "run", steps=12, log_every=4, dev=())
    assert result["skipped_updates"] == 3
    training = list(read_log(tmp_path / "run" / "log.jsonl"))
    assert [entry["skipped"] for entry in training] == [2, 2, 3]
    assert all(math.isfinite(entry["nll"]) for entry in training)
    assert all(
        torch.isfinite(value).all() for value in load_file(tmp_path / "run/checkpoint/model.safetensors").values()
    )


def test_divergence_ends_with_advice(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"not finite in 3 updates in a row.*Lower learning_rate"):
        run(tmp_path, tmp_path / "run", learning_rate=1e30, warmup_steps=0, clip_norm=0.0, bad_updates=3, dev=())


def test_training_leaves_global_randomness_alone(tmp_path: Path) -> None:
    torch.manual_seed(7)
    wanted = torch.rand(3)
    torch.manual_seed(7)
    run(tmp_path, tmp_path / "run", steps=2, dev=())
    assert torch.equal(torch.rand(3), wanted)


def test_sentences_longer_than_the_model_are_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="max_tokens 65 exceeds max_position_embeddings 64"):
        run(tmp_path, tmp_path / "run", max_tokens=65)


@pytest.mark.parametrize(
    ("settings", "step", "rate"),
    [
        ({"schedule": "inverse_sqrt"}, 50, 0.5),
        ({"schedule": "inverse_sqrt"}, 100, 1.0),
        ({"schedule": "inverse_sqrt"}, 400, 0.5),
        ({"schedule": "cosine"}, 550, 0.5),
        ({"schedule": "cosine"}, 1000, 0.0),
        ({"schedule": "constant"}, 999, 1.0),
        ({"schedule": "constant", "final_decay": 0.2}, 801, 1.0),
        ({"schedule": "constant", "final_decay": 0.2}, 901, 0.5),
        ({"schedule": "constant", "final_decay": 0.2}, 1000, 0.005),
        ({"schedule": "constant", "warmup_steps": 0}, 1, 1.0),
    ],
)
def test_learning_rate(settings: dict[str, Any], step: int, rate: float) -> None:
    made = TrainSettings(**{"learning_rate": 1.0, "warmup_steps": 100, **settings})
    assert learning_rate(made, step, 1000) == pytest.approx(rate, abs=1e-9)


def test_steps_and_epochs() -> None:
    assert total_steps(TrainSettings(steps=70), 100) == 70
    assert total_steps(TrainSettings(epochs=3), 100) == 300
    assert total_steps(TrainSettings(epochs=3, steps=70), 100) == 70
    assert total_steps(TrainSettings(epochs=3, steps=700), 100) == 300
    assert total_steps(TrainSettings(), 100) == 2000


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"steps": 0}, "distill.steps: must be at least 1, found 0"),
        ({"threads": 3_000_000_000}, "distill.threads: must be at most 1,024, found 3000000000"),
        ({"epochs": 10**21}, "distill.epochs: must be at most 999,999,999, found 1000"),
        ({"dropout": 1.0}, "distill.dropout: must be from 0 up to, not including, 1"),
        ({"learning_rate": 0.0}, "distill.learning_rate: must be above 0"),
        ({"batch_tokens": 64}, r"distill.batch_tokens: must hold a sentence of max_tokens \(128\)"),
        ({"patience": 3}, "distill.patience: an early stop needs dev files"),
        ({"word_level": 0.5}, "distill.word_level: .* needs the teacher's checkpoint"),
        ({"word_level": 0.5, "teacher": "t", "top_k": 0}, "distill.top_k: all pieces cannot be stored"),
        ({"schedule": "linear"}, "distill.schedule: expected one of"),
        ({"stepz": 3}, "distill.stepz: no such setting"),
    ],
)
def test_settings_are_checked(raw: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        from_mapping(DistillSettings, raw, "distill")


def test_a_teacher_has_a_shape_of_its_own() -> None:
    made = from_mapping(TeacherModelSettings, {"steps": 5, "shape": {"d_model": 128}}, "teacher_model")
    assert (made.shape.d_model, made.shape.encoder_layers) == (128, 6)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("one\n", "line 1: a source and a target with a tab between are expected"),
        ("a\tb\n\tc\n", "line 2: a source and a target"),
        ("", "line 1"),
    ],
)
def test_dev_files_are_checked(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "dev.tsv").write_text(text, encoding="utf-8")
    with pytest.raises(TrainingError, match=message):
        read_dev_sets([tmp_path / "dev.tsv"], 0)


def test_dev_lines_are_evenly_spaced(tmp_path: Path) -> None:
    (tmp_path / "dev.tsv").write_text("".join(f"s{i}\tt{i}\n" for i in range(10)), encoding="utf-8")
    (dev,) = read_dev_sets([tmp_path / "dev.tsv"], 4)
    assert dev.sources == ("s0", "s2", "s5", "s7")
    with pytest.raises(TrainingError, match="no such dev file"):
        read_dev_sets([tmp_path / "other.tsv"], 4)
