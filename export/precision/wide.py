"""INT8 of eight bits: finer steps in the same bytes, for kernels that do not add in 16 bits."""

from __future__ import annotations

from mobilenmt.export.graph import Graph
from mobilenmt.export.precision.blocks import (
    blockwise,
    gather_blocks,
    in_blocks,
    table_data,
    whole_blocks,
    with_late_scales,
)
from mobilenmt.export.precision.float32 import FloatRows
from mobilenmt.export.precision.protocol import Use, scaled
from mobilenmt.export.quantize.quantizer import Quantizer
from mobilenmt.export.weights import Array


class WideInt8(FloatRows):
    """``MatMulNBits`` for any number of rows: ``DynamicQuantizeMatMul`` and ``MatMulInteger`` would add in 16 bits on
    processors without VNNI. Rows that a shortlist chooses are multiplied in fp32."""

    name = "int8-wide"

    def __init__(self, quantizer: Quantizer) -> None:
        self._quantizer = quantizer

    def linear(self, graph: Graph, x: str, name: str, weight: Array, bias: Array | None, use: Use) -> str:
        found = self._quantizer.round(name, weight)
        blocks, size = in_blocks(found.values)
        offset = "" if bias is None else graph.weight(f"{name}.bias", bias)
        scale = _repeated(graph, graph.weight(f"{name}.scale", found.scales), blocks.shape[:2])
        data = graph.weight(f"{name}.int8.rows", blocks)
        return blockwise(graph, x, with_late_scales(graph, data), scale, offset, weight.shape[1], len(weight), size)

    def embed(self, graph: Graph, ids: str, name: str, table: Array, factor: float, *, chosen: bool) -> str:
        found = self._quantizer.round(name, table)
        blocks, _ = in_blocks(found.values)
        data = table_data(graph, name, blocks, table)
        scale = graph.weight(f"{name}.scale", found.scales)
        if whole_blocks(blocks, table):
            scale = _repeated(graph, scale, blocks.shape[:2])
        return scaled(graph, gather_blocks(graph, ids, data, blocks, table, scale), factor)

    def project(self, graph: Graph, x: str, name: str, table: Array, rows: int, bias: Array | None) -> str:
        found = self._quantizer.round(name, table)
        blocks, size = in_blocks(found.values)
        graph.weight(f"{name}.int8.rows", blocks)
        graph.weight(f"{name}.scale", found.scales)
        data, scale = (
            graph.weight_rows(f"{item}.{rows}", item, rows) for item in (f"{name}.int8.rows", f"{name}.scale")
        )
        offset = "" if bias is None else graph.weight(f"{name}.bias.{rows}", bias[:rows])
        scale = _repeated(graph, scale, (rows, blocks.shape[1]))
        return blockwise(graph, x, with_late_scales(graph, data), scale, offset, table.shape[1], rows, size)


def _repeated(graph: Graph, scale: str, shape: tuple[int, ...]) -> str:
    """fp32 [N, blocks] of the scales [N]: constant, computed at opening."""
    home = graph.home
    key = f"{scale} repeated"
    if key not in home.derived:
        home.derived[key] = home.op("Expand", home.op("Unsqueeze", scale, home.i64(1)), home.i64(*shape))
    return home.derived[key]
