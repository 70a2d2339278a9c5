"""What is read from a checkpoint folder, and what is said of one that is broken."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from mobilenmt.export.checkpoint import load_checkpoint, sinusoidal_positions
from mobilenmt.export.export import export
from mobilenmt.runtime.errors import CheckpointError, ExportError, InputError
from mobilenmt.runtime.manifest import Segmentation
from mobilenmt.runtime.onnx.engine import Engine
from mobilenmt.runtime.translator import Translator
from tiny_models import make_checkpoint

FC1 = "model.encoder.layers.0.fc1.weight"


@pytest.fixture
def broken(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """A copy of the tiny checkpoint, to be broken."""
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "broken"))


def change_json(file: Path, **values: Any) -> None:
    content = json.loads(file.read_text())
    file.write_text(json.dumps({**content, **values}))


def change_tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def test_positions_are_those_of_transformers() -> None:
    from transformers.models.marian.modeling_marian import MarianSinusoidalPositionalEmbedding

    for width in (8, 7):
        table = MarianSinusoidalPositionalEmbedding(20, width)
        table._init_weight()
        np.testing.assert_allclose(sinusoidal_positions(20, width), table.weight.detach().numpy(), atol=1e-6)


def test_all_missing_and_wrong_tensors_are_listed_at_once(broken: Path) -> None:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        del tensors[FC1], tensors["model.decoder.layers.1.encoder_attn.k_proj.bias"]
        tensors["model.encoder.layers.1.fc2.bias"] = torch.zeros(3)
        tensors["model.decoder.layers.0.fc1.bias"][1] = float("nan")

    change_tensors(broken, change)
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(broken)
    message = str(caught.value)
    assert "4 tensor(s)" in message and "\n" not in message
    for part in (
        f"{FC1} is missing, shape [48, 32]",
        "k_proj.bias is missing",
        "fc2.bias has shape [3], [32] is needed",
        "decoder.layers.0.fc1.bias holds NaN",
    ):
        assert part in message


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"model_type": "bert"}, "architecture 'bert' is not supported"),
        ({"d_model": "32"}, "d_model must be int"),
        ({"d_model": None}, "d_model must be int"),
        ({"encoder_layers": 0}, "encoder_layers is 0"),
        ({"encoder_layers": True}, "encoder_layers must be int"),
        ({"encoder_attention_heads": 5}, "not a multiple of 5"),
        ({"pad_token_id": 10**6}, "outside the vocabulary"),
        ({"normalize_before": True}, "normalize_before"),
        ({"activation_function": "xielu"}, "'xielu' is not supported"),
    ],
)
def test_configurations_that_cannot_be_exported(values: dict[str, Any], words: str, broken: Path) -> None:
    change_json(broken / "config.json", **values)
    with pytest.raises(CheckpointError, match=words):
        export(broken, broken.with_name("out"))
    assert not broken.with_name("out").exists()


@pytest.mark.parametrize(
    "values",
    [
        {"bad_words_ids": [[1, 2]]},
        {"bad_words_ids": [[10**6]]},
        {"bad_words_ids": 3},
        {"length_penalty": float("inf")},
        {"length_penalty": "1"},
        {"early_stopping": "sometimes"},
        {"num_beams": 0},
        {"forced_eos_token_id": -1},
    ],
)
def test_generation_defaults_are_checked(values: dict[str, Any], broken: Path) -> None:
    change_json(broken / "generation_config.json", **values)
    with pytest.raises(CheckpointError, match=r"generation_config\.json: " + next(iter(values))):
        load_checkpoint(broken)


def test_folders_that_are_no_checkpoint(tmp_path: Path, broken: Path) -> None:
    with pytest.raises(CheckpointError, match="no such checkpoint folder"):
        load_checkpoint(tmp_path / "missing")
    with pytest.raises(CheckpointError, match="not a folder"):
        load_checkpoint(broken / "config.json")
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        load_checkpoint(tmp_path)
    (broken / "model.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(CheckpointError, match="cannot be read as weights"):
        load_checkpoint(broken)
    (broken / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"neither model\.safetensors nor"):
        load_checkpoint(broken)
    (broken / "config.json").write_text("[" * 100_000)
    with pytest.raises(CheckpointError, match="cannot be read as JSON"):
        load_checkpoint(broken)


def test_other_containers_of_the_same_weights(tiny_checkpoint: Path, broken: Path) -> None:
    """pytorch_model.bin, shards and half precision give the tensors that model.safetensors gives."""
    reference = load_checkpoint(tiny_checkpoint)
    tensors = load_file(broken / "model.safetensors")
    (broken / "model.safetensors").unlink()
    torch.save(tensors, broken / "pytorch_model.bin")
    names = sorted(tensors)
    check_same(reference.tensors, load_checkpoint(broken).tensors)
    (broken / "pytorch_model.bin").unlink()
    parts = {"model-1.safetensors": names[::2], "model-2.safetensors": names[1::2]}
    for file, part in parts.items():
        save_file({name: tensors[name] for name in part}, broken / file)
    weight_map = {name: file for file, part in parts.items() for name in part}
    (broken / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    check_same(reference.tensors, load_checkpoint(broken).tensors)
    save_file({name: tensor.half() for name, tensor in tensors.items()}, broken / "model.safetensors")
    check_same(reference.tensors, load_checkpoint(broken).tensors, 1e-2)


def check_same(wanted: Any, found: Any, tolerance: float = 0) -> None:
    assert set(wanted) == set(found)
    for name, tensor in wanted.items():
        np.testing.assert_allclose(found[name], tensor, atol=tolerance)


def test_unsafe_pickles_are_refused(broken: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return print, ("executed",)

    (broken / "model.safetensors").unlink()
    torch.save({"x": Evil()}, broken / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="cannot be read as weights"):
        load_checkpoint(broken)


def test_trained_positions_are_kept(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path / "checkpoint")
    table = torch.randn(64, 32)
    change_tensors(checkpoint, lambda tensors: tensors.update({"model.encoder.embed_positions.weight": table}))
    assert "encoder_positions" in load_checkpoint(checkpoint).tensors
    for precision in ("fp32", "int8"):  # export verifies against torch, which reads the same table
        assert Engine(export(checkpoint, tmp_path / precision, precision=precision)).max_length == 64


def test_a_pack_says_whether_texts_are_cut_into_sentences(tiny_checkpoint: Path, tmp_path: Path) -> None:
    made = export(tiny_checkpoint, tmp_path / "long", sentences=False, shortlist=False)
    assert made.manifest.segmentation == Segmentation(sentences=False)
    text = "the dog. Two cats."
    translator = Translator(made.path)
    whole = translator.translate_batch([text])
    assert whole == translator.translate_batch([text], split=False) != translator.translate_batch([text], split=True)


def test_generation_defaults_of_old_checkpoints_stand_in_config_json(broken: Path) -> None:
    (broken / "generation_config.json").unlink()
    change_json(broken / "config.json", num_beams=6, bad_words_ids=[[5]], max_length=33)
    generation = load_checkpoint(broken).generation
    assert (generation.num_beams, generation.bad_token_ids, generation.max_length) == (6, (5,), 33)


def test_arguments_of_export(tiny_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="precision"):
        export(tiny_checkpoint, tmp_path / "out", precision="int3")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "letter.txt").write_text("dear")
    with pytest.raises(ExportError):
        export(tiny_checkpoint, tmp_path / "taken", force=True)
    assert (tmp_path / "taken" / "letter.txt").read_text() == "dear"


def test_verification_catches_a_wrong_pack(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault in the exporter does not become a pack."""
    from mobilenmt.export.quantize import quantizer

    real = quantizer.round_matrix

    def wrong(*args: Any, **options: Any) -> Any:
        found = real(*args, **options)
        return replace(found, scales=found.scales * np.float32(1.5))

    monkeypatch.setattr(quantizer, "round_matrix", wrong)
    with pytest.raises(ExportError, match="something else"):
        export(tiny_checkpoint, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["pack.zip", "folder"])
def test_two_exports_give_the_same_bytes(name: str, tiny_checkpoint: Path, tmp_path: Path) -> None:
    packs = [export(tiny_checkpoint, tmp_path / part / name) for part in ("a", "b") if not (tmp_path / part).mkdir()]
    assert packs[0].manifest == packs[1].manifest
