"""The checkpoint in a pack: a Hugging Face Marian checkpoint that computes what the pack does.

A pack holds every weight of its model, as fp32 or as integers and scales. Multiplied out they are a checkpoint again,
which transformers opens, CTranslate2 converts, and whose export is the same pack. What rounding to integers once took
is not in it, nor what no pack keeps: dropout and other settings of training, how its text was prepared, and pieces of a
SentencePiece model that have no id (one vocabulary; with two they come back).
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from mobilenmt.export.checkpoint import MarianConfig, expected_tensors, load_checkpoint, sinusoidal_positions
from mobilenmt.export.ecosystem.folder import new_folder
from mobilenmt.export.ecosystem.stored import TABLES, Array, Stored, matrix, scaled_by_width, stored_weights
from mobilenmt.export.ecosystem.tokenizer import write_tokenizer
from mobilenmt.export.layers import stacked_name, stacks
from mobilenmt.export.shortlist import FILE_NAME, Shortlist
from mobilenmt.export.verify import GRAPHS, verify_against_torch
from mobilenmt.runtime.errors import ExportError
from mobilenmt.runtime.pack import Pack

CARD_FILE = "card.json"
_NAMES = {
    "source_embedding": "model.encoder.embed_tokens.weight",
    "target_embedding": "model.decoder.embed_tokens.weight",
    "output_embedding": "lm_head.weight",
}


def restore(
    pack: str | os.PathLike[str], out: str | os.PathLike[str], *, report: Callable[[str], None] = lambda line: None
) -> Path:
    """Write the checkpoint of a pack into the new folder ``out``, and verify that it computes what the pack does.

    The folder has config.json, generation_config.json, model.safetensors in fp32 and the tokenizer; shortlist.npz and
    card.json where the pack has a shortlist and a card.

    Args:
        pack: name or path of a pack, a folder or a zip.
        out: the folder, which must not be there yet.
        report: receives a line about each step.

    Raises:
        PackNotFoundError, PackError: there is no such pack, or it is damaged.
        ExportError: the pack is of format 1 or holds what is not known here, ``out`` cannot be written, or what was
            written is not the pack's model.
    """
    opened = Pack.open(pack)
    with new_folder(out) as folder:
        report(f"reading the weights of {opened.path}")
        config = _write(opened, folder)
        loaded = load_checkpoint(folder)
        if all(name in opened.manifest.files for name in GRAPHS):
            report(verify_against_torch(opened.path, loaded))
        else:  # a pack without some graph, for a phone
            report("read back: every tensor is there")
        report(f"{loaded.parameters:,} parameters, width {config['d_model']}")
    return Path(out)


def _write(pack: Pack, folder: Path) -> dict[str, Any]:
    """Write all files; returns the configuration."""
    from safetensors.numpy import save_file

    stored = stored_weights(pack)
    config = _config(pack, stored)
    try:
        tensors = _tensors(stored, config)
    except KeyError as error:
        raise ExportError(f"{pack.path}: weights.bin has no {error.args[0]}") from None
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    manifest = pack.manifest
    tokens = {key: config[key] for key in ("pad_token_id", "eos_token_id", "decoder_start_token_id")}
    defaults = manifest.generation.to_dict()
    bad = defaults.pop("bad_token_ids")
    files: dict[str, Any] = {
        "config.json": config,
        "generation_config.json": tokens | defaults | ({"bad_words_ids": [[token] for token in bad]} if bad else {}),
    }
    if manifest.card:
        files[CARD_FILE] = manifest.card
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    languages = {"source_lang": manifest.source_language, "target_lang": manifest.target_language}
    write_tokenizer(
        folder,
        *_tokenizers(pack),
        ids={"eos_token": manifest.tokens.eos, "unk_token": manifest.tokens.unk, "pad_token": manifest.tokens.pad},
        size=manifest.model.source_vocab_size,
        extra={key: value for key, value in languages.items() if value}
        | {"model_max_length": manifest.model.max_positions},
    )
    if "shortlist.common" in stored:
        common = np.flatnonzero(stored["shortlist.common"])
        Shortlist(common, stored["shortlist.lexical"].astype(np.int32)).save(folder / FILE_NAME)
    return config


def _tensors(stored: Stored, config: Mapping[str, Any]) -> dict[str, Array]:
    """Every tensor of the checkpoint, in fp32."""
    width, sizes = config["d_model"], (config["vocab_size"], *2 * [config["decoder_vocab_size"]])
    there = _tables(stored)
    names = dict(_NAMES)
    if config["share_encoder_decoder_embeddings"]:
        names["source_embedding"] = "model.shared.weight"
    tensors = {
        names[table]: matrix(stored, table, size, width)
        for table, size in zip(TABLES, sizes, strict=True)
        if table in there
    }
    bias = np.zeros((1, sizes[1]), np.float32)
    output = there[-1]
    for key in ("offset.0", "offset", "bias"):  # with a shortlist, int8 and fp32; without
        if f"{output}.{key}" in stored:
            bias[0] = stored[f"{output}.{key}"]
    tensors["final_logits_bias"] = bias
    shapes = expected_tensors(MarianConfig.from_dict(config))
    for parts in stacks(config["encoder_layers"], config["decoder_layers"]):
        joined = stacked_name(parts)
        rows = [shapes[f"{part}.weight"][0] for part in parts]
        whole, offset = matrix(stored, joined, sum(rows), shapes[f"{parts[0]}.weight"][1]), stored[f"{joined}.bias"]
        ends = np.cumsum(rows)[:-1]
        for part, values, shift in zip(parts, np.split(whole, ends), np.split(offset, ends), strict=True):
            tensors[f"{part}.weight"], tensors[f"{part}.bias"] = values, shift
    tensors |= {name: stored[name] for name in shapes if name not in tensors}
    for side in ("encoder", "decoder"):
        table = stored.get(f"{side}.positions")  # fp32 packs store the usual ones, too
        if table is not None and not np.array_equal(table, sinusoidal_positions(*table.shape)):
            tensors[f"model.{side}.embed_positions.weight"] = table
    return {name: np.ascontiguousarray(value, np.float32) for name, value in tensors.items()}


def _tables(stored: Stored) -> list[str]:
    """The tables that a pack has; one that is tied to another goes by the first's name."""
    return [table for table in TABLES if any(key.startswith((f"{table}.", table)) for key in stored)]


def _config(pack: Pack, stored: Stored) -> dict[str, Any]:
    model, tokens = pack.manifest.model, pack.manifest.tokens
    there = _tables(stored)
    factor = stored.get("source_embedding.scale.embedding")  # of a pack with a shortlist, times the row's scale
    if factor is None:
        scaled = scaled_by_width(pack, model.d_model)
    else:
        largest = np.argmax(factor)
        ratio = float(factor[largest, 0] / stored["source_embedding.scale"][largest])
        scaled = not math.isclose(ratio, 1.0, rel_tol=1e-6)
    ours = {"architecture", "parameters", "source_vocab_size", "target_vocab_size", "max_positions"}
    return {key: value for key, value in asdict(model).items() if key not in ours} | {
        "model_type": "marian",
        "architectures": ["MarianMTModel"],
        "vocab_size": model.source_vocab_size,
        "decoder_vocab_size": model.target_vocab_size,
        "max_position_embeddings": model.max_positions,
        "num_hidden_layers": model.encoder_layers,
        "scale_embedding": scaled,
        "share_encoder_decoder_embeddings": "target_embedding" not in there,
        "tie_word_embeddings": "output_embedding" not in there,
        "is_encoder_decoder": True,
        "static_position_embeddings": True,
        "pad_token_id": tokens.pad,
        "eos_token_id": tokens.eos,
        "decoder_start_token_id": tokens.start,
        "forced_eos_token_id": pack.manifest.generation.forced_eos_token_id,
    }


def _tokenizers(pack: Pack) -> tuple[dict[str, Any], dict[str, Any] | None]:
    found: list[dict[str, Any] | None] = []
    for name in ("tokenizer.json", "tokenizer.target.json"):
        if name not in pack.manifest.files:
            found.append(None)
            continue
        try:
            found.append(json.loads(pack.file(name).read_text(encoding="utf-8")))
        except ValueError as error:
            raise ExportError(f"{pack.file(name)}: cannot be read as JSON: {error}") from None
    assert found[0] is not None  # Pack.open saw to it
    return found[0], found[1]
