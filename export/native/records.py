"""The records of native.bin: where each matrix, table and vector lies in weights.bin, in whatever form it is stored."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx

from mobilenmt.export.layers import stacked_name
from mobilenmt.export.native.tokenizer import NotExpressible
from mobilenmt.export.quantize.quantizer import TABLES
from mobilenmt.runtime.manifest import PackManifest

_GRAPHS = ("encoder", "decoder", "greedy", "batch", "translator")
_NO_BIAS = 2**64 - 1
_COLUMNS_INT8, _ROWS_UINT8, _ROWS_INT8, _NORM, _TABLE, _FLAGS, _SHORT, _LONG, _ROWS_INT4, _ROWS_FLOAT = range(1, 11)
LATER_KINDS = (_ROWS_INT4, _ROWS_FLOAT)
"""What readers of version 1 do not know."""


@dataclass(frozen=True)
class _Stored:
    """Where a tensor lies in weights.bin."""

    offset: int
    shape: tuple[int, ...]


class Tensors:
    """The tensors that a pack's graphs read from weights.bin, by their names in the exporter."""

    def __init__(self, folder: Path, manifest: PackManifest) -> None:
        self._found: dict[str, _Stored] = {}
        self.model = manifest.model
        self.factor = 1.0
        for stem in _GRAPHS:
            path = folder / f"{stem}.onnx"
            if path.is_file():
                self._collect(onnx.load(str(path), load_external_data=False).graph, "")

    def _collect(self, graph: onnx.GraphProto, prefix: str) -> None:
        for tensor in graph.initializer:
            if tensor.data_location == onnx.TensorProto.EXTERNAL:
                where = {entry.key: entry.value for entry in tensor.external_data}
                stored = _Stored(int(where.get("offset", 0)), tuple(tensor.dims))
                self._found.setdefault(tensor.name.removeprefix(prefix), stored)
            elif not tensor.dims and tensor.data_type == onnx.TensorProto.FLOAT:
                # Without a shortlist the graph multiplies embeddings by the square root of their width, if at all.
                value = float(onnx.numpy_helper.to_array(tensor))
                if math.isclose(value, math.sqrt(self.model.d_model), rel_tol=1e-6):
                    self.factor = value
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.type == onnx.AttributeProto.GRAPH:
                    self._collect(attribute.g, f"{attribute.g.name}.")

    def __contains__(self, name: str) -> bool:
        return name in self._found

    def __getitem__(self, name: str) -> _Stored:
        if name not in self._found:
            raise NotExpressible(f"its graphs have no tensor {name}")
        return self._found[name]

    def has_table(self, name: str) -> bool:
        """Whether a table goes by this name; tied ones go by the first one's."""
        return any(found == name or found.startswith(f"{name}.") for found in self._found)

    def first(self, *names: str) -> _Stored:
        """The first of several names that is there."""
        return self[next((name for name in names if name in self), names[-1])]


def _has_shortlist(tensors: Tensors) -> bool:
    return "shortlist.common" in tensors


def factor_in_scales(tensors: Tensors) -> bool:
    """With a shortlist the scales of int8 tables have the factor on embeddings in them, if all tables are int8."""
    return any(f"{table}.scale.embedding" in tensors for table in TABLES)


def _record(
    kind: int = 0, rows: int = 0, columns: int = 0, stride: int = 0, values: int = 0, scale: int = 0,
    bias: int = _NO_BIAS, step: int = 1,
) -> bytes:  # fmt: skip
    return struct.pack("<4I4Q", kind, rows, columns, stride, values, scale, bias, step)


def all_records(tensors: Tensors) -> Iterator[bytes]:
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
