"""How a pack stores and multiplies its matrices: fp32 as the reference, INT8 for phones."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Protocol

import numpy as np

from mobilenmt.export.graph import FLOAT, INT8, Graph
from mobilenmt.export.weights import Array

_BLOCKS = (128, 64, 32, 16)  # 128 is the fastest in ONNX Runtime's kernels; 16 the smallest they take
ZERO_POINT = 128
LEVELS = 63
"""Largest stored magnitude. Kernels of processors without VNNI add pairs of products of an 8-bit activation and a
weight in 16 bits: 2 * 255 * 63 fits, 2 * 255 * 127 overflows and gives wrong results silently."""
TABLE_LEVELS = 127
"""Likewise of an output layer that is read whole: no kernel that reads it adds in 16 bits."""
_SHIFT = 4.0


class Use(Enum):
    """Which kernel suits a matrix: how many rows of activations it meets at a time."""

    ENCODER = "a whole sentence"
    STEP = "the last token of one sentence, or of a few"
    STEPS = "the last tokens of a beam or of a batch; shares the bytes that STEP stores"


class Precision(Protocol):
    """Emits the nodes that read a matrix, and stores it."""

    name: str

    def linear(self, graph: Graph, x: str, name: str, weight: Array, bias: Array | None, use: Use) -> str:
        """x [..., K] times ``weight`` [N, K] transposed, plus ``bias`` [N] -> [..., N]."""
        ...

    def embed(self, graph: Graph, ids: str, name: str, table: Array, factor: float, *, chosen: bool) -> str:
        """Rows of ``table`` [V, D] for int64 ``ids`` [...], times ``factor`` -> fp32 [..., D]; ``chosen`` if
        :meth:`choose` reads tables, too."""
        ...

    def shift(self, norm: Array) -> float:
        """What to add to the input of :meth:`score` at ``Use.STEP``, whose LayerNormalization has weights ``norm``."""
        ...

    def operands(self, *, bias: bool) -> tuple[str, ...]:
        """Names of what :meth:`choose` gives for an output layer with a bias or a shift, or without."""
        ...

    def choose(
        self, graph: Graph, ids: str, name: str, table: Array, bias: Array | None, shift: float
    ) -> dict[str, str]:
        """Rows of ``table`` [V, D] and elements of ``bias`` [V] for int64 ``ids`` [n], as :meth:`score` reads them for
        an input to which ``shift`` was added: name of an operand -> value."""
        ...

    def score(self, graph: Graph, x: str, chosen: Mapping[str, str], use: Use) -> str:
        """x [..., D] times the chosen rows transposed, plus their bias -> [..., n]."""
        ...

    def project(self, graph: Graph, x: str, name: str, table: Array, rows: int, bias: Array | None) -> str:
        """x [..., D] times the first ``rows`` rows of ``table`` [V, D] transposed, plus ``bias`` -> [..., rows]."""
        ...


class Float32(Precision):
    """Plain matrices, each stored as the checkpoint has it: [out, in]."""

    name = "fp32"

    def linear(self, graph: Graph, x: str, name: str, weight: Array, bias: Array | None, use: Use) -> str:
        y = graph.op("FusedMatMul", x, graph.weight(name, weight), transB=1)
        return y if bias is None else graph.op("Add", y, graph.weight(f"{name}.bias", bias))

    def embed(self, graph: Graph, ids: str, name: str, table: Array, factor: float, *, chosen: bool) -> str:
        return _scaled(graph, graph.op("Gather", graph.weight(name, table), ids), factor)

    def shift(self, norm: Array) -> float:
        return 0.0

    def operands(self, *, bias: bool) -> tuple[str, ...]:
        return ("candidate_rows", "candidate_offset") if bias else ("candidate_rows",)

    def choose(
        self, graph: Graph, ids: str, name: str, table: Array, bias: Array | None, shift: float
    ) -> dict[str, str]:
        values = [graph.op("Gather", graph.weight(name, table), ids)]
        if bias is not None:
            values.append(graph.op("Gather", graph.weight(f"{name}.offset", bias), ids))
        return dict(zip(self.operands(bias=bias is not None), values, strict=True))

    def score(self, graph: Graph, x: str, chosen: Mapping[str, str], use: Use) -> str:
        rows, *offset = chosen.values()
        y = graph.op("FusedMatMul", x, rows, transB=1)
        return graph.op("Add", y, *offset) if offset else y

    def project(self, graph: Graph, x: str, name: str, table: Array, rows: int, bias: Array | None) -> str:
        graph.weight(name, table)
        y = graph.op("FusedMatMul", x, graph.weight_rows(f"{name}.{rows}", name, rows), transB=1)
        return y if bias is None else graph.op("Add", y, graph.weight(f"{name}.bias.{rows}", bias[:rows]))


class Int8(Precision):
    """Symmetric INT8, one fp32 scale for each output of a matrix and for each row of an embedding.

    A sentence goes through the encoder at once: ``DynamicQuantizeMatMul``, from 16 rows on two to three times as fast
    as
    the alternative. The decoder sees one row at a time: ``MatMulNBits``, which was up to twice as fast there. A beam or
    a
    batch is in between, and takes the first kernel with the second one's bytes, turned round when the graph is opened.
    Every layer's integers are the same for all of them.
    """

    name = "int8"

    def linear(self, graph: Graph, x: str, name: str, weight: Array, bias: Array | None, use: Use) -> str:
        rows, columns = weight.shape
        values, scales = quantize_rows(weight, LEVELS)
        offset = "" if bias is None else graph.weight(f"{name}.bias", bias)
        if use is Use.ENCODER:
            data = graph.weight(f"{name}.int8", np.ascontiguousarray(values.T))
            return self._wide(graph, x, data, graph.weight(f"{name}.scale", scales), offset)
        stored, size = _blocks(values)
        blocks = graph.weight(f"{name}.int8.rows", stored)
        if use is Use.STEP:
            repeated = graph.weight(f"{name}.scale.blocks", _repeat(scales, stored.shape[1]))
            return _blockwise(graph, x, blocks, repeated, offset, columns, rows, size)
        return self._wide(
            graph, x, _turned(graph, blocks, rows, columns), graph.weight(f"{name}.scale", scales), offset
        )

    def embed(self, graph: Graph, ids: str, name: str, table: Array, factor: float, *, chosen: bool) -> str:
        columns = table.shape[1]
        if chosen:
            values, scales = quantize_rows(table, LEVELS)
            rows = graph.op("Cast", graph.op("Gather", graph.weight(f"{name}.int8", values), ids), to=FLOAT)
            scale = graph.weight(f"{name}.scale.embedding", scales[:, None] * np.float32(factor))
            return graph.op("Mul", rows, graph.op("Gather", scale, ids))
        values, scales = quantize_rows(table, TABLE_LEVELS)
        blocks, size = _blocks(values)
        if blocks.shape[1] * size == columns:
            data = graph.weight(f"{name}.int8.table", blocks.reshape(table.shape))
            scale = graph.weight(f"{name}.scale.blocks", _repeat(scales, blocks.shape[1]))
            rows = graph.op("GatherBlockQuantized", data, ids, scale, bits=8, block_size=size, quantize_axis=1)
            return _scaled(graph, rows, factor)
        # The kernel wants a width that its blocks divide; other widths take the same bytes through standard nodes.
        picked = graph.op("Gather", graph.weight(f"{name}.int8.rows", blocks), ids)
        value = graph.op("Sub", graph.op("Cast", picked, to=FLOAT), graph.f32(ZERO_POINT))
        shape = graph.op("Concat", graph.op("Shape", ids), graph.i64(blocks.shape[1] * size), axis=0)
        value = graph.op("Slice", graph.op("Reshape", value, shape), graph.i64(0), graph.i64(columns), graph.i64(-1))
        scale = graph.op("Gather", graph.weight(f"{name}.scale", scales), ids)
        return _scaled(graph, graph.op("Mul", value, graph.op("Unsqueeze", scale, graph.i64(-1))), factor)

    def shift(self, norm: Array) -> float:
        # With no value below zero the quantized input has zero point 0, for which ONNX Runtime multiplies one row by
        # a matrix as it lies, instead of packing the matrix first: a quarter of the time. Normalized values hardly
        # ever fall below minus four deviations; if one does, the result is right all the same, and slower.
        return float(_SHIFT * np.sqrt(np.mean(np.square(norm.astype(np.float64)))))

    def operands(self, *, bias: bool) -> tuple[str, ...]:
        return ("candidate_columns", "candidate_scale", "candidate_offset")[: 3 if bias else 2]

    def choose(
        self, graph: Graph, ids: str, name: str, table: Array, bias: Array | None, shift: float
    ) -> dict[str, str]:
        values, scales = quantize_rows(table, LEVELS)
        rows = graph.op("Gather", graph.weight(f"{name}.int8", values), ids)
        found = [
            graph.op("Transpose", rows, perm=[1, 0]),
            graph.op("Gather", graph.weight(f"{name}.scale", scales), ids),
        ]
        if shift or bias is not None:
            offset = -shift * scales * values.astype(np.int32).sum(axis=1) + (0.0 if bias is None else bias)
            offset = graph.weight(f"{name}.offset.{shift:g}", offset.astype(np.float32))
            found.append(graph.op("Gather", offset, ids))
        return dict(zip(self.operands(bias=len(found) > 2), found, strict=True))

    def score(self, graph: Graph, x: str, chosen: Mapping[str, str], use: Use) -> str:
        columns, scale, *offset = chosen.values()
        if use is not Use.STEP:
            return self._wide(graph, x, columns, scale, offset[0] if offset else "")
        quantized, step, zero = graph.ops("DynamicQuantizeLinear", x, outputs=3)
        sums = graph.op("Cast", graph.op("MatMulInteger", quantized, columns, zero), to=FLOAT)
        y = graph.op("Mul", graph.op("Mul", sums, step), scale)
        return graph.op("Add", y, *offset) if offset else y

    def project(self, graph: Graph, x: str, name: str, table: Array, rows: int, bias: Array | None) -> str:
        values, scales = quantize_rows(table, TABLE_LEVELS)
        blocks, size = _blocks(values)
        stored, scale = f"{name}.int8.rows", f"{name}.scale.blocks"
        graph.weight(stored, blocks)
        graph.weight(scale, _repeat(scales, blocks.shape[1]))
        stored, scale = (graph.weight_rows(f"{item}.{rows}", item, rows) for item in (stored, scale))
        offset = "" if bias is None else graph.weight(f"{name}.bias.{rows}", bias[:rows])
        return _blockwise(graph, x, stored, scale, offset, table.shape[1], rows, size)

    def _wide(self, graph: Graph, x: str, data: str, scale: str, bias: str) -> str:
        inputs = [x, data, scale] + (["", bias] if bias else [])
        return graph.op("DynamicQuantizeMatMul", *inputs)


def _blockwise(graph: Graph, x: str, data: str, scale: str, bias: str, columns: int, rows: int, size: int) -> str:
    inputs = [x, data, scale] + (["", "", bias] if bias else [])
    return graph.op("MatMulNBits", *inputs, K=columns, N=rows, bits=8, block_size=size, accuracy_level=4)


def _scaled(graph: Graph, x: str, factor: float) -> str:
    return x if factor == 1.0 else graph.op("Mul", x, graph.f32(factor))


def _turned(graph: Graph, blocks: str, rows: int, columns: int) -> str:
    """int8 [columns, rows] of uint8 ``blocks`` [rows, n, size]: constant, so ONNX Runtime computes it once at
    opening."""
    home = graph.home
    known = home.derived.get(blocks)
    if known is None:
        # With its highest bit turned over, a byte read as signed is the byte less 128: no wider type on the way, which
        # would take several times the matrices' memory while the graph is opened.
        values = home.op("BitwiseXor", blocks, home.constant(ZERO_POINT, np.uint8))
        values = home.op("Reshape", home.op("Cast", values, to=INT8), home.i64(rows, -1))
        if columns % block_size(columns):  # each step more is a copy more of all matrices while the graph is opened
            values = home.op("Slice", values, home.i64(0), home.i64(columns), home.i64(1))
        known = home.derived[blocks] = home.op("Transpose", values, perm=[1, 0])
    return known


def block_size(columns: int) -> int:
    """The largest block that divides a row of ``columns`` values, or the smallest block if none does."""
    return next((size for size in _BLOCKS if columns % size == 0), _BLOCKS[-1])


def quantize_rows(weight: Array, levels: int) -> tuple[Array, Array]:
    """Symmetric: ``weight`` [N, K] -> int8 [N, K] from -levels to levels, and fp32 scales [N]."""
    scales = np.abs(weight).max(axis=1) / levels
    values = np.rint(weight / _divisor(scales)[:, None])
    return values.astype(np.int8), scales.astype(np.float32)


def _blocks(values: Array) -> tuple[Array, int]:
    """int8 [N, K] as the kernels want it: uint8 [N, blocks, size] with zero point 128, and the size.

    A last block that K does not fill is padded with zeros.
    """
    size = block_size(values.shape[1])
    padded = np.pad(values, ((0, 0), (0, -values.shape[1] % size))).reshape(len(values), -1, size)
    return (padded.astype(np.int16) + ZERO_POINT).astype(np.uint8), size


def _repeat(scales: Array, blocks: int) -> Array:
    """The kernels take a scale for each block of a row: [N] -> [N, blocks]."""
    return np.repeat(scales[:, None], blocks, axis=1)


def _divisor(scales: Array) -> Array:
    # A scale that has no reciprocal in fp32 belongs to (nearly) zeros: they are stored as zeros.
    divisor: Array = np.where(scales > 1e-30, scales, np.inf)
    return divisor


PRECISIONS: dict[str, type[Precision]] = {Float32.name: Float32, Int8.name: Int8}
