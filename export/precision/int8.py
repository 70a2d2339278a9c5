"""INT8 for phones: the integers of every layer are the same for all kernels."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mobilenmt.export.graph import FLOAT, Graph
from mobilenmt.export.precision.blocks import (
    blockwise,
    gather_blocks,
    in_blocks,
    table_data,
    turned,
    whole_blocks,
    wide_product,
)
from mobilenmt.export.precision.protocol import Precision, Use, scaled
from mobilenmt.export.quantize.forms import WIDE_LEVELS
from mobilenmt.export.quantize.quantizer import Quantizer
from mobilenmt.export.quantize.rounding import Rounded
from mobilenmt.export.weights import Array

TABLE_LEVELS = WIDE_LEVELS
"""Largest stored magnitude of an output layer that is read whole: no kernel that reads it adds in 16 bits."""
_SHIFT = 4.0


class Int8(Precision):
    """Symmetric INT8, one fp32 scale for each output of a matrix and for each row of an embedding.

    A sentence goes through the encoder at once: ``DynamicQuantizeMatMul``, from 16 rows on two to three times as fast
    as the alternative. The decoder sees one row at a time: ``MatMulNBits``, which was up to twice as fast there. A beam
    or a batch is in between, and takes the first kernel with the second one's bytes, turned round when the graph is
    opened.
    Every layer's integers are the same for all of them.
    """

    name = "int8"

    def __init__(self, quantizer: Quantizer) -> None:
        self._quantizer = quantizer

    def linear(self, graph: Graph, x: str, name: str, weight: Array, bias: Array | None, use: Use) -> str:
        rows, columns = weight.shape
        found = self._quantizer.round(name, weight)
        values, scales = found.values, found.scales
        offset = "" if bias is None else graph.weight(f"{name}.bias", bias)
        if use is Use.ENCODER:
            data = graph.weight(f"{name}.int8", np.ascontiguousarray(values.T))
            return wide_product(graph, x, data, graph.weight(f"{name}.scale", scales), offset)
        stored, size = in_blocks(values)
        blocks = graph.weight(f"{name}.int8.rows", stored)
        if use is Use.STEP:
            repeated = graph.weight(f"{name}.scale.blocks", _repeat(scales, stored.shape[1]))
            return blockwise(graph, x, blocks, repeated, offset, columns, rows, size)
        return wide_product(
            graph, x, turned(graph, blocks, rows, columns), graph.weight(f"{name}.scale", scales), offset
        )

    def embed(self, graph: Graph, ids: str, name: str, table: Array, factor: float, *, chosen: bool) -> str:
        if not chosen:
            found = self._quantizer.round(name, table, TABLE_LEVELS)
            blocks, _ = in_blocks(found.values)
            data = table_data(graph, name, blocks, table)
            if whole_blocks(blocks, table):
                scale = graph.weight(f"{name}.scale.blocks", _repeat(found.scales, blocks.shape[1]))
            else:
                scale = graph.weight(f"{name}.scale", found.scales)
            return scaled(graph, gather_blocks(graph, ids, data, blocks, table, scale), factor)
        found = self._quantizer.round(name, table)
        rows = graph.op("Cast", graph.op("Gather", graph.weight(f"{name}.int8", found.values), ids), to=FLOAT)
        if self._quantizer.all_tables_int8:
            scale = graph.weight(f"{name}.scale.embedding", found.scales[:, None] * np.float32(factor))
            return graph.op("Mul", rows, graph.op("Gather", scale, ids))
        # native.bin has one factor for all tables, and those of other forms have theirs beside the scales
        scale = graph.op("Gather", graph.weight(f"{name}.scale", found.scales), ids)
        return scaled(graph, graph.op("Mul", rows, graph.op("Unsqueeze", scale, graph.i64(-1))), factor)

    def shift(self, name: str, norm: Array) -> float:
        # With no value below zero the quantized input has zero point 0, for which ONNX Runtime multiplies one row by
        # a matrix as it lies, instead of packing the matrix first: a quarter of the time. Normalized values hardly
        # ever fall below minus four deviations; if one does, the result is right all the same, and slower.
        return float(_SHIFT * np.sqrt(np.mean(np.square(norm.astype(np.float64)))))

    def operands(self, name: str, *, bias: bool) -> tuple[str, ...]:
        return ("candidate_columns", "candidate_scale", "candidate_offset")[: 3 if bias else 2]

    def choose(
        self, graph: Graph, ids: str, name: str, table: Array, bias: Array | None, shift: float
    ) -> dict[str, str]:
        stored = self._quantizer.round(name, table)
        rows = graph.op("Gather", self._rows(graph, name, stored), ids)
        values, scales = stored.integers(), stored.scales
        found = [
            graph.op("Transpose", rows, perm=[1, 0]),
            graph.op("Gather", graph.weight(f"{name}.scale", scales), ids),
        ]
        if shift or bias is not None:
            offset = -shift * scales * values.astype(np.int32).sum(axis=1) + (0.0 if bias is None else bias)
            offset = graph.weight(f"{name}.offset.{shift:g}", offset.astype(np.float32))
            found.append(graph.op("Gather", offset, ids))
        return dict(zip(self.operands(name, bias=len(found) > 2), found, strict=True))

    def score(self, graph: Graph, x: str, chosen: Mapping[str, str], use: Use) -> str:
        columns, scale, *offset = chosen.values()
        if use is not Use.STEP:
            return wide_product(graph, x, columns, scale, offset[0] if offset else "")
        quantized, step, zero = graph.ops("DynamicQuantizeLinear", x, outputs=3)
        sums = graph.op("Cast", graph.op("MatMulInteger", quantized, columns, zero), to=FLOAT)
        y = graph.op("Mul", graph.op("Mul", sums, step), scale)
        return graph.op("Add", y, *offset) if offset else y

    def project(self, graph: Graph, x: str, name: str, table: Array, rows: int, bias: Array | None) -> str:
        found = self._quantizer.round(name, table, TABLE_LEVELS)
        blocks, size = in_blocks(found.values)
        stored, scale = f"{name}.int8.rows", f"{name}.scale.blocks"
        graph.weight(stored, blocks)
        graph.weight(scale, _repeat(found.scales, blocks.shape[1]))
        stored, scale = (graph.weight_rows(f"{item}.{rows}", item, rows) for item in (stored, scale))
        offset = "" if bias is None else graph.weight(f"{name}.bias.{rows}", bias[:rows])
        return blockwise(graph, x, stored, scale, offset, table.shape[1], rows, size)

    def _rows(self, graph: Graph, name: str, stored: Rounded) -> str:
        """int8 [V, D]: the integers of a table that rows are chosen from."""
        return graph.weight(f"{name}.int8", stored.values)


def _repeat(scales: Array, blocks: int) -> Array:
    """The kernels take a scale for each block of a row: [N] -> [N, blocks]."""
    return np.repeat(scales[:, None], blocks, axis=1)
