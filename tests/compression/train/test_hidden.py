"""Hidden states of matched layers as targets: the loss and its gradient, the matches, and runs with them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch.nn import functional

from mobilenmt.compression.chain.chain import Chain
from mobilenmt.compression.chain.recipe import load_recipe
from mobilenmt.compression.core.errors import RecipeError, TrainingError
from mobilenmt.compression.train import layers
from mobilenmt.compression.train import stage as distill
from mobilenmt.compression.train.hidden.loss import HiddenTargets
from mobilenmt.compression.train.hidden.matching import (
    MATCHED,
    Match,
    evenly,
    find_match,
    of_pruned,
    projection,
    read_matches,
    weights_digest,
    write_matches,
)
from mobilenmt.compression.train.hidden.teacher import HiddenTeacher
from mobilenmt.compression.train.job import TrainingJob
from mobilenmt.compression.train.loss import LossWeights, TrainingModule
from mobilenmt.compression.train.runlog import read_log
from mobilenmt.compression.train.schedule import hidden_weight
from mobilenmt.compression.train.settings import DistillSettings, TrainSettings
from mobilenmt.compression.train.soft_targets import SoftTeacher
from mobilenmt.compression.train.student import StudentShape, make_student, save_checkpoint, trained_parameters
from mobilenmt.compression.train.tally import Tally
from mobilenmt.compression.train.update import DeviceBatch, UpdateResult
from mobilenmt.compression.vocabulary.vocabulary import Vocabulary
from training_data import SHAPE, toy_vocabulary, write_pairs

CPU = torch.device("cpu")
SMALL = StudentShape(
    d_model=24,
    encoder_layers=1,
    decoder_layers=1,
    encoder_attention_heads=4,
    decoder_attention_heads=4,
    encoder_ffn_dim=32,
    decoder_ffn_dim=32,
    max_position_embeddings=64,
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pairs, a vocabulary, and a teacher's checkpoint whose biases and norms are not those of a new model."""
    root = tmp_path_factory.mktemp("hidden")
    vocabulary = toy_vocabulary(root / "vocabulary")
    write_pairs(root / "pairs.tsv.zst", 150)
    model = make_student(SHAPE, vocabulary, seed=8)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for value in trained_parameters(model).values():
            value += 0.1 * torch.randn(value.shape, generator=generator)
        model.model.shared.weight[-1].zero_()
    save_checkpoint(model, vocabulary, root / "teacher")
    return root


def settings(root: Path, **changes: Any) -> DistillSettings:
    given: dict[str, Any] = {"max_tokens": 40, "precision": "fp32", "hidden": 1.0, "teacher": root / "teacher"}
    return DistillSettings(**{**given, **changes})


def batch(pad: int, *, padded: bool) -> Any:
    generator = torch.Generator().manual_seed(3)
    data = DeviceBatch.__new__(DeviceBatch)
    data.source = torch.randint(2, pad, (5, 7), generator=generator)
    target = torch.randint(2, pad, (5, 6), generator=generator)
    data.source_mask = data.positions = None
    data.decoder_input = torch.cat([torch.full((5, 1), pad), target[:, :-1]], 1)
    data.labels = target.reshape(-1)
    if padded:
        data.source[1, 3:] = pad
        data.source_mask = data.source != pad
        here = torch.ones(5, 6, dtype=torch.bool)
        here[2, 4:] = False
        data.positions = here.reshape(-1).nonzero().squeeze(1)
        data.labels = data.labels[data.positions]
    return data


def hidden_teacher(root: Path, shape: StudentShape, **changes: Any) -> HiddenTeacher:
    given = settings(root, **changes)
    teacher = SoftTeacher(given, Vocabulary.load(root / "vocabulary"), CPU)
    return HiddenTeacher(teacher, given, shape, lambda step: step / 10)


def run_module(module: TrainingModule, data: Any, taught: HiddenTargets | None) -> tuple[torch.Tensor, torch.Tensor]:
    given = (data.source, data.source_mask, data.decoder_input, data.positions, data.labels, None, taught)
    found: tuple[torch.Tensor, torch.Tensor] = module(*given)
    return found


# -- the loss --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["mse", "cosine"])
@pytest.mark.parametrize("padded", [False, True])
def test_it_is_zero_for_the_teacher_itself(root: Path, kind: str, padded: bool) -> None:
    from mobilenmt.compression.train.student import load_weights

    vocabulary = Vocabulary.load(root / "vocabulary")
    student = make_student(SHAPE, vocabulary, seed=1)
    module = TrainingModule(student, LossWeights(), torch.float32)
    teacher, data = hidden_teacher(root, SHAPE, hidden_loss=kind), batch(vocabulary.pad, padded=padded)
    assert float(run_module(module, data, teacher(data, 10))[1][3]) > 1.0
    load_weights(student, root / "teacher", vocabulary)
    assert float(run_module(module, data, teacher(data, 10))[1][3]) == pytest.approx(0.0, abs=1e-5)


def reference(student: Any, data: Any, taught: HiddenTargets) -> torch.Tensor:
    """The same from transformers' states, token by token."""
    out = student.model(
        input_ids=data.source,
        attention_mask=data.source_mask,
        decoder_input_ids=data.decoder_input,
        use_cache=False,
        output_hidden_states=True,
    )
    count = data.decoder_input.numel()
    inside = torch.zeros(count, dtype=torch.bool)
    inside[torch.arange(count) if data.positions is None else data.positions] = True
    masks = (
        torch.ones_like(data.source, dtype=torch.bool) if data.source_mask is None else data.source_mask,
        inside.view(data.decoder_input.shape),
    )
    total = torch.zeros(())
    sides = (out.encoder_hidden_states[1:], out.decoder_hidden_states[1:])
    for states, chosen, wanted, mask in zip(sides, taught.layers, taught.states, masks, strict=True):
        for number, goal in zip(chosen, wanted, strict=True):
            for row, column in mask.nonzero().tolist():
                own, other = states[number][row, column], goal[row, column]
                if taught.kind == "mse":
                    apart = functional.mse_loss(own, other)
                else:
                    apart = 1 - own @ other / (own.norm() * other.norm())
                total = total + apart / len(chosen)
    return total


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("by_hand", [True, False])
@pytest.mark.parametrize("kind", ["mse", "cosine"])
def test_loss_and_gradient_are_those_of_autograd(
    root: Path, kind: str, padded: bool, by_hand: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside the loss of the words, whose gradient comes through the same layers."""
    if not by_hand:  # what a GPU does
        monkeypatch.setattr(layers, "by_hand", lambda values: False)
    vocabulary = Vocabulary.load(root / "vocabulary")
    student = make_student(SHAPE, vocabulary, seed=1)
    module = TrainingModule(student, LossWeights(0.1), torch.float32)
    data = batch(vocabulary.pad, padded=padded)
    taught = hidden_teacher(root, SHAPE, hidden_loss=kind)(data, 7)
    parameters = list(trained_parameters(student).values())
    alone, _ = run_module(module, data, None)
    found, sums = run_module(module, data, taught)
    apart = reference(student, data, taught)
    assert sums[3].item() == pytest.approx(apart.item(), rel=1e-5)
    assert found.item() == pytest.approx((alone + 0.7 * apart).item(), rel=1e-5)
    wanted = torch.autograd.grad(alone + 0.7 * apart, parameters)
    for name, first, second in zip(
        trained_parameters(student), torch.autograd.grad(found, parameters), wanted, strict=True
    ):
        torch.testing.assert_close(first, second, rtol=1e-3, atol=1e-4, msg=name)


def test_bf16_is_near(root: Path) -> None:
    vocabulary = Vocabulary.load(root / "vocabulary")
    student, data = make_student(SHAPE, vocabulary, seed=1), batch(vocabulary.pad, padded=True)
    taught = hidden_teacher(root, SHAPE)(data, 10)
    exact, rough = (
        float(run_module(TrainingModule(student, LossWeights(), dtype), data, taught)[1][3])
        for dtype in (torch.float32, torch.bfloat16)
    )
    assert rough == pytest.approx(exact, rel=0.02)


# -- which states ----------------------------------------------------------------------------------------------------


def test_channels_and_layers_that_pruning_kept_are_what_is_compared(root: Path, tmp_path: Path) -> None:
    channels = list(range(1, 25))
    (tmp_path / "initial").mkdir()
    match = of_pruned({"encoder": [1], "decoder": [0]}, {"encoder": 2, "decoder": 1}, channels)
    write_matches(tmp_path / "initial", root / "teacher", match)
    teacher = hidden_teacher(root, SMALL, initial=tmp_path / "initial")
    data = batch(Vocabulary.load(root / "vocabulary").pad, padded=False)
    taught, out = teacher(data, 10), teacher.teacher.outputs(data)
    assert taught.layers == ((0,), (0,)) and "what pruning left" in teacher.told
    assert torch.equal(taught.states[0][0], out.encoder_hidden_states[2][:, :, 1:25])
    assert torch.equal(taught.states[1][0], out.decoder_hidden_states[1][:, :, 1:25])


def test_a_layer_stands_for_those_that_are_gone_behind_it() -> None:
    kept = {"encoder": [0, 2, 3], "decoder": [1]}
    found = of_pruned(kept, {"encoder": 6, "decoder": 2}, [5, 7])
    assert found == Match({"encoder": (2, 3, 6), "decoder": (2,)}, (5, 7))


def test_matches_go_through_models_that_were_pruned_before(tmp_path: Path) -> None:
    for name in ("whole", "first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_text(name)
    first = Match({"encoder": (2, 3, 6), "decoder": (1, 2)}, (0, 3, 4, 9))
    second = Match({"encoder": (1, 3), "decoder": (2,)}, (1, 2))
    write_matches(tmp_path / "first", tmp_path / "whole", first)
    (tmp_path / "first" / "model.safetensors").write_text("first, trained")
    write_matches(tmp_path / "second", tmp_path / "first", second)
    assert read_matches(tmp_path / "second") == {
        weights_digest(tmp_path / "first"): second,
        weights_digest(tmp_path / "whole"): Match({"encoder": (2, 6), "decoder": (2,)}, (3, 4)),
    }


def test_other_models_are_matched_evenly_through_a_fixed_projection(root: Path, tmp_path: Path) -> None:
    depths = {"encoder": 3, "decoder": 2}, {"encoder": 6, "decoder": 5}
    assert evenly(*depths) == Match({"encoder": (2, 4, 6), "decoder": (2, 5)})
    assert evenly(depths[1], depths[0]).layers["encoder"] == (1, 1, 2, 2, 2, 3)
    assert find_match(None, root / "teacher", *depths) == evenly(*depths)
    for widths in ((32, 24), (24, 32)):
        drawn = projection(*widths)
        assert drawn.shape == widths and torch.equal(drawn, projection(*widths))
        square = drawn.T @ drawn if widths[0] > widths[1] else drawn @ drawn.T
        torch.testing.assert_close(square, torch.eye(24), rtol=0, atol=1e-5)
    assert torch.equal(projection(8, 8), torch.eye(8))
    teacher = hidden_teacher(root, SMALL)
    assert teacher.told.endswith("32 channels projected to 24")
    data = batch(Vocabulary.load(root / "vocabulary").pad, padded=False)
    assert teacher(data, 0) is None
    wanted = teacher.teacher.outputs(data).encoder_hidden_states[2] @ projection(32, 24)
    torch.testing.assert_close(teacher(data, 10).states[0][0], wanted)


def test_every_other_layer_is_counted_from_the_last(root: Path) -> None:
    assert hidden_teacher(root, SHAPE).layers == ((0, 1), (0,))
    assert hidden_teacher(root, SHAPE, hidden_every=2).layers == ((1,), (0,))


def test_training_carries_the_matches_along(root: Path, tmp_path: Path) -> None:
    save_checkpoint(
        make_student(SHAPE, Vocabulary.load(root / "vocabulary"), seed=3),
        Vocabulary.load(root / "vocabulary"),
        tmp_path / "initial",
    )
    write_matches(
        tmp_path / "initial", root / "teacher", evenly({"encoder": 2, "decoder": 1}, {"encoder": 2, "decoder": 1})
    )
    start(root, tmp_path / "run", initial=tmp_path / "initial", steps=2)
    assert read_matches(tmp_path / "run" / "checkpoint") == read_matches(tmp_path / "initial") != {}


def test_a_damaged_match_is_told(root: Path, tmp_path: Path) -> None:
    depth = {"encoder": 2, "decoder": 1}
    (tmp_path / MATCHED).write_text('{"models": [{"weights": 5}]}')
    with pytest.raises(TrainingError, match=r"matched\.json is damaged"):
        find_match(tmp_path, root / "teacher", depth, depth)
    digest = weights_digest(root / "teacher")
    model = {"weights": digest, "channels": None, "encoder": [3], "decoder": [1]}
    (tmp_path / MATCHED).write_text(json.dumps({"models": [model]}))
    with pytest.raises(TrainingError, match="of another shape; prune the model again"):
        find_match(tmp_path, root / "teacher", depth, depth)


# -- settings and runs -----------------------------------------------------------------------------------------------


def test_the_weight_follows_its_schedule(root: Path) -> None:
    def over(schedule: Any) -> list[float]:
        return [hidden_weight(settings(root, hidden=2.0, hidden_schedule=schedule), step, 4) for step in (1, 3, 4)]

    assert over("constant") == [2.0, 2.0, 2.0]
    assert over("linear") == [2.0, 1.0, 0.5]
    assert over("cosine") == pytest.approx([2.0, 1.0, 1 - 0.5**0.5])


def test_bad_settings_are_told(root: Path, tmp_path: Path) -> None:
    for changes, told in (
        ({"hidden": -1.0}, "hidden: must be 0 or more"),
        ({"hidden": float("nan")}, "hidden: must be 0 or more"),
        ({"hidden_every": 0}, "hidden_every: must be from 1"),
        ({"teacher": None}, "hidden states are the teacher's; name its checkpoint in teacher"),
    ):
        with pytest.raises(RecipeError, match=told):
            settings(root, **changes)
    folder = tmp_path / "teacher"
    vocabulary = toy_vocabulary(tmp_path / "other")
    save_checkpoint(make_student(SHAPE, vocabulary, seed=8), vocabulary, folder)
    file = folder / "tokenizer.json"
    file.write_text(file.read_text(encoding="utf-8").replace("▁house", "▁hose"), encoding="utf-8")
    with pytest.raises(TrainingError, match="has another vocabulary"):
        start(root, tmp_path / "run", teacher=folder)


def start(root: Path, folder: Path, shape: StudentShape = SHAPE, **changes: Any) -> Any:
    quick = {
        "steps": 12,
        "batch_tokens": 400,
        "accumulation": 2,
        "warmup_steps": 4,
        "log_every": 3,
        "threads": 1,
        "device": "cpu",
        "dropout": 0.1,
        "save_every": 4,
    }
    given = settings(root, **{**quick, **changes})
    return distill.run(TrainingJob(shape, given, root / "pairs.tsv.zst", root / "vocabulary", seed=4), folder)


def logged(folder: Path) -> list[dict[str, Any]]:
    left_out = ("seconds", "tokens_per_second")
    return [{key: value for key, value in entry.items() if key not in left_out} for entry in entries(folder)]


def entries(folder: Path) -> Sequence[dict[str, Any]]:
    return [entry for entry in read_log(folder / "log.jsonl") if entry["kind"] == "train"]


def test_states_come_near_the_teachers(root: Path, tmp_path: Path) -> None:
    """From a distance that training without them leaves."""
    start(root, tmp_path / "with", steps=60, hidden=3.0, hidden_schedule="constant", learning_rate=5e-3)
    start(root, tmp_path / "hardly", steps=60, hidden=1e-9, hidden_schedule="constant", learning_rate=5e-3)
    near, far = (entries(tmp_path / name)[-1]["hidden"] for name in ("with", "hardly"))
    assert near < 0.6 * far
    assert entries(tmp_path / "with")[-1]["hidden_weight"] == 3.0


def test_a_state_from_before_there_were_hidden_states_goes_on() -> None:
    tally = Tally(TrainSettings(), Accelerator(cpu=True))
    old = {"tokens": 9, "skipped": 0, "bad_in_a_row": 0, "window": [8.0, 12.0, 4.0], "window_tokens": 4}
    tally.restore(dict(old), main=True)
    assert (tally.entry(0.5)["nll"], tally.tokens) == (2.0, 9)
    assert "hidden" not in tally.entry(0.5)


def test_in_a_recipe_the_teacher_is_the_one_trained_there(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        'name = "x"\nsource_language = "en"\ntarget_language = "de"\n[[corpus.sources]]\npaths = ["a.tsv"]\n'
        "[teacher_model]\n[distill]\nhidden = 0.5\n"
    )
    chain = Chain(load_recipe(recipe), tmp_path / "work")
    assert distill.distill_settings(chain).teacher == chain.teacher_checkpoint.absolute()


class Killed(BaseException):
    pass


@pytest.mark.parametrize("soft_targets", ["stored", "live"])
def test_a_killed_run_goes_on_alike(
    root: Path, tmp_path: Path, soft_targets: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = {"word_level": 0.5, "soft_targets": soft_targets}
    start(root, tmp_path / "whole", SMALL, **both)
    real = Tally.add

    def dying(self: Tally, step: int, result: UpdateResult, tokens: int) -> None:
        if step == 10:
            raise Killed
        real(self, step, result, tokens)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Tally, "add", dying)
        start(root, tmp_path / "run", SMALL, **both)
    start(root, tmp_path / "run", SMALL, **both)
    assert logged(tmp_path / "run") == logged(tmp_path / "whole")
    weights = [(tmp_path / name / "checkpoint" / "model.safetensors").read_bytes() for name in ("run", "whole")]
    assert weights[0] == weights[1]
