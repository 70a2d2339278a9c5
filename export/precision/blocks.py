"""Kernels that several forms share: rows in blocks, one row of activations at a time; whole matrices of int8, many."""

from __future__ import annotations

import numpy as np

from mobilenmt.export.graph import FLOAT, INT8, Graph
from mobilenmt.export.quantize.forms import block_size
from mobilenmt.export.weights import Array

ZERO_POINT = 128
"""Of bytes without a sign."""


def in_blocks(values: Array) -> tuple[Array, int]:
    """int8 [N, K] as the kernels want it: uint8 [N, blocks, size] with zero point 128, and the size.

    A last block that K does not fill is padded with zeros.
    """
    size = block_size(values.shape[1])
    padded = np.pad(values, ((0, 0), (0, -values.shape[1] % size))).reshape(len(values), -1, size)
    return (padded.astype(np.int16) + ZERO_POINT).astype(np.uint8), size


def whole_blocks(blocks: Array, table: Array) -> bool:
    """Whether blocks [V, n, size] divide the width of ``table`` [V, D]."""
    return blocks.shape[1] * blocks.shape[2] == table.shape[1]


def table_data(graph: Graph, name: str, blocks: Array, table: Array) -> str:
    """Store uint8 ``blocks`` [V, n, size] of a ``table`` [V, D] as :func:`gather_blocks` reads them."""
    if whole_blocks(blocks, table):
        return graph.weight(f"{name}.int8.table", blocks.reshape(table.shape))
    return graph.weight(f"{name}.int8.rows", blocks)


def gather_blocks(graph: Graph, ids: str, data: str, blocks: Array, table: Array, scale: str) -> str:
    """Rows of a ``table`` [V, D], stored as uint8 ``blocks`` [V, n, size] (:func:`table_data`), for int64 ``ids``
    [...]: fp32 [..., D]. ``scale`` is a value [V, n] where the blocks divide the width, else [V]."""
    columns, size = table.shape[1], blocks.shape[2]
    if whole_blocks(blocks, table):
        return graph.op("GatherBlockQuantized", data, ids, scale, bits=8, block_size=size, quantize_axis=1)
    # The kernel wants a width that its blocks divide; other widths take the same bytes through standard nodes.
    picked = graph.op("Gather", data, ids)
    value = graph.op("Sub", graph.op("Cast", picked, to=FLOAT), graph.f32(ZERO_POINT))
    value = cut(graph, value, ids, blocks.shape[1] * size, columns)
    return graph.op("Mul", value, graph.op("Unsqueeze", graph.op("Gather", scale, ids), graph.i64(-1)))


def cut(graph: Graph, value: str, ids: str, padded: int, columns: int) -> str:
    """``value`` [..., padded], its last dimension in blocks or not, without the padding: [..., columns], where ``ids``
    has the shape [...]."""
    shape = graph.op("Concat", graph.op("Shape", ids), graph.i64(padded), axis=0)
    return graph.op("Slice", graph.op("Reshape", value, shape), graph.i64(0), graph.i64(columns), graph.i64(-1))


def blockwise(
    graph: Graph, x: str, data: str, scale: str, bias: str, columns: int, rows: int, size: int, bits: int = 8
) -> str:
    """x [..., K] times uint8 ``data`` [N, n, size * bits / 8] with scales [N, n]; activations are INT8."""
    inputs = [x, data, scale] + (["", "", bias] if bias else [])
    return graph.op("MatMulNBits", *inputs, K=columns, N=rows, bits=bits, block_size=size, accuracy_level=4)


def with_late_scales(graph: Graph, data: str) -> str:
    """``data`` for :func:`blockwise` whose scales are computed in the graph: constant once both are folded.

    ONNX Runtime packs constant data before it runs, with scales that are not there yet in a session that folds
    nothing, and gives zeros. So the data are made as late as the scales; such a session is slow, but right.
    """
    home = graph.home
    key = f"{data} late"
    if key not in home.derived:
        home.derived[key] = home.op("Identity", data)
    return home.derived[key]


def wide_product(graph: Graph, x: str, data: str, scale: str, bias: str) -> str:
    """x [..., K] times int8 ``data`` [K, N] with scales [N]; all activations share a scale."""
    inputs = [x, data, scale] + (["", bias] if bias else [])
    return graph.op("DynamicQuantizeMatMul", *inputs)


def turned(graph: Graph, blocks: str, rows: int, columns: int) -> str:
    """int8 [columns, rows] of uint8 ``blocks`` [rows, n, size]: constant, so ONNX Runtime computes it once at
    opening."""
    home = graph.home
    known = home.derived.get(blocks)
    if known is None:
        # With its highest bit turned over, a byte read as signed is the byte less 128: no wider type on the way, which
        # would take several times the matrices' memory while the graph is opened.
        values = home.op("BitwiseXor", blocks, home.constant(ZERO_POINT, np.uint8))
        values = home.op("Reshape", home.op("Cast", values, to=INT8), home.i64(rows, -1))
        values = home.op("Slice", values, home.i64(0), home.i64(columns), home.i64(1))
        known = home.derived[blocks] = home.op("Transpose", values, perm=[1, 0])
    return known
