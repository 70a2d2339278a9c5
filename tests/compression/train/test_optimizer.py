"""Optimizers: Muon against the singular value decomposition, and what a run keeps of them."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import train_worker
from mobilenmt.compression.core.errors import TrainingError
from mobilenmt.compression.train import train as training
from mobilenmt.compression.train.resume import is_state, open_state
from mobilenmt.compression.train.schedule import Optimizer
from mobilenmt.compression.train.settings import TrainSettings
from mobilenmt.compression.train.student import StudentShape, check_state, make_student
from train_worker import run
from training_data import SHAPE, job_for, toy_vocabulary

pytestmark = pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch is older than 2.9")


def optimizer(**settings: Any) -> Optimizer:
    generator = torch.Generator().manual_seed(2)
    shapes = {"model.shared.weight": (9, 8), "layer.fc1.weight": (24, 8), "layer.fc1.bias": (24,)}
    parameters = {name: torch.nn.Parameter(torch.randn(shape, generator=generator)) for name, shape in shapes.items()}
    for value in parameters.values():
        value.grad = torch.randn(value.shape, generator=generator)
    return Optimizer(parameters, TrainSettings(**settings))


def kept(made: Optimizer) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in made.parameters.items()}


def test_muon_makes_the_step_of_a_matrix_orthogonal_and_leaves_the_rest_to_adam() -> None:
    muon, adam = optimizer(optimizer="muon"), optimizer()
    before = kept(muon)
    gradient = muon.parameters["layer.fc1.weight"].grad
    assert gradient is not None
    left, _, right = torch.linalg.svd(gradient, full_matrices=False)
    muon.step(0.01)
    adam.step(0.01)
    step = (before["layer.fc1.weight"] - muon.parameters["layer.fc1.weight"].detach()) / 0.01
    scaled = step / (0.2 * math.sqrt(24))
    values = torch.linalg.svdvals(scaled)
    assert (values > 0.6).all() and (values < 1.3).all()  # as far as five iterations of Newton-Schulz come
    assert torch.nn.functional.cosine_similarity(scaled.flatten(), (left @ right).flatten(), dim=0) > 0.97
    for name in ("model.shared.weight", "layer.fc1.bias"):
        assert torch.equal(muon.parameters[name], adam.parameters[name])
    assert not torch.equal(muon.parameters["layer.fc1.weight"], adam.parameters["layer.fc1.weight"])


@pytest.mark.parametrize("kind", ["adam", "muon"])
def test_weight_decay_is_for_matrices_of_layers_alone(kind: str) -> None:
    plain, decayed = optimizer(optimizer=kind), optimizer(optimizer=kind, weight_decay=0.5)
    before = kept(plain)
    plain.step(0.01)
    decayed.step(0.01)
    for name, value in plain.parameters.items():
        expected = value - (0.005 * before[name] if name == "layer.fc1.weight" else 0)
        torch.testing.assert_close(decayed.parameters[name], expected, rtol=1e-4, atol=1e-5)


def test_a_gradient_that_is_not_finite_changes_nothing_though_only_the_device_knows() -> None:
    made = optimizer()
    made.step(0.01)
    before, state = kept(made), {key: value.clone() for key, value in made.state().items()}
    for value in made.parameters.values():
        assert value.grad is not None
        value.grad.fill_(math.nan)
    made.step(0.01, torch.tensor(True))
    assert all(torch.equal(value, before[name]) for name, value in made.parameters.items())
    assert all(torch.equal(value, state[key]) for key, value in made.state().items())
    muon = optimizer(optimizer="muon")
    for value in muon.parameters.values():
        assert value.grad is not None
        value.grad.fill_(math.nan)
    muon.step(0.01, torch.tensor(True))
    assert all(torch.isfinite(value).all() for value in muon.parameters.values())


def test_a_resumed_run_of_muon_ends_as_one_that_was_not(tmp_path: Path) -> None:
    run(tmp_path, tmp_path / "run", steps=10, optimizer="muon")
    run(tmp_path, tmp_path / "run", steps=20, optimizer="muon")
    run(tmp_path, tmp_path / "whole", steps=20, optimizer="muon")
    for name in ("model", "optimizer", "average"):
        file = f"last/step-000000020/{name}.safetensors"
        assert (tmp_path / "run" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
    keys = load_file(tmp_path / "run" / "last" / "step-000000020" / "optimizer.safetensors").keys()
    assert "model.encoder.layers.0.fc1.weight:momentum_buffer" in keys
    assert "model.shared.weight:exp_avg_sq" in keys


def test_another_optimizer_is_another_configuration(tmp_path: Path) -> None:
    run(tmp_path, tmp_path / "run", steps=4)
    with pytest.raises(TrainingError, match=r"settings\.optimizer was not there and is 'muon'"):
        run(tmp_path, tmp_path / "run", steps=8, optimizer="muon")


@pytest.mark.parametrize("kind", ["adam", "muon"])
def test_a_run_starts_from_the_state_of_another(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []

    def job(*given: Any, **named: Any) -> Any:
        return dataclasses.replace(job_for(*given, **named), report=told.append)

    monkeypatch.setattr(train_worker, "job_for", job)
    run(tmp_path, tmp_path / "first", steps=20, dev=())
    first = load_file(tmp_path / "first" / "last" / "step-000000020" / "model.safetensors")
    before = load_file(tmp_path / "first" / "last" / "step-000000020" / "average.safetensors")
    settings = {"initial": tmp_path / "first" / "last", "steps": 1, "learning_rate": 1e-9, "dev": (), "average_last": 0}
    run(tmp_path, tmp_path / "second", optimizer=kind, **settings)
    state = open_state(tmp_path / "second" / "last")
    assert state.step == 1
    for name, value in state.tensors["model"].items():
        torch.testing.assert_close(value, first[name], rtol=0, atol=1e-6)
        torch.testing.assert_close(state.tensors["average"][name], before[name], rtol=0, atol=0.01)
    assert any("starting from the state after update 20 in" in line for line in told)
    assert any("its optimizer is not muon: what it kept of" in line for line in told) == (kind == "muon")
    moments = state.tensors["optimizer"]
    assert moments["model.shared.weight:step"] == 21
    matrix = "model.decoder.layers.0.fc2.weight"
    assert (f"{matrix}:exp_avg" in moments) == (kind == "adam")
    assert (f"{matrix}:momentum_buffer" in moments) == (kind == "muon")


def test_a_state_of_another_model_is_told(tmp_path: Path) -> None:
    vocabulary = toy_vocabulary(tmp_path / "vocabulary")
    run(tmp_path, tmp_path / "first", steps=3, dev=())
    last = tmp_path / "first" / "last"
    assert is_state(last) and is_state(next(last.iterdir())) and not is_state(tmp_path / "first")
    check_state(last, make_student(SHAPE, vocabulary, seed=1), vocabulary)
    wider = make_student(StudentShape(d_model=64), vocabulary, seed=1)
    with pytest.raises(TrainingError, match=r"state of another model: model.shared.weight is \[\d+, 32\], \[\d+, 64\]"):
        check_state(last, wider, vocabulary)
    (last / "step-000000003" / "model.safetensors").write_bytes(b"x")
    with pytest.raises(TrainingError, match=r"no saved state can be read"):
        check_state(last, wider, vocabulary)


def test_settings_that_came_later_do_not_make_an_old_run_another(tmp_path: Path) -> None:
    run(tmp_path, tmp_path / "run", steps=6)
    file = tmp_path / "run" / "settings.json"
    described = training._read(file)
    for name in ("optimizer", "muon_momentum", "compiled"):
        del described["settings"][name]
    training.write_json(file, described)
    (tmp_path / "run" / "result.json").unlink()
    assert run(tmp_path, tmp_path / "run", steps=9)["steps"] == 9
