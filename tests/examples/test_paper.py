"""examples/paper: its models against plain ones, its bytes, and the whole study on a made-up text."""

from __future__ import annotations

import dataclasses
import json
import lzma
from pathlib import Path
from typing import Any

import pytest
import torch

import outcome
import run as paper
from made_up_pairs import make_pairs, write_tsv
from mobilenmt.compression.core.errors import RecipeError, StoppedError
from mobilenmt.compression.train.loss import LossWeights, TrainingModule
from mobilenmt.compression.train.schedule import is_matrix
from mobilenmt.compression.train.settings import TrainSettings
from mobilenmt.compression.train.student import StudentShape, make_student, save_checkpoint, trained_parameters
from mobilenmt.compression.train.train import train
from mobilenmt.compression.vocabulary.vocabulary import Vocabulary
from mobilenmt.export.checkpoint import load_checkpoint
from mobilenmt.export.export import export
from places import ROOT
from study import Comparison, Configuration, Study, load_study
from training_data import SHAPE, job_for, toy_dataset, toy_pairs, toy_vocabulary
from trial import Trials, bits_per_character
from variants import Variant, VariantModel, count, load_plain, make_variant, maker

pytest.importorskip("sacrebleu")

VARIANTS = {
    "factorized": Variant(factor=8),
    "untied": Variant(factor=8, tied=False),
    "one set": Variant(encoder_sets=1),
    "both": Variant(factor=8, encoder_sets=2),
}
DEEP = dataclasses.replace(SHAPE, encoder_layers=5)


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Vocabulary:
    return toy_vocabulary(tmp_path_factory.mktemp("vocabulary"))


@pytest.fixture(params=VARIANTS)
def model(request: pytest.FixtureRequest, vocabulary: Vocabulary) -> Any:
    """A variant, its biases and norms moved away from 0 and 1."""
    found = make_variant(VARIANTS[request.param], DEEP, vocabulary, seed=1)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for value in trained_parameters(found).values():
            if value.dim() == 1:
                value += 0.05 * torch.randn(value.shape, generator=generator)
    return found


def batch(vocabulary: Vocabulary) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(3)
    source = torch.randint(0, vocabulary.pad, (4, 7), generator=generator)
    labels = torch.randint(0, vocabulary.pad, (4, 6), generator=generator)
    before = torch.cat([torch.full((4, 1), vocabulary.pad), labels[:, :-1]], 1)
    return source, before, labels.flatten()


def loss_of(model: Any, vocabulary: Vocabulary) -> torch.Tensor:
    source, before, labels = batch(vocabulary)
    module = TrainingModule(model, LossWeights(0.1), torch.float32)
    found: torch.Tensor = module(source, None, before, None, labels)[0]
    return found


def gradients(model: Any, vocabulary: Vocabulary) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss_of(model, vocabulary).backward()
    return {name: value.grad for name, value in trained_parameters(model).items() if value.grad is not None}


@pytest.mark.parametrize("variant", [Variant(), *VARIANTS.values()])
def test_bytes_are_those_of_the_trained_weights(variant: Variant, vocabulary: Vocabulary) -> None:
    made = make_variant(variant, DEEP, vocabulary, seed=1)
    assert count(DEEP, vocabulary.size, variant) == sum(value.numel() for value in trained_parameters(made).values())


def test_without_a_variant_it_is_the_student(vocabulary: Vocabulary) -> None:
    ours, theirs = make_variant(Variant(), SHAPE, vocabulary, seed=3), make_student(SHAPE, vocabulary, seed=3)
    assert type(ours) is type(theirs)
    assert all(torch.equal(ours.state_dict()[name], value) for name, value in theirs.state_dict().items())


def test_what_a_variant_leaves_alone_begins_as_the_students(vocabulary: Vocabulary) -> None:
    variant = trained_parameters(make_variant(Variant(factor=8, encoder_sets=2), DEEP, vocabulary, seed=3))
    student = trained_parameters(make_student(DEEP, vocabulary, seed=3))
    common = set(variant) & set(student)
    assert any("encoder.layers.1." in name for name in common) and not any(".layers.2." in name for name in common)
    assert all(torch.equal(variant[name], student[name]) for name in common)


def test_a_factorized_table_begins_as_wide_as_the_students(vocabulary: Vocabulary) -> None:
    shape = dataclasses.replace(SHAPE, d_model=64)
    shared: Any = make_variant(Variant(factor=32), shape, vocabulary, seed=1).model.shared
    assert shared.weight[:-1].std().item() == pytest.approx(64**-0.5, rel=0.1)
    assert not shared.weight[-1].any()


def test_every_weight_learns_and_the_padding_row_does_not(model: Any, vocabulary: Vocabulary) -> None:
    found = gradients(model, vocabulary)
    assert set(found) == set(trained_parameters(model))
    k_bias = "k_proj.bias"  # softmax does not see what is added to all scores of a row
    assert all(value.any() for name, value in found.items() if not name.endswith(k_bias))
    if "model.shared.pieces" in found:
        assert not found["model.shared.pieces"][-1].any()


def test_loss_and_gradients_are_those_of_the_model_multiplied_out(model: Any, vocabulary: Vocabulary) -> None:
    """By the chain rule: a shared weight's gradient is the sum over its copies, a factor's goes through the product."""
    plain: Any = model.multiplied_out()
    torch.testing.assert_close(loss_of(plain, vocabulary), loss_of(model, vocabulary))
    # An untied output has a parameter of its own in the plain model.
    expected, ours = gradients(plain, vocabulary), gradients(model, vocabulary)
    layers = list(model.model.encoder.layers)
    for name in ours:
        if name.startswith("model.shared.") or "projection" in name:
            continue
        copies = [name]
        if name.startswith("model.encoder.layers."):
            rest = name.removeprefix("model.encoder.layers.").partition(".")[2]
            first = int(name.split(".")[3])
            same = [number for number, layer in enumerate(layers) if layer is layers[first]]
            copies = [f"model.encoder.layers.{number}.{rest}" for number in same]
        total = torch.stack([expected[copy] for copy in copies]).sum(0)
        torch.testing.assert_close(ours[name], total, rtol=1e-4, atol=1e-4)
    shared = model.model.shared
    if hasattr(shared, "pieces"):
        table = expected["model.shared.weight"]
        if shared.output_projection is None:
            rows = table @ shared.projection.T
        else:
            out = expected["lm_head.weight"]
            rows = table @ shared.projection.T + out @ shared.output_projection.T
            torch.testing.assert_close(ours["output_projection"], shared.pieces.T @ out, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(ours["model.shared.pieces"], rows, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(ours["projection"], shared.pieces.T @ table, rtol=1e-4, atol=1e-4)


def test_checkpoint_opens_as_a_plain_model_of_the_same_function(
    model: Any, vocabulary: Vocabulary, tmp_path: Path
) -> None:
    save_checkpoint(model, vocabulary, tmp_path / "checkpoint")
    loaded: Any = load_plain(tmp_path / "checkpoint")
    source, before, _ = batch(vocabulary)
    model.train(False)
    with torch.no_grad():
        ours, theirs = (found(input_ids=source, decoder_input_ids=before).logits for found in (model, loaded))
    torch.testing.assert_close(theirs, ours)
    assert not isinstance(loaded, VariantModel)
    generated = [found.generate(source, num_beams=1, max_length=12) for found in (model, loaded)]
    assert torch.equal(*generated)
    stored = load_checkpoint(tmp_path / "checkpoint")
    assert stored.config.encoder_layers == 5
    export(tmp_path / "checkpoint", tmp_path / "pack", precision="int8")


def test_tables_of_pieces_are_adams_and_projections_muons(model: Any) -> None:
    parameters = trained_parameters(model)
    matrices = {name for name, value in parameters.items() if is_matrix(name, value)}
    assert {name for name in parameters if "projection" in name} <= matrices
    assert not any("shared" in name for name in matrices)


def test_a_run_of_a_variant_resumes_to_the_same_weights(vocabulary: Vocabulary, tmp_path: Path) -> None:
    settings = TrainSettings(
        steps=6, batch_tokens=128, max_tokens=32, accumulation=2, warmup_steps=2, schedule="constant", optimizer="muon"
    )
    settings = dataclasses.replace(settings, threads=1, precision="fp32", save_every=3, ema_decay=0.9)
    dataset = toy_dataset(vocabulary, toy_pairs(60))
    make = maker(Variant(factor=8, encoder_sets=1))
    jobs = [
        dataclasses.replace(job_for(dataclasses.replace(settings, steps=steps), vocabulary), make=make)
        for steps in (6, 3)
    ]
    found = train(jobs[0], dataset, tmp_path / "straight")
    assert found["parameters"] == count(SHAPE, vocabulary.size, Variant(factor=8, encoder_sets=1))
    train(jobs[1], dataset, tmp_path / "resumed")
    train(jobs[0], dataset, tmp_path / "resumed")
    first, second = (load_plain(tmp_path / name / "checkpoint").state_dict() for name in ("straight", "resumed"))
    assert all(torch.equal(first[name], value) for name, value in second.items())
    assert not torch.equal(first["model.shared.weight"], make(SHAPE, vocabulary, seed=1).model.shared.weight)


def test_bits_are_those_of_transformers_loss(vocabulary: Vocabulary) -> None:
    from mobilenmt.compression.train.devset import DevSet

    made: Any = make_student(SHAPE, vocabulary, seed=2)
    pairs = toy_pairs(9)
    nats = 0.0
    for source, target in pairs:
        ids, labels = ([*vocabulary.encode_batch([text])[0], vocabulary.eos] for text in (source, target))
        with torch.no_grad():
            logits = made(
                input_ids=torch.tensor([ids]), decoder_input_ids=torch.tensor([[vocabulary.pad, *labels[:-1]]])
            ).logits[0, :, : vocabulary.pad]
        nats += float(torch.nn.functional.cross_entropy(logits, torch.tensor(labels), reduction="sum"))
    characters = sum(len(target) for _, target in pairs)
    sources, targets = zip(*pairs, strict=True)
    found = bits_per_character(made, vocabulary, [DevSet("toy", sources, targets)], tokens=20)
    assert found == {"toy": pytest.approx(nats / characters / 0.6931472, rel=1e-4)}


def test_the_study_compares_equal_bytes(tmp_path: Path) -> None:
    study = load_study(tmp_path)
    assert {item.principle for item in study.comparisons} == {1, 2, 3, 4}
    assert {path.parent.name for path in study.dev} == {"dev"}  # never a test set
    sizes = {name: configuration.parameters for name, configuration in study.configurations.items()}
    assert max(sizes.values()) <= 1.02 * min(sizes.values())
    named = {name for item in study.comparisons for name in (item.better, item.worse)}
    assert named == set(sizes)
    assert all(f"| `{name}` |" in (ROOT / "examples" / "paper" / "README.md").read_text() for name in sizes)
    big = dataclasses.replace(study.configurations["base"], vocabulary=3000)
    with pytest.raises(RecipeError, match="more than 2% apart"):
        dataclasses.replace(study, configurations={**study.configurations, "dropout": big})
    with pytest.raises(RecipeError, match="no configuration is called 'huge'"):
        dataclasses.replace(study, comparisons=(Comparison(1, "larger is better", "huge", "base"),))
    with pytest.raises(RecipeError, match="steps is missing"):
        dataclasses.replace(study, training=dataclasses.replace(study.training, steps=None))


def test_verdicts_need_every_run_ahead_of_every_other() -> None:
    assert outcome.verdict([2.0, 3.0], [1.0, 1.9], 1) == "held"
    assert outcome.verdict([2.0, 3.0], [1.0, 1.9], -1) == "the reverse"
    assert outcome.verdict([2.0, 3.0], [1.0, 2.5], 1) == "within the spread"
    assert outcome.verdict([2.0, 3.0], [2.0, 1.0], 1) == "within the spread"
    assert outcome.verdict([5.0], [1.0, 2.0], 1) == outcome.verdict([], [], 1) == "too few runs"


def summary(bleu: float, bits: float) -> dict[str, Any]:
    return {"steps": 10, "scores": {"one": {"bleu": bleu, "chrf": 30.0, "bits": bits}}}


def small_study(tmp_path: Path) -> Study:
    shape = StudentShape(16, 2, 1, 2, 2, 32, 32)
    study = load_study(tmp_path)
    plain, other = Configuration("plain", 100, shape), Configuration("wetter", 100, shape, dropout=0.1)
    return dataclasses.replace(
        study,
        dev=(Path("one.tsv"),),
        training=dataclasses.replace(study.training, steps=10),
        configurations={"a": plain, "b": other, "c": dataclasses.replace(plain, title="twin")},
        comparisons=(Comparison(4, "dry beats wet", "a", "b"), Comparison(3, "twins", "a", "c")),
    )


def test_tables_points_and_plot(tmp_path: Path) -> None:
    study = small_study(tmp_path)
    results: outcome.Results = {
        "a": {1: summary(4.0, 2.0), 2: summary(6.0, 2.2)},
        "b": {1: summary(3.0, 1.8), 2: summary(2.0, 1.9)},
        "c": {1: summary(5.5, 2.1)},
    }
    told = outcome.write_outcome(study, results, tmp_path / "work")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in told.splitlines() if "`" in line]
    assert rows[0][3:] == ["2", "5.00 ± 1.41", "30.00 ± 0.00", "2.100 ± 0.141"]
    assert rows[2][3:] == ["1", "5.50 (one seed)", "30.00 (one seed)", "2.100 (one seed)"]
    assert rows[3] == [
        *("4", "dry beats wet", "`a`, `b`"),
        *("held (+2.50)", "within the spread (+0.00)", "the reverse (-0.250)"),
    ]
    assert rows[4][3:] == ["too few runs (-0.50)", "too few runs (+0.00)", "too few runs (-0.000)"]
    points = json.loads((tmp_path / "work" / "points.json").read_text())
    assert points["format"] == 1
    assert [(point["bleu"], point.get("deviation")) for point in points["points"]] == [(5.0, 1.414), (5.5, None)]
    assert points["points"][0]["shape"]["encoder_layers"] == 2 and points["points"][0]["vocabulary"] == 100
    assert json.loads((tmp_path / "work" / "results.json").read_text())["comparisons"][0]["bleu"]["verdict"] == "held"
    assert (tmp_path / "work" / "results.png").read_bytes().startswith(b"\x89PNG")


STUDY = """
counted_in = 420
dev = ["dev.tsv"]

[corpus]
min_pairs = 1
held_out = ["dev.tsv"]
[[corpus.sources]]
paths = ["train.tsv.xz"]

[share]
"*" = 0.9

[teacher]
checkpoint = "PACK"
search = "greedy"
threads = 1

[training]
steps = 3
batch_tokens = 512
accumulation = 1
warmup_steps = 2
optimizer = "muon"
threads = 1
device = "cpu"

[[comparisons]]
principle = 1
finding = "small beats factorized"
better = "base"
worse = "factorized"

[[comparisons]]
principle = 4
finding = "a teacher helps"
better = "distilled"
worse = "base"
"""
CONFIGURATION = """
title = "{name}"
vocabulary = {vocabulary}
text = "{text}"

[shape]
d_model = 32
encoder_layers = 2
decoder_layers = 1
encoder_attention_heads = 4
decoder_attention_heads = 4
encoder_ffn_dim = 64
decoder_ffn_dim = 64
max_position_embeddings = 128

[variant]
factor = {factor}
"""


@pytest.fixture
def small(tmp_path: Path, tiny_pack: Path) -> Path:
    """A study of three configurations on a made-up text."""
    (tmp_path / "configurations").mkdir()
    (tmp_path / "paper.toml").write_text(STUDY.replace("PACK", str(tiny_pack)), encoding="utf-8")
    for name, vocabulary, text, factor in (
        ("base", 420, "references", 0),
        ("factorized", 540, "references", 23),
        ("distilled", 420, "teacher", 0),
    ):
        written = CONFIGURATION.format(name=name, vocabulary=vocabulary, text=text, factor=factor)
        (tmp_path / "configurations" / f"{name}.toml").write_text(written, encoding="utf-8")
    pairs = make_pairs(640)
    with lzma.open(tmp_path / "train.tsv.xz", "wt", encoding="utf-8") as stream:
        stream.write("".join(f"{source}\t{target}\tmade\n" for source, target in pairs[:600]))
    write_tsv(tmp_path / "dev.tsv", pairs[600:])
    return tmp_path


def start(folder: Path, *more: str) -> int:
    study = ["--study", str(folder / "paper.toml"), "--data", str(folder), "--work", str(folder / "work")]
    return paper.main([*study, *more])


def test_the_whole_study_runs_goes_on_and_skips_what_is_done(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert start(small, "--only", "1", "--seeds", "1") == 0
    runs = small / "work" / "runs"
    assert {path.name for path in runs.iterdir()} == {"base-1", "factorized-1"}
    before = {path: path.stat().st_mtime_ns for path in runs.rglob("*") if path.is_file() and path.name != ".lock"}
    assert start(small, "--seeds", "1") == 0
    assert before == {path: path.stat().st_mtime_ns for path in before}
    results = json.loads((small / "work" / "results.json").read_text(encoding="utf-8"))
    assert {name: list(one["runs"]) for name, one in results["configurations"].items()} == {
        "base": ["1"],
        "distilled": ["1"],
        "factorized": ["1"],
    }
    for one in results["configurations"].values():
        assert one["runs"]["1"]["parameters"] == one["bytes"] and one["runs"]["1"]["steps"] == 3
    epochs = {name: one["runs"]["1"]["epochs"] for name, one in results["configurations"].items()}
    assert epochs["factorized"] == pytest.approx(epochs["base"], rel=0.1)  # as many sentences, of fewer tokens
    tokens = {name: one["runs"]["1"]["tokens"] for name, one in results["configurations"].items()}
    assert tokens["factorized"] < 0.9 * tokens["base"]
    assert "too few runs" in (small / "work" / "results.md").read_text(encoding="utf-8")
    capsys.readouterr()
    assert start(small, "--report") == 0
    assert "a teacher helps" in capsys.readouterr().out
    assert start(small, "--seeds", "1", "--updates", "4") == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "steps" in error and "base-1" in error


def test_wrong_orders_get_one_line(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for more, told in (
        (["--only", "7"], "'7' is neither a principle nor one of base, factorized, distilled"),
        (["--seeds", "0"], "--seeds: expected at least 1"),
        (["--updates", "0"], "training.steps: must be at least 1"),
        (["--study", str(small / "nothing.toml")], "nothing.toml: cannot be read"),
    ):
        assert start(small, *more) == 1
        error = capsys.readouterr().err
        assert told in error and error.count("\n") == 1


def test_told_to_stop_it_says_how_to_go_on(
    small: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(self: Trials, name: str, seed: int) -> dict[str, Any]:
        raise StoppedError("stopped by SIGTERM after update 1 of 3: run the same command again to go on", 143)

    monkeypatch.setattr(Trials, "run", stopped)
    assert start(small) == 143
    assert (
        capsys.readouterr().err
        == "paper: stopped by SIGTERM after update 1 of 3: run the same command again to go on\n"
    )
