"""native.bin: what the C core reads beside weights.bin, from a pack's manifest, graphs and tokenizers.

The graphs say where each tensor lies in weights.bin, so the file is made of any int8 pack, old ones too. Its format is
in ``docs/core/native-format.md``.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from mobilenmt.export.layers import stacked_name
from mobilenmt.export.native.tensors import Tensors
from mobilenmt.export.native.tokenizer import NONE, NotExpressible, tokenizer_table
from mobilenmt.export.quantize.quantizer import TABLES
from mobilenmt.export.weights import WEIGHTS_FILE
from mobilenmt.runtime.manifest import GenerationDefaults, PackManifest
from mobilenmt.runtime.pack import read_manifest

NATIVE_FILE = "native.bin"
_HEADER = 192
_NO_BIAS = 2**64 - 1
_COLUMNS_INT8, _ROWS_UINT8, _ROWS_INT8, _NORM, _TABLE, _FLAGS, _SHORT, _LONG, _ROWS_INT4, _ROWS_FLOAT = range(1, 11)
_EARLY = {False: 0, True: 1, "never": 2}
_ACTIVATIONS: dict[str, int] = {
    name: number
    for number, names in enumerate(
        (
            "relu", "gelu gelu_python", "gelu_accurate gelu_fast gelu_new gelu_pytorch_tanh gelu_python_tanh",
            "gelu_10", "silu swish", "quick_gelu", "tanh", "sigmoid", "linear", "leaky_relu", "mish", "relu2", "relu6",
            "laplace",
        )
    )
    for name in names.split()
}  # fmt: skip


def native_bytes(
    folder: Path, manifest: PackManifest | None = None, *, report: Callable[[str], None] = lambda line: None
) -> bytes | None:
    """The content of native.bin for the pack in ``folder``.

    Args:
        folder: holds the graphs, weights.bin and the tokenizers.
        manifest: what pack.json says or will say; by default it is read.
        report: receives a line that says why there is none.

    Returns:
        None for a pack that runs on its graphs alone: fp32, or with something the format has no form for.
    """
    manifest = manifest or read_manifest(folder)
    try:
        if manifest.precision != "int8":
            raise NotExpressible(f"its precision is {manifest.precision}")
        return _file(folder, manifest)
    except NotExpressible as reason:
        report(f"no {NATIVE_FILE}: {reason}")
        return None


def _file(folder: Path, manifest: PackManifest) -> bytes:
    model, tokens, generation = manifest.model, manifest.tokens, manifest.generation
    tensors = Tensors(folder, manifest)
    size = (folder / WEIGHTS_FILE).stat().st_size
    records = list(_records(tensors))
    target = folder / "tokenizer.target.json"
    text = (folder / "tokenizer.json").read_text(encoding="utf-8")
    parts = [
        _ids(generation.bad_token_ids),
        b"".join(records),
        tokenizer_table(text, tokens, model.source_vocab_size),
    ]
    if target.is_file():
        table = tokenizer_table(target.read_text(encoding="utf-8"), tokens, model.source_vocab_size, encodes=False)
        parts.append(table)
    if generation.begin_suppress_tokens:
        parts.append(_ids(generation.begin_suppress_tokens))
    content, offsets = bytearray(_HEADER), []
    for part in parts:
        content += bytes(-len(content) % 64)
        offsets.append(len(content))
        content += part
    if model.activation_function not in _ACTIVATIONS:
        raise NotExpressible(f"its activation function is {model.activation_function}")

    # A core that knows no 4 bits and no fp32 is to say that the file is newer than it.
    version = 2 if any(record[0] in (_ROWS_INT4, _ROWS_FLOAT) for record in records) else 1

    def optional(token: int | None) -> int:
        return NONE if token is None else token

    content[:128] = struct.pack(
        "<8s2I7I I3I5I I f 2I2I2I2I Q",
        b"MNMTCORE", version, 2 * generation.renormalize_logits + 4 * has_rules(generation),
        model.d_model, model.encoder_layers, model.decoder_layers, model.encoder_attention_heads,
        model.decoder_attention_heads, model.encoder_ffn_dim, model.decoder_ffn_dim,
        _ACTIVATIONS[model.activation_function],
        model.source_vocab_size, model.target_vocab_size, model.max_positions,
        tokens.start, tokens.eos, tokens.pad, optional(tokens.unk), optional(generation.forced_eos_token_id),
        _EARLY[generation.early_stopping],
        1.0 if _factor_in_scales(tensors) else tensors.factor,
        offsets[0], len(generation.bad_token_ids), offsets[1], len(records), offsets[2], len(parts[2]),
        *((offsets[3], len(parts[3])) if target.is_file() else (0, 0)),
        size,
    )  # fmt: skip
    if manifest.alignment is not None:
        head = manifest.alignment.head
        places = (manifest.alignment.layer + 1, 0 if head is None else head + 1, manifest.alignment.later)
        content[128:140] = struct.pack("<3I", *places)
    if has_rules(generation):
        first = generation.begin_suppress_tokens
        content[140:160] = struct.pack(
            "<5I", optional(generation.forced_bos_token_id), offsets[-1] if first else 0, len(first),
            min(generation.no_repeat_ngram_size, NONE), min(generation.min_length, NONE),
        )  # fmt: skip
    return bytes(content)


def has_rules(generation: GenerationDefaults) -> bool:
    """Whether a search has rules that the first readers of the format do not know."""
    return bool(
        generation.forced_bos_token_id is not None
        or generation.begin_suppress_tokens
        or generation.no_repeat_ngram_size
        or generation.min_length > 1
    )


def _ids(tokens: Sequence[int]) -> bytes:
    return struct.pack(f"<{len(tokens)}I", *tokens)


def _has_shortlist(tensors: Tensors) -> bool:
    return "shortlist.common" in tensors


def _factor_in_scales(tensors: Tensors) -> bool:
    """With a shortlist the scales of int8 tables have the factor on embeddings in them, if all tables are int8."""
    return any(f"{table}.scale.embedding" in tensors for table in TABLES)


def _record(
    kind: int = 0, rows: int = 0, columns: int = 0, stride: int = 0, values: int = 0, scale: int = 0,
    bias: int = _NO_BIAS, step: int = 1,
) -> bytes:  # fmt: skip
    return struct.pack("<4I4Q", kind, rows, columns, stride, values, scale, bias, step)


def _records(tensors: Tensors) -> Iterator[bytes]:
    """All records, in the order of the format."""
    model, width = tensors.model, tensors.model.d_model
    yield _embedding(tensors, "source_embedding")
    yield _embedding(tensors, "target_embedding", "source_embedding")
    yield _output(tensors)
    for name in ("encoder.positions", "decoder.positions", "positions.blocks"):
        yield _table(tensors, name)
    yield _table(tensors, "positions.rest.sin")
    yield _table(tensors, "positions.rest.cos")
    if _has_shortlist(tensors):
        common, lexical = tensors["shortlist.common"], tensors["shortlist.lexical"]
        kind = _SHORT if model.target_vocab_size <= 2**16 else _LONG
        yield _record(_FLAGS, common.shape[0], 1, 1, common.offset)
        yield _record(kind, lexical.shape[0], lexical.shape[1], lexical.shape[1], lexical.offset)
    else:
        yield from (_record(), _record())
    yield from (_record(), _record())  # the last norms of pre-norm models, which the exporter refuses
    for index in range(model.encoder_layers):
        layer = f"model.encoder.layers.{index}"
        yield _linear(tensors, _stacked(f"{layer}.self_attn", "qkv"), width)
        yield _linear(tensors, f"{layer}.self_attn.out_proj", width)
        yield _norm(tensors, f"{layer}.self_attn_layer_norm")
        yield _linear(tensors, f"{layer}.fc1", width)
        yield _linear(tensors, f"{layer}.fc2", model.encoder_ffn_dim)
        yield _norm(tensors, f"{layer}.final_layer_norm")
    for index in range(model.decoder_layers):
        layer = f"model.decoder.layers.{index}"
        yield _linear(tensors, _stacked(f"{layer}.self_attn", "qkv"), width)
        yield _linear(tensors, f"{layer}.self_attn.out_proj", width)
        yield _norm(tensors, f"{layer}.self_attn_layer_norm")
        yield _linear(tensors, f"{layer}.encoder_attn.q_proj", width)
        yield _cross(tensors, index)
        yield _linear(tensors, f"{layer}.encoder_attn.out_proj", width)
        yield _norm(tensors, f"{layer}.encoder_attn_layer_norm")
        yield _linear(tensors, f"{layer}.fc1", width)
        yield _linear(tensors, f"{layer}.fc2", model.decoder_ffn_dim)
        yield _norm(tensors, f"{layer}.final_layer_norm")


def _stacked(attention: str, parts: str) -> str:
    return stacked_name([f"{attention}.{part}_proj" for part in parts])


def _embedding(tensors: Tensors, *names: str) -> bytes:
    """Tied tables are stored under the first one's name."""
    width = tensors.model.d_model
    name = next((name for name in names if tensors.has_table(name)), names[-1])
    if f"{name}.int8" in tensors:
        values, scale = tensors[f"{name}.int8"], tensors.first(f"{name}.scale.embedding", f"{name}.scale")
        return _record(_ROWS_INT8, values.shape[0], width, width, values.offset, scale.offset)
    return _matrix(tensors, name, width)


def _output(tensors: Tensors) -> bytes:
    model = tensors.model
    name = next((table for table in reversed(TABLES) if tensors.has_table(table)), TABLES[0])
    part = "" if _has_shortlist(tensors) else f".{model.target_vocab_size}"
    # With a shortlist translator.onnx shifts nothing: there the offset is the bias alone.
    found = next(
        (bias for bias in (f"{name}.offset.0", f"{name}.offset", f"{name}.bias{part}") if bias in tensors), None
    )
    bias = _NO_BIAS if found is None else tensors[found].offset
    if f"{name}.int8" in tensors:
        values, scale = tensors[f"{name}.int8"], tensors[f"{name}.scale"]
        return _record(_ROWS_INT8, values.shape[0], model.d_model, model.d_model, values.offset, scale.offset, bias)
    return _matrix(tensors, name, model.d_model, part, bias=bias)


def _table(tensors: Tensors, name: str) -> bytes:
    if name not in tensors:
        return _record()
    stored = tensors[name]
    columns = stored.shape[-1]
    return _record(_TABLE, math.prod(stored.shape[:-1]), columns, columns, stored.offset)


def _linear(tensors: Tensors, name: str, columns: int) -> bytes:
    return _matrix(tensors, name, columns, bias=tensors[f"{name}.bias"].offset)


def _cross(tensors: Tensors, layer: int) -> bytes:
    """Keys and values of all layers are one matrix; this is the part of a layer."""
    layers, width = tensors.model.decoder_layers, tensors.model.d_model
    names = [f"model.decoder.layers.{index}.encoder_attn.{part}_proj" for index in range(layers) for part in "kv"]
    name, first = stacked_name(names), 2 * width * layer
    bias = tensors[f"{name}.bias"].offset + 4 * first
    return _matrix(tensors, name, width, bias=bias, first=first, count=2 * width)


def _matrix(
    tensors: Tensors, name: str, columns: int, part: str = "", *, bias: int = _NO_BIAS, first: int = 0,
    count: int | None = None,
) -> bytes:  # fmt: skip
    """The record of a matrix in whatever form it is stored.

    Args:
        tensors: those of the pack.
        name: the matrix in the exporter.
        columns: its inputs.
        part: what follows the names of its tensors, where only some rows are read.
        bias: where its bias lies.
        first, count: rows that are meant; all by default.
    """
    if f"{name}{part}" in tensors:
        values = tensors[f"{name}{part}"]
        rows = count or values.shape[0]
        return _record(_ROWS_FLOAT, rows, columns, columns, values.offset + 4 * first * columns, 0, bias)
    if f"{name}.multipliers{part}" in tensors:
        values = tensors.first(f"{name}.int4.table{part}", f"{name}.int4{part}")
        multipliers, scale = tensors[f"{name}.multipliers{part}"], tensors[f"{name}.scale{part}"]
        blocks, row = multipliers.shape[1], math.prod(values.shape[1:])
        place = (multipliers.offset + first * blocks) << 8 | 2 * row // blocks
        offset = values.offset + first * row
        rows = count or values.shape[0]
        return _record(_ROWS_INT4, rows, columns, 2 * row, offset, scale.offset + 4 * first, bias, place)
    kinds = (f"{name}.int8.rows{part}", f"{name}.int8.table{part}")
    if any(kind in tensors for kind in kinds):
        values = tensors.first(*kinds)
        scale = tensors.first(f"{name}.scale.blocks{part}", f"{name}.scale{part}")
        row, step = math.prod(values.shape[1:]), math.prod(scale.shape[1:])
        rows = count or values.shape[0]
        places = values.offset + first * row, scale.offset + 4 * first * step
        return _record(_ROWS_UINT8, rows, columns, row, *places, bias, step)
    values, scale = tensors[f"{name}.int8"], tensors[f"{name}.scale"]
    stride = values.shape[1]
    places = values.offset + first, scale.offset + 4 * first
    return _record(_COLUMNS_INT8, count or stride, columns, stride, *places, bias)


def _norm(tensors: Tensors, name: str) -> bytes:
    weight, bias = tensors[f"{name}.weight"], tensors[f"{name}.bias"]
    width = weight.shape[0]
    return _record(_NORM, width, 1, 1, weight.offset, 0, bias.offset)
