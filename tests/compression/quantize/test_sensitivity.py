"""What single matrices cost, and the folder that keeps it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mobilenmt.compression.core.errors import QuantizeError
from mobilenmt.compression.quantize.matrices import TABLE, StoredNetwork, matrices, put, round_all, round_as, stacked
from mobilenmt.compression.quantize.sensitivity import Probe, by_matrix, extremes, first_layer, measure
from mobilenmt.compression.quantize.store import Results, locked, open_folder
from mobilenmt.export.checkpoint import load_checkpoint
from mobilenmt.export.export import write_graphs
from mobilenmt.export.quantize.quantizer import Quantizer
from mobilenmt.export.quantize.settings import Quantization
from mobilenmt.export.writer import PackWriter
from training_data import opened, prunable


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prunable(tmp_path_factory.mktemp("model") / "tiny")


def test_matrices_are_those_of_the_exporter_and_rounded_as_it_does(checkpoint: Path, tmp_path: Path) -> None:
    settings = Quantization("int4-16", "mse", matrices={"*.fc2": "int8", TABLE: "int8"})
    quantizer = Quantizer(settings)
    loaded = load_checkpoint(checkpoint)
    with pytest.raises(KeyboardInterrupt), PackWriter(tmp_path / "pack") as writer:
        write_graphs(loaded, "int8", None, writer, quantizer)
        raise KeyboardInterrupt  # the pack itself is not wanted
    network, _, _ = opened(checkpoint)
    found = matrices(network.config)
    assert {matrix.name for matrix in found} == set(quantizer.forms)
    stored = quantizer.weights()
    assert stored is not None
    mine = round_all(network, settings)
    for matrix in found:
        np.testing.assert_array_equal(mine[matrix.name].weights(), stored[matrix.name], err_msg=matrix.name)
        assert Quantization(matrices={matrix.pattern: "fp32"}).form_of(matrix.name).kind == "fp32"
        others = [one.name for one in found if one is not matrix]
        assert not any(Quantization(matrices={matrix.pattern: "fp32"}).form_of(name).kind == "fp32" for name in others)


def test_a_matrix_is_taken_apart_and_put_together(checkpoint: Path) -> None:
    network, _, _ = opened(checkpoint)
    for matrix in matrices(network.config):
        for name, value in put(matrix, stacked(network.weights, matrix)).items():
            assert torch.equal(value, network.weights[name])


def test_a_distance_is_the_mean_divergence_of_the_distributions(checkpoint: Path) -> None:
    network, _, calibration = opened(checkpoint)
    probe = Probe(network, calibration.batches)
    assert probe.distance(network) == pytest.approx(0.0, abs=1e-6)
    stored = StoredNetwork.build(network, round_all(network, Quantization("int4-128")))
    total, tokens = 0.0, 0
    for batch in calibration.batches:
        mine, theirs = (
            torch.log_softmax(one.logits(one.states(batch))[batch.target_mask].double(), -1)
            for one in (network, stored)
        )
        total += float((mine.exp() * (mine - theirs)).sum())
        tokens += int(batch.target_mask.sum())
    assert probe.tokens == tokens
    assert probe.distance(stored) == pytest.approx(total / tokens, rel=1e-3)


def test_going_on_from_the_layer_that_changed_gives_the_same_distance(checkpoint: Path) -> None:
    network, _, calibration = opened(checkpoint)
    probe = Probe(network, calibration.batches)
    for matrix in matrices(network.config):
        rounded = round_as(network.weights, matrix, Quantization("int4-32"))
        assert rounded is not None
        stored = StoredNetwork.build(network, {matrix.name: rounded})
        first = first_layer(matrix, network.config.encoder_layers)
        assert probe.distance(stored, first=first) == pytest.approx(probe.distance(stored), rel=1e-5)


def test_what_is_measured_is_kept_and_not_measured_again(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, _, calibration = opened(checkpoint)
    probe = Probe(network, calibration.batches)
    results, forms = Results(tmp_path / "results.jsonl"), ["int8-wide", "int4-64", "fp32"]
    calls: list[int] = []

    def stop(*args: object, **kinds: object) -> float:
        calls.append(1)
        if len(calls) > 7:
            raise KeyboardInterrupt
        return 0.5

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Probe, "distance", stop)
        measure(probe, forms, Quantization(), results)
    again = measure(probe, forms, Quantization(), Results(tmp_path / "results.jsonl"))
    assert sum(one.distance == 0.5 for one in again) == 7
    monkeypatch.setattr(Probe, "distance", stop)  # raises: nothing is left to measure
    table = by_matrix(measure(probe, forms, Quantization(), Results(tmp_path / "results.jsonl")))
    assert table == by_matrix(again)
    assert all(row["fp32"] == 0.0 for row in table.values())
    ends = extremes(table, "int4-64", 2)
    values = [row["int4-64"] for row in table.values()]
    assert table[ends[0]]["int4-64"] == max(values)
    assert table[ends[-1]]["int4-64"] == min(values)
    assert len(ends) == 4


def test_a_line_that_was_not_written_to_its_end_counts_for_nothing(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    Results(path).add("a", {"value": 1})
    with path.open("a") as stream:
        stream.write('{"key": "b", "val')
    results = Results(path)
    assert "a" in results and "b" not in results
    results.add("c", {"value": 3})
    assert Results(path)["c"]["value"] == 3
    path.write_text("nonsense\n" + path.read_text())
    with pytest.raises(QuantizeError, match="line 1 is damaged"):
        Results(path)


def test_a_folder_of_another_study_or_of_something_else_is_refused(tmp_path: Path) -> None:
    open_folder(tmp_path / "a", {"weights": "1", "probe": 100})
    open_folder(tmp_path / "a", {"weights": "1", "probe": 100})
    with pytest.raises(QuantizeError, match=r"another study \(probe"):
        open_folder(tmp_path / "a", {"weights": "1", "probe": 200})
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "precious").touch()
    with pytest.raises(QuantizeError, match="holds no study"):
        open_folder(tmp_path / "b", {"weights": "1"})
    (tmp_path / "a" / "study.json").write_text("{")
    with pytest.raises(QuantizeError, match="damaged"):
        open_folder(tmp_path / "a", {"weights": "1"})


def test_two_processes_do_not_share_a_folder(tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(QuantizeError, match="in use"), locked(tmp_path):
        pass
