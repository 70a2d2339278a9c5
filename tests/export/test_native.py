"""native.bin points at the weights of the checkpoint, in every form that a pack stores them in."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mobilenmt import Pack
from mobilenmt.export.checkpoint import Checkpoint, load_checkpoint
from mobilenmt.export.export import export
from mobilenmt.export.native.file import native_bytes
from mobilenmt.export.precision.int8 import TABLE_LEVELS
from mobilenmt.export.quantize.forms import LEVELS
from mobilenmt.export.shortlist import Shortlist
from places import ROOT
from tiny_models import make_checkpoint

NO_BIAS = 2**64 - 1


@dataclass
class Record:
    kind: int
    rows: int
    columns: int
    stride: int
    values: int
    scale: int
    bias: int
    step: int
    zero: int


class Native:
    """What a reader of docs/core/native-format.md finds in native.bin."""

    def __init__(self, folder: Path) -> None:
        self.content = (folder / "native.bin").read_bytes()
        self.weights = (folder / "weights.bin").read_bytes()
        magic, version, self.flags = struct.unpack_from("<8sII", self.content)
        assert (magic, version) == (b"MNMTCORE", 1)
        self.sizes = struct.unpack_from("<7I", self.content, 16)
        self.activation, *self.vocabularies = struct.unpack_from("<4I", self.content, 44)
        self.ids = struct.unpack_from("<5I", self.content, 60)
        self.early, self.factor = struct.unpack_from("<If", self.content, 80)
        bad, count = struct.unpack_from("<2I", self.content, 88)
        self.bad = struct.unpack_from(f"<{count}I", self.content, bad)
        at, count = struct.unpack_from("<2I", self.content, 96)
        self.records = [Record(*struct.unpack_from("<4I3Q2I", self.content, at + 48 * i)) for i in range(count)]
        self.tokenizers = [struct.unpack_from("<2I", self.content, where) for where in (104, 112)]
        assert struct.unpack_from("<Q", self.content, 120)[0] == len(self.weights)
        for offset, size in self.tokenizers:
            assert not size or self.content[offset : offset + 4] == b"MNTK"
            assert offset + size <= len(self.content)

    def floats(self, offset: int, count: int, step: int = 1) -> np.ndarray[Any, Any]:
        return np.frombuffer(self.weights, "<f4", (count - 1) * step + 1, offset)[::step]

    def matrix(self, record: Record) -> np.ndarray[Any, Any]:
        """The values of a quantized record, [rows, columns]."""
        rows, columns = (record.columns, record.rows) if record.kind == 1 else (record.rows, record.columns)
        kind = np.uint8 if record.kind == 2 else np.int8
        count = (rows - 1) * record.stride + columns
        data = np.frombuffer(self.weights, kind, count, record.values)
        values = np.lib.stride_tricks.as_strided(data, (rows, columns), (record.stride, 1)).astype(np.float32)
        values = values.T if record.kind == 1 else values - 128 * (record.kind == 2)
        return values * self.floats(record.scale, record.rows, record.step)[:, None]

    def bias(self, record: Record) -> np.ndarray[Any, Any]:
        return self.floats(record.bias, record.rows)


def close(found: np.ndarray[Any, Any], wanted: np.ndarray[Any, Any], levels: int) -> None:
    """Within half a step of each row."""
    step = np.abs(wanted).max(axis=1, keepdims=True) / levels
    assert found.shape == wanted.shape
    assert (np.abs(found - wanted) <= 0.5001 * step + 1e-7).all()


def check(native: Native, checkpoint: Checkpoint, *, shortlist: bool) -> None:
    """Every record against the checkpoint's tensor."""
    config = checkpoint.config
    records = iter(native.records)
    levels = LEVELS if shortlist else TABLE_LEVELS
    kind = 3 if shortlist else 2
    for key in ("source_embedding", "target_embedding"):
        record = next(records)
        assert record.kind == kind
        close(native.matrix(record) * np.float32(native.factor), checkpoint[key] * config.embedding_scale, levels)
    output = next(records)
    assert output.kind == kind
    close(native.matrix(output), checkpoint["output_embedding"], levels)
    bias = checkpoint["final_logits_bias"].reshape(-1)
    if bias.any():
        assert np.array_equal(native.bias(output), bias)
    else:
        assert output.bias == NO_BIAS
    for side in ("encoder", "decoder"):
        record, table = next(records), checkpoint.tensors.get(f"{side}_positions")
        assert record.kind == (0 if table is None else 5)
        if table is not None:
            assert np.array_equal(native.floats(record.values, table.size), table.ravel())
    blocks, sines, cosines = (next(records) for _ in range(3))
    if blocks.kind:
        half = (config.d_model + 1) // 2
        assert (blocks.rows, blocks.columns) == (math.ceil(config.max_position_embeddings / 16), 2 * half)
        assert (sines.rows, sines.columns) == (cosines.rows, cosines.columns) == (16, half)
        assert native.floats(sines.values, half)[0] == 0.0
        assert native.floats(cosines.values, half)[0] == 1.0
    common, lexical = next(records), next(records)
    assert (common.kind, lexical.kind) == ((6, 7) if shortlist else (0, 0))
    assert [next(records).kind, next(records).kind] == [0, 0]

    def matrix(kind: int, *names: str) -> None:
        record = next(records)
        assert record.kind == kind
        close(native.matrix(record), np.concatenate([checkpoint[f"{name}.weight"] for name in names]), LEVELS)
        assert np.array_equal(native.bias(record), np.concatenate([checkpoint[f"{name}.bias"] for name in names]))

    def norm(name: str) -> None:
        record = next(records)
        assert record.kind == 4
        assert np.array_equal(native.floats(record.values, record.rows), checkpoint[f"{name}.weight"])
        assert np.array_equal(native.bias(record), checkpoint[f"{name}.bias"])

    for index in range(config.encoder_layers):
        layer = f"model.encoder.layers.{index}"
        matrix(1, *(f"{layer}.self_attn.{part}_proj" for part in "qkv"))
        matrix(1, f"{layer}.self_attn.out_proj")
        norm(f"{layer}.self_attn_layer_norm")
        matrix(1, f"{layer}.fc1")
        matrix(1, f"{layer}.fc2")
        norm(f"{layer}.final_layer_norm")
    for index in range(config.decoder_layers):
        layer = f"model.decoder.layers.{index}"
        matrix(2, *(f"{layer}.self_attn.{part}_proj" for part in "qkv"))
        matrix(2, f"{layer}.self_attn.out_proj")
        norm(f"{layer}.self_attn_layer_norm")
        matrix(2, f"{layer}.encoder_attn.q_proj")
        matrix(1, *(f"{layer}.encoder_attn.{part}_proj" for part in "kv"))
        matrix(2, f"{layer}.encoder_attn.out_proj")
        norm(f"{layer}.encoder_attn_layer_norm")
        matrix(2, f"{layer}.fc1")
        matrix(2, f"{layer}.fc2")
        norm(f"{layer}.final_layer_norm")
    assert next(records, None) is None


def some_shortlist(size: int) -> Shortlist:
    return Shortlist(np.arange(0, 30), np.random.default_rng(0).integers(2, size - 1, (size, 4)))


@pytest.mark.parametrize("shortlist", [False, True])
@pytest.mark.parametrize(
    "config",
    [
        {"output_bias": False},
        {},
        {"d_model": 24, "decoder_ffn_dim": 40, "scale_embedding": False, "activation_function": "gelu_new"},
        {"share_encoder_decoder_embeddings": False, "decoder_vocab_size": 344},
        {"tie_word_embeddings": False},
    ],
    ids=["students", "bias", "padded", "two tables", "own output"],
)
def test_records_are_the_checkpoint(tmp_path: Path, config: dict[str, Any], shortlist: bool) -> None:
    checkpoint = make_checkpoint(tmp_path / "checkpoint", **config)
    loaded = load_checkpoint(checkpoint)
    candidates = some_shortlist(loaded.config.vocab_size) if shortlist else False
    pack = export(checkpoint, tmp_path / "en-de", shortlist=candidates)
    native = Native(pack.path)
    check(native, loaded, shortlist=shortlist)
    model, tokens = pack.manifest.model, pack.manifest.tokens
    assert native.sizes == (
        model.d_model, model.encoder_layers, model.decoder_layers, model.encoder_attention_heads,
        model.decoder_attention_heads, model.encoder_ffn_dim, model.decoder_ffn_dim,
    )  # fmt: skip
    assert native.activation == (2 if model.activation_function == "gelu_new" else 0)
    assert native.vocabularies == [model.source_vocab_size, model.target_vocab_size, model.max_positions]
    assert native.ids == (tokens.start, tokens.eos, tokens.pad, tokens.unk, 0)
    assert (native.flags, native.early) == (0, 0)
    assert native.bad == pack.manifest.generation.bad_token_ids
    if shortlist:
        common, lexical = native.records[8:10]
        flags = np.frombuffer(native.weights, np.uint8, common.rows, common.values)
        assert np.array_equal(np.flatnonzero(flags), np.arange(30))
        count = lexical.rows * lexical.columns
        stored = np.frombuffer(native.weights, "<u2", count, lexical.values).reshape(lexical.rows, lexical.columns)
        assert np.array_equal(stored, some_shortlist(loaded.config.vocab_size).lexical)
    assert native_bytes(pack.path) == native.content  # what an old pack without it would get


def test_settings_of_generation(tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "num_beams": 2,
        "renormalize_logits": True,
        "early_stopping": "never",
        "forced_eos_token_id": None,
    }
    settings |= {"forced_eos_token_id": None, "bad_words_ids": [[5], [7]]}
    pack = export(make_checkpoint(tmp_path / "checkpoint", generation=settings), tmp_path / "en-de")
    native = Native(pack.path)
    assert (native.flags, native.early, native.bad, native.ids[4]) == (2, 2, (5, 7), 0xFFFFFFFF)


def test_trained_positions(tmp_path: Path) -> None:
    import safetensors.torch

    checkpoint = make_checkpoint(tmp_path / "checkpoint")
    file = checkpoint / "model.safetensors"
    tensors = safetensors.torch.load_file(file)
    loaded = load_checkpoint(checkpoint)
    generator = np.random.default_rng(0)
    import torch

    for side in ("encoder", "decoder"):
        shape = (loaded.config.max_position_embeddings, loaded.config.d_model)
        table = torch.from_numpy(generator.standard_normal(shape, np.float32))
        tensors[f"model.{side}.embed_positions.weight"] = table
    safetensors.torch.save_file(tensors, file, {"format": "pt"})
    pack = export(checkpoint, tmp_path / "en-de")
    check(Native(pack.path), load_checkpoint(checkpoint), shortlist=False)


def test_packs_without_native_bin(
    tiny_fp32_pack: Path, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """fp32, and a tokenizer that no table can hold: the pack says why and is whole without."""
    assert "native.bin" not in Pack.open(tiny_fp32_pack).manifest.files
    from mobilenmt.export.native import tokenizer

    def refuse(*_: Any) -> Any:
        raise tokenizer.NotExpressible("no such step")

    monkeypatch.setattr(tokenizer, "_pre_tokenizer", refuse)
    lines: list[str] = []
    pack = export(tiny_checkpoint, tmp_path / "en-de", report=lines.append)
    assert "native.bin" not in pack.manifest.files
    assert "no native.bin: no such step" in lines


@pytest.mark.parametrize("folder", ["models/en-de", "tests/golden/tiny-2.0"])
def test_packs_of_format_2_0_can_have_one(folder: str) -> None:
    made = native_bytes(ROOT / folder)
    assert made is not None
    assert made[:8] == b"MNMTCORE"


def test_packs_of_format_1_say_why_not() -> None:
    lines: list[str] = []
    assert native_bytes(ROOT / "tests" / "golden" / "tiny-1.0", report=lines.append) is None
    assert len(lines) == 1
