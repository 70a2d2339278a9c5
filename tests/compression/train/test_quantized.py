"""Training with the pack's rounding simulated: what passes read, what gradients are, and what is kept of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

import native_reference
from mobilenmt.compression.chain.chain import Chain
from mobilenmt.compression.chain.recipe import load_recipe
from mobilenmt.compression.core.errors import RecipeError, TrainingError
from mobilenmt.compression.core.pack_forms import PackForms
from mobilenmt.compression.core.settings import from_mapping
from mobilenmt.compression.train.devset import DevEvaluator, DevSet
from mobilenmt.compression.train.forward import hidden_states
from mobilenmt.compression.train.quantized.rounding import round_clipped, round_rows
from mobilenmt.compression.train.quantized.simulation import RANGES, Simulation
from mobilenmt.compression.train.resume import load_state
from mobilenmt.compression.train.runlog import read_log
from mobilenmt.compression.train.settings import DistillSettings
from mobilenmt.compression.train.stage import student_job
from mobilenmt.compression.train.student import load_weights, make_student, save_checkpoint, trained_parameters
from mobilenmt.compression.train.train import train
from mobilenmt.compression.vocabulary.vocabulary import Vocabulary
from mobilenmt.export.checkpoint import load_checkpoint
from mobilenmt.export.export import export, write_graphs
from mobilenmt.export.quantize.quantizer import Quantizer
from mobilenmt.export.quantize.settings import Quantization
from mobilenmt.export.shortlist import Shortlist
from mobilenmt.export.writer import PackWriter
from native_reference import Reference
from training_data import SHAPE, job_for, toy_dataset, toy_pairs, toy_vocabulary

Floats = npt.NDArray[np.float32]
QUICK: dict[str, Any] = {
    "steps": 6,
    "batch_tokens": 256,
    "accumulation": 2,
    "max_tokens": 16,
    "learning_rate": 2e-3,
    "warmup_steps": 2,
    "schedule": "constant",
    "label_smoothing": 0.0,
    "precision": "fp32",
    "ema_decay": 0.5,
    "log_every": 1,
    "save_seconds": 0.0,
    "save_every": 3,
    "threads": 1,
}


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Vocabulary:
    return toy_vocabulary(tmp_path_factory.mktemp("vocabulary"))


@pytest.fixture
def student(vocabulary: Vocabulary) -> Any:
    model = make_student(SHAPE, vocabulary, seed=1)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for value in trained_parameters(model).values():
            value += 0.05 * torch.randn(value.shape, generator=generator)  # biases and norms are 0 and 1 at first
        model.model.shared.weight[-1].zero_()
    model.eval()
    return model


def values(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(3), requires_grad=True)


# -- rounding and its gradients --------------------------------------------------------------------------------------


@pytest.mark.parametrize("positive", [False, True])
def test_rows_are_rounded_as_the_engine_does_and_gradients_pass(positive: bool) -> None:
    x = values(2, 3, 50)
    with torch.no_grad():
        if positive:
            x.relu_()
        x[1, 1] = 0.0
    found = round_rows(x, positive=positive)
    expected = []
    for row in x.detach().reshape(-1, 50).numpy():
        integers, scale = native_reference.to_bytes(row, 255 if positive else 127)
        expected.append(integers.astype(np.float32) * scale)
    assert np.array_equal(found.detach().reshape(-1, 50).numpy(), np.stack(expected))
    assert (found - x).abs().max() > 1e-4
    weights = torch.randn(x.shape, generator=torch.Generator().manual_seed(4))
    assert torch.equal(torch.autograd.grad((found * weights).sum(), x)[0], weights)


def test_rows_in_bf16_are_those_of_fp32_as_near_as_bf16_can_say() -> None:
    x = values(300, 4000).to(torch.bfloat16)  # more than one chunk
    found = round_rows(x)
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, round_rows(x.float()).to(torch.bfloat16))


@pytest.mark.parametrize("positive", [False, True])
def test_gradients_of_clipped_ranges_are_those_of_learned_step_sizes(positive: bool) -> None:
    """Against torch's own gradients of the same quantizer, written with detached terms as the paper's appendix has
    it."""
    x, log_range = values(40, 30), torch.tensor(0.3, requires_grad=True)
    weights = torch.randn(x.shape, generator=torch.Generator().manual_seed(4))
    low, high = (0, 255) if positive else (-127, 127)
    factor = (30 * high) ** -0.5
    step = log_range.exp() / high
    step = step * factor + (step * (1 - factor)).detach()
    clipped = (x / step).clamp(low, high)
    expected = (clipped + (clipped.round() - clipped).detach()) * step
    found = round_clipped(x, log_range, positive=positive)
    torch.testing.assert_close(found, expected)
    assert (
        0.02 < float((found.detach().abs() >= log_range.exp().detach() * 0.999).float().mean()) < 0.5
    )  # some are clipped
    first, second = (torch.autograd.grad((side * weights).sum(), [x, log_range]) for side in (found, expected))
    torch.testing.assert_close(first[0], second[0])
    torch.testing.assert_close(first[1], second[1], rtol=1e-3, atol=1e-6)
    assert first[1] != 0


@pytest.mark.parametrize("form", ["int8", "int4-16"])
def test_gradients_are_those_at_the_rounded_weights(student: Any, form: str) -> None:
    """With activations as they are, the simulation is the plain pass of a model whose weights are the rounded ones."""
    simulation = Simulation(student, PackForms(Quantization(form=form)), torch.float32, "none")
    simulation.refresh()
    parameters = trained_parameters(student)
    given = torch.tensor([[3, 4, 5, 9, 0]]), None, torch.tensor([[student.config.pad_token_id, 7, 8]])
    weights = torch.randn((1, 3, SHAPE.d_model), generator=torch.Generator().manual_seed(4))

    def gradients(make: Any) -> tuple[torch.Tensor, ...]:
        states = hidden_states(student, *given, torch.float32, make)
        return torch.autograd.grad((states * weights).sum(), list(parameters.values()))

    found, plain = gradients(simulation.make), gradients(None)
    with simulation.applied(), torch.enable_grad():
        expected = gradients(None)
    for name, one, other, unrounded in zip(parameters, found, expected, plain, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5, msg=name)
        assert one.dim() == 1 or not torch.allclose(one, unrounded, rtol=1e-4, atol=1e-5), name


# -- the same numbers as in the pack ---------------------------------------------------------------------------------


def some_shortlist(vocabulary: Vocabulary) -> Shortlist:
    lexical = np.random.default_rng(0).integers(2, vocabulary.size - 1, (vocabulary.size, 4))
    return Shortlist(np.arange(0, 30), lexical)


@pytest.mark.parametrize("shortlist", [False, True])
@pytest.mark.parametrize(
    "quantization",
    [
        Quantization(),
        Quantization(form="int8-wide"),
        Quantization(form="int4-32"),
        Quantization(form="int4-16", clipping="mse"),
        Quantization(clipping="percentile", percentile=99.0, granularity="tensor"),
        Quantization(form="int4-16", matrices={"*.fc2": "int8", "*encoder_attn*": "fp32"}),
    ],
    ids=lambda value: "-".join(map(str, value.to_dict().values())),
)
def test_weights_are_those_that_the_exporter_stores(
    student: Any,
    vocabulary: Vocabulary,
    tmp_path: Path,
    quantization: Quantization,
    shortlist: bool,
) -> None:
    save_checkpoint(student, vocabulary, tmp_path / "checkpoint")
    quantizer = Quantizer(quantization)
    with PackWriter(tmp_path / "en-de") as writer:
        candidates = some_shortlist(vocabulary) if shortlist else None
        write_graphs(load_checkpoint(tmp_path / "checkpoint"), "int8", candidates, writer, quantizer)
    simulation = Simulation(student, PackForms(quantization, shortlist), torch.float32)
    simulation.refresh()
    parameters = simulation.weights.matrices
    assert set(quantizer.forms) == set(parameters)
    for name, members in parameters.items():
        parts = [simulation.weights.value(member) for member in members]
        if quantization.form_of(name).kind == "fp32":
            assert parts == [None] * len(members)
            continue
        found = torch.cat([part for part in parts if part is not None]).numpy()
        assert np.array_equal(found, quantizer._made[name].weights()), name
        assert not np.array_equal(found, torch.cat(members).detach().numpy()), name


def unrounded_look(q: Floats, keys: Floats, values: Floats, factor: np.float32) -> tuple[Floats, Floats]:
    """``native_reference.look`` without the rounding of attention's weights to 14 bits."""
    query, query_scale = native_reference.to_bytes(q)
    key_bytes, key_scales = zip(*map(native_reference.to_bytes, keys), strict=True)
    value_bytes, value_scales = zip(*map(native_reference.to_bytes, values), strict=True)
    scales = np.array(key_scales, np.float32) * (query_scale * factor)
    scores = (np.stack(key_bytes) @ query).astype(np.float32) * scales
    powers = native_reference.power_below_one(scores - scores.max())
    powers = powers / native_reference.total(powers)
    return (powers * np.array(value_scales, np.float32)) @ np.stack(value_bytes).astype(np.float32), powers


def test_logits_are_those_of_the_engine(
    student: Any, vocabulary: Vocabulary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reference is the C core to the bit (tests/runtime/native). What is not simulated is the rounding of
    attention's weights to 14 bits: without it logits are the same to a few millionths, but where an activation lies
    between two integers so closely that the order of torch's sums decides, which changes with its threads; with it more
    activations fall on the neighbouring integer."""
    save_checkpoint(student, vocabulary, tmp_path / "checkpoint")
    pack = tmp_path / "en-de"
    export(tmp_path / "checkpoint", pack, source_language="en", target_language="de")
    simulation = Simulation(student, PackForms(), torch.float32)
    simulation.refresh()
    target = [vocabulary.pad, 4, 5, 6, 7, 3, 9]

    def engine(source: list[int]) -> Floats:
        reference = Reference((pack / "native.bin").read_bytes(), (pack / "weights.bin").read_bytes())
        reference.encode(source)
        return np.stack([reference.step(tuple(target[: end + 1])).logits for end in range(len(target))])

    def simulated(source: list[int], make: Any) -> Floats:
        with torch.no_grad():
            states = hidden_states(student, torch.tensor([source]), None, torch.tensor([target]), torch.float32, make)
            if make is None:
                return (states[0] @ student.model.shared.weight.t()).numpy()
            return (simulation.read_output(states)[0] @ simulation.table().t()).numpy()

    same = []
    for source in ([3, 4, 5, 6, 7, 8, 9, 3, 0], [5, 9, 0], [7, 7, 3, 12, 11, 0]):
        found, plain = simulated(source, simulation.make), simulated(source, None)
        with monkeypatch.context() as patch:
            patch.setattr(native_reference, "look", unrounded_look)
            apart = np.abs(found - engine(source)).max(axis=1)
        same.extend(apart < 2e-5)
        assert apart.max() < 0.02
        exact = engine(source)
        assert np.abs(plain - exact).max() > 0.03
        assert np.square(found - exact).mean() < 0.2 * np.square(plain - exact).mean()
    assert np.mean(same) > 0.6


# -- training --------------------------------------------------------------------------------------------------------


def settings_with(**changes: Any) -> DistillSettings:
    return DistillSettings(**{**QUICK, **changes})


@pytest.mark.parametrize(
    "changes",
    [{"quantization_aware": "int4-16"}, {"quantization_aware": True, "quantization_activations": "clipped"}],
    ids=["rows", "clipped"],
)
def test_a_run_that_was_stopped_goes_on_to_the_same_files(
    vocabulary: Vocabulary, tmp_path: Path, changes: dict[str, Any]
) -> None:
    dataset = toy_dataset(vocabulary, toy_pairs(60))
    job = job_for(settings_with(quantization_from=2, **changes), vocabulary)
    train(job, dataset, tmp_path / "whole")
    train(job_for(settings_with(quantization_from=2, **{**changes, "steps": 3}), vocabulary), dataset, tmp_path / "cut")
    (tmp_path / "cut" / "result.json").unlink()
    train(job, dataset, tmp_path / "cut")
    for name in ("model.safetensors", RANGES):
        whole, cut = (tmp_path / run / "checkpoint" / name for run in ("whole", "cut"))
        assert whole.exists() == (name != RANGES or "quantization_activations" in changes)
        assert not whole.exists() or whole.read_bytes() == cut.read_bytes()
    assert [entry["loss"] for entry in read_log(tmp_path / "whole" / "log.jsonl")] == [
        entry["loss"] for entry in read_log(tmp_path / "cut" / "log.jsonl")
    ]
    with pytest.raises(TrainingError, match=r"made with another configuration: .*form"):
        other = settings_with(quantization_from=2, **{**changes, "quantization_aware": "int4-32", "steps": 7})
        train(job_for(other, vocabulary), dataset, tmp_path / "cut")


def test_before_it_begins_training_is_as_usual(vocabulary: Vocabulary, tmp_path: Path) -> None:
    dataset = toy_dataset(vocabulary, toy_pairs(60))
    losses = {}
    for name, changes in (("plain", {}), ("rounded", {"quantization_aware": "int4-16", "quantization_from": 4})):
        train(job_for(settings_with(**changes), vocabulary), dataset, tmp_path / name)
        losses[name] = [entry["loss"] for entry in read_log(tmp_path / name / "log.jsonl")]
    assert losses["rounded"][:3] == losses["plain"][:3]
    assert losses["rounded"][3] != losses["plain"][3]


def test_what_is_kept_are_the_weights_before_rounding_and_what_is_evaluated_is_rounded(
    vocabulary: Vocabulary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.Tensor] = []

    def translate(self: DevEvaluator, model: Any, *share: int) -> dict[int, str]:
        seen.append(model.model.shared.weight.detach().clone())
        return dict.fromkeys(range(2), "eins")

    monkeypatch.setattr(DevEvaluator, "translate", translate)
    (tmp_path / "dev.tsv").write_text("one\teins\ntwo\tzwei\n", encoding="utf-8")
    dataset = toy_dataset(vocabulary, toy_pairs(60))
    settings = settings_with(quantization_aware="int4-16", dev=(tmp_path / "dev.tsv",))
    train(job_for(settings, vocabulary), dataset, tmp_path / "run")
    student = make_student(SHAPE, vocabulary, seed=1)
    load_weights(student, tmp_path / "run" / "checkpoint", vocabulary)
    state = load_state(tmp_path / "run" / "last")
    assert state is not None
    assert torch.equal(student.model.shared.weight, state.tensors["average"]["model.shared.weight"])
    assert not torch.equal(student.model.shared.weight, seen[-1])
    simulation = Simulation(student, PackForms(Quantization(form="int4-16")), torch.float32)
    assert torch.equal(next(value for _, value in simulation.weights.exact()), seen[-1])


def test_learned_ranges_are_written_by_the_names_of_matrices(vocabulary: Vocabulary, tmp_path: Path) -> None:
    dataset = toy_dataset(vocabulary, toy_pairs(60))
    settings = settings_with(quantization_aware=True, quantization_activations="clipped", steps=3)
    train(job_for(settings, vocabulary), dataset, tmp_path / "run")
    ranges = json.loads((tmp_path / "run" / "checkpoint" / RANGES).read_text(encoding="utf-8"))["inputs"]
    names = set(Simulation(make_student(SHAPE, vocabulary, seed=1), PackForms(), torch.float32).weights.matrices)
    assert set(ranges) == names - {"source_embedding"} | {"output"}
    assert all(0.05 < value < 50 for value in ranges.values())
    state = load_state(tmp_path / "run" / "last")
    assert state is not None
    assert state.tensors["model"]["quantization.log_ranges"].std() > 0.1


def rounded_loss(checkpoint: Path, vocabulary: Vocabulary, form: str | None) -> float:
    """Nats a token of made-up sentences that were not trained on, with the weights rounded."""
    student = make_student(SHAPE, vocabulary, seed=1)
    load_weights(student, checkpoint, vocabulary)
    sources, targets = zip(*toy_pairs(100, seed=5), strict=True)
    evaluator = DevEvaluator([DevSet("dev", sources, targets)], vocabulary, SHAPE.max_position_embeddings)
    forms = PackForms(Quantization(form=form or "fp32"))
    with Simulation(student, forms, torch.float32).applied():
        loss, tokens = evaluator.loss(student, torch.float32)
    return loss / tokens


def test_the_loss_with_4_bits_falls_when_trained_with_4_bits(vocabulary: Vocabulary, tmp_path: Path) -> None:
    """More than when trained as long without rounding: of what 4 bits cost that model, a third at least is won back."""
    dataset = toy_dataset(vocabulary, toy_pairs(600))
    usual = {"batch_tokens": 512, "accumulation": 1, "save_every": 0, "save_seconds": 600.0}

    def trained(name: str, **changes: Any) -> Path:
        train(job_for(settings_with(**usual, **changes), vocabulary), dataset, tmp_path / name)
        return tmp_path / name / "checkpoint"

    first = trained("first", steps=80, learning_rate=1e-2, ema_decay=0.9, optimizer="muon", final_decay=0.3)
    more = {"steps": 25, "final_decay": 0.8, "ema_decay": 0.8, "initial": first}
    plain, aware = trained("plain", **more), trained("aware", quantization_aware="int4-32", **more)
    before, after = (rounded_loss(checkpoint, vocabulary, "int4-32") for checkpoint in (first, aware))
    exact, rounded = (rounded_loss(plain, vocabulary, form) for form in (None, "int4-32"))
    assert rounded > exact + 0.01  # so that there is something to gain
    assert after < before - 0.03
    assert after < rounded - (rounded - exact) / 3


# -- settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (
            {"quantization_aware": "int5"},
            "recipe: distill.quantization_aware: expected true or false or one of 'int8', ",
        ),
        (
            {"quantization_aware": "fp32"},
            "recipe: distill.quantization_aware: expected true or false or one of 'int8', ",
        ),
        ({"quantization_aware": 4}, "recipe: distill.quantization_aware: expected true or false or one of"),
        ({"quantization_activations": "int8"}, "distill.quantization_activations: expected one of 'rows', 'clipped', "),
        ({"quantization_from": 0}, "recipe: distill.quantization_from: must be at least 1, found 0"),
        (
            {"quantization_aware": True, "quantization_from": 11, "steps": 10},
            "recipe: distill.quantization_from: update 11 never comes, as steps is 10",
        ),
        (
            {"quantization_aware": True, "compiled": True},
            "distill.compiled: cannot be compiled with quantization",
        ),
    ],
    ids=str,
)
def test_bad_values_are_one_clear_line(raw: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError) as error:
        from_mapping(DistillSettings, raw, "recipe: distill")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("wrong", ["int5", "fp32", 4])
def test_bad_forms_are_refused_in_python(wrong: Any) -> None:
    with pytest.raises(RecipeError, match=r"^quantization_aware: "):
        DistillSettings(quantization_aware=wrong)


RECIPE = """
name = "en-de"
source_language = "en"
target_language = "de"
[[corpus.sources]]
paths = ["pairs.tsv"]
[distill]
quantization_aware = {aware}
[export]
{export}
"""


@pytest.mark.parametrize(
    ("aware", "export_section", "expected"),
    [
        ("false", "", None),
        ("true", "", PackForms(Quantization(), shortlist=True)),
        ('"int4-64"', "shortlist_sentences = 0", PackForms(Quantization(form="int4-64"))),
        (
            "true",
            'shortlist_sentences = 0\nform = "int4-32"\nmatrices = {"*.fc1" = "int8"}',
            PackForms(Quantization(form="int4-32", matrices={"*.fc1": "int8"})),
        ),
    ],
)
def test_a_recipe_simulates_the_pack_that_it_exports(
    tmp_path: Path, aware: str, export_section: str, expected: PackForms | None
) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE.format(aware=aware, export=export_section), encoding="utf-8")
    job = student_job(Chain(load_recipe(path), tmp_path / "work"))
    assert job.simulated == expected
    assert ("pack" in job.described()) == (expected is not None)


def test_a_pack_that_cannot_be_simulated(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE.format(aware="true", export='precision = "fp32"'), encoding="utf-8")
    with pytest.raises(TrainingError, match="its pack will be fp32, which rounds nothing"):
        student_job(Chain(load_recipe(path), tmp_path / "work"))
