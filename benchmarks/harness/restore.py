"""The checkpoint in a pack: what other engines are given when they are to run the very model that we ship.

A pack holds every weight of its model, as integers and scales. Multiplied out they are a Hugging Face Marian checkpoint
again, whose export is the same pack, byte for byte; what rounding to INT8 once took is not in it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper
from safetensors.numpy import save_file

from benchmarks.harness.errors import expect
from benchmarks.harness.prepare import made_once
from benchmarks.harness.results import write_json
from mobilenmt.export.checkpoint import MarianConfig, expected_tensors
from mobilenmt.export.layers import stacked_name
from mobilenmt.export.precision.blocks import ZERO_POINT
from mobilenmt.export.shortlist import FILE_NAME, Shortlist
from mobilenmt.runtime.pack import Pack
from mobilenmt.runtime.tokenizer import CONTROL_MARK

Array = npt.NDArray[Any]
_TABLE = "source_embedding"
_ATTENTION: list[list[str]] = [[f"self_attn.{part}_proj" for part in "qkv"], ["self_attn.out_proj"]]
_CROSS = [["encoder_attn.q_proj"], ["encoder_attn.out_proj"]]
_PARTS = {"encoder": [*_ATTENTION, ["fc1"], ["fc2"]], "decoder": [*_ATTENTION, *_CROSS, ["fc1"], ["fc2"]]}
"""Projections of a layer that are stored as one matrix."""


def restore(path: Path, out: Path) -> Path:
    """Write the checkpoint of the pack at ``path`` into the new folder ``out``, its shortlist included.

    Raises:
        BenchmarkError: the pack is not one of ``mobilenmt compress``: INT8, one vocabulary, a shortlist.
    """
    pack = Pack.open(path)
    stored = stored_weights(pack)
    expect(
        all(f"{_TABLE}.{kind}" in stored for kind in ("int8", "scale", "scale.embedding")),
        f"{path}: only an int8 pack of format 2 with one vocabulary and a shortlist can be turned back into a "
        "checkpoint; name the checkpoint it was made from: --checkpoint DIR",
    )
    largest = np.argmax(stored[f"{_TABLE}.scale"])
    factor = float(stored[f"{_TABLE}.scale.embedding"][largest, 0] / stored[f"{_TABLE}.scale"][largest])
    config = _config(pack, factor)
    shapes = expected_tensors(MarianConfig.from_dict(config))
    tensors = {"model.shared.weight": stored[f"{_TABLE}.int8"] * stored[f"{_TABLE}.scale"][:, None]}
    bias = stored.get(f"{_TABLE}.offset.0", np.zeros(len(stored[f"{_TABLE}.scale"]), np.float32))
    tensors["final_logits_bias"] = bias.reshape(1, -1)
    for names in _stacks(config):
        joined = stacked_name(names)
        matrix, offset = _matrix(stored, joined, shapes[f"{names[0]}.weight"][1]), stored[f"{joined}.bias"]
        ends = np.cumsum([shapes[f"{name}.weight"][0] for name in names])[:-1]
        for name, rows, part in zip(names, np.split(matrix, ends), np.split(offset, ends), strict=True):
            tensors[f"{name}.weight"], tensors[f"{name}.bias"] = rows, part
    tensors |= {name: stored[name] for name in shapes if name not in tensors}
    out.mkdir(parents=True)
    contiguous = {name: np.ascontiguousarray(value, np.float32) for name, value in tensors.items()}
    save_file(contiguous, out / "model.safetensors", metadata={"format": "pt"})
    tokens = {key: config[key] for key in ("pad_token_id", "eos_token_id", "decoder_start_token_id")}
    defaults = pack.manifest.generation.to_dict()
    bad = defaults.pop("bad_token_ids")
    tokenizer, roles = _tokenizer(pack)
    languages = {"source_lang": pack.manifest.source_language, "target_lang": pack.manifest.target_language}
    known = {key: value for key, value in languages.items() if value}
    files = {
        "config": config,
        "generation_config": tokens | defaults | ({"bad_words_ids": [[token] for token in bad]} if bad else {}),
        "tokenizer_config": {"tokenizer_class": "PreTrainedTokenizerFast"} | roles | known,
        "tokenizer": tokenizer,
    }
    for name, content in files.items():
        write_json(out / f"{name}.json", content)
    common = np.flatnonzero(stored["shortlist.common"])
    Shortlist(common, stored["shortlist.lexical"].astype(np.int32)).save(out / FILE_NAME)
    return out


def restored(path: Path, build: Path) -> Path:
    """The checkpoint of a pack, in a folder below ``build``; made once for each content of a pack."""
    files = Pack.open(path).manifest.files
    return made_once(build / f"checkpoint-{files['weights.bin'].sha256[:12]}", lambda out: restore(path, out))


def stored_weights(pack: Pack) -> dict[str, Array]:
    """Every weight of translator.onnx, which has all of them without what other graphs' kernels add, by name."""

    def initializers(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
        yield from graph.initializer
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    yield from initializers(attribute.g)

    model = onnx.load(str(pack.file("translator.onnx")))
    return {item.name.removeprefix("phase."): numpy_helper.to_array(item) for item in initializers(model.graph)}


def _matrix(stored: Mapping[str, Array], name: str, columns: int) -> Array:
    """fp32 [N, K] from columns (the encoder's) or from rows in blocks (the decoder's)."""
    if f"{name}.int8" in stored:
        values = stored[f"{name}.int8"].T
    else:
        rows = stored[f"{name}.int8.rows"]
        values = (rows.astype(np.float32) - ZERO_POINT).reshape(len(rows), -1)[:, :columns]
    product: Array = values * stored[f"{name}.scale"][:, None]
    return product


def _stacks(config: Mapping[str, Any]) -> Iterator[list[str]]:
    """Names of the projections that are stored as one matrix."""
    for side in ("encoder", "decoder"):
        for index in range(config[f"{side}_layers"]):
            for parts in _PARTS[side]:
                yield [f"model.{side}.layers.{index}.{part}" for part in parts]
    layers = range(config["decoder_layers"])
    yield [f"model.decoder.layers.{index}.encoder_attn.{part}_proj" for index in layers for part in "kv"]


def _config(pack: Pack, factor: float) -> dict[str, Any]:
    model, tokens = pack.manifest.model, pack.manifest.tokens
    ours = {"architecture", "parameters", "source_vocab_size", "target_vocab_size", "max_positions"}
    return {key: value for key, value in asdict(model).items() if key not in ours} | {
        "model_type": "marian",
        "architectures": ["MarianMTModel"],
        "vocab_size": model.source_vocab_size,
        "decoder_vocab_size": model.target_vocab_size,
        "max_position_embeddings": model.max_positions,
        "scale_embedding": not math.isclose(factor, 1.0, rel_tol=1e-6),
        "share_encoder_decoder_embeddings": True,
        "tie_word_embeddings": True,
        "pad_token_id": tokens.pad,
        "eos_token_id": tokens.eos,
        "decoder_start_token_id": tokens.start,
        "forced_eos_token_id": pack.manifest.generation.forced_eos_token_id,
    }


def _tokenizer(pack: Pack) -> tuple[dict[str, Any], dict[str, str]]:
    """The pack's tokenizer with its control pieces as other engines know them, under their names, special; and the
    names of end, unknown and padding."""
    content = json.loads(pack.file("tokenizer.json").read_text(encoding="utf-8"))
    model = content["model"]
    if model["type"] == "BPE":
        numbers = dict(model["vocab"])
        model["vocab"] = {_plain(piece): number for piece, number in numbers.items()}
        model["unk_token"] = model.get("unk_token") and _plain(model["unk_token"])
    else:
        numbers = {piece: number for number, (piece, _) in enumerate(model["vocab"])}
        model["vocab"] = [[_plain(piece), score] for piece, score in model["vocab"]]
    special = {number: _plain(piece) for piece, number in numbers.items() if piece.startswith(CONTROL_MARK)}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    content["added_tokens"] += [{"id": number, "content": special[number], **flags} for number in sorted(special)]
    tokens = pack.manifest.tokens
    roles = {"eos_token": tokens.eos, "unk_token": tokens.unk, "pad_token": tokens.pad}
    return content, {role: special[number] for role, number in roles.items() if number in special}


def _plain(piece: str) -> str:
    return piece.removeprefix(CONTROL_MARK)
