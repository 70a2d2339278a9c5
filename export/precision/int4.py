"""4 bits in blocks: half the bytes of INT8, and in every kernel the same integers."""

from __future__ import annotations

import numpy as np

from mobilenmt.export.graph import FLOAT, INT8, Graph
from mobilenmt.export.precision.blocks import blockwise, cut, wide_product, with_late_scales
from mobilenmt.export.precision.int8 import Int8
from mobilenmt.export.precision.protocol import Use, scaled
from mobilenmt.export.quantize.rounding import Rounded
from mobilenmt.export.weights import Array

_MIDDLE = 8
"""The zero point of 4 bits without a sign."""


class Int4(Int8):
    """Where one row of activations comes at a time, ``MatMulNBits`` reads the 4 bits as they are. A sentence, a beam or
    a batch takes the kernel of INT8 with the products of multipliers and values, which lie within its range; they are
    made once, when the graph is opened. So is the table that a shortlist chooses from.
    """

    name = "int4"

    def linear(self, graph: Graph, x: str, name: str, weight: Array, bias: Array | None, use: Use) -> str:
        rows, columns = weight.shape
        found = self._quantizer.round(name, weight)
        offset = "" if bias is None else graph.weight(f"{name}.bias", bias)
        data, multipliers, scale = self._store(graph, name, found)
        if use is Use.STEP:
            steps = _steps(graph, multipliers, scale)
            return blockwise(graph, x, with_late_scales(graph, data), steps, offset, columns, rows, found.block, bits=4)
        whole = _whole(graph, data, multipliers, found, turn=True)
        return wide_product(graph, x, whole, scale, offset)

    def embed(self, graph: Graph, ids: str, name: str, table: Array, factor: float, *, chosen: bool) -> str:
        found = self._quantizer.round(name, table)
        _, multipliers, scale = self._store(graph, name, found)
        packed = pack(found)
        padded = packed.shape[1] * found.block
        data = graph.weight(f"{name}.int4.table", packed.reshape(len(packed), -1))
        steps = _steps(graph, multipliers, scale)
        kinds = {"bits": 4, "block_size": found.block, "quantize_axis": 1}
        rows = graph.op("GatherBlockQuantized", data, ids, steps, **kinds)
        if padded != table.shape[1]:
            rows = cut(graph, rows, ids, padded, table.shape[1])
        return scaled(graph, rows, factor)

    def project(self, graph: Graph, x: str, name: str, table: Array, rows: int, bias: Array | None) -> str:
        found = self._quantizer.round(name, table)
        self._store(graph, name, found)
        stored = (f"{name}.int4", f"{name}.multipliers", f"{name}.scale")
        data, multipliers, scale = (graph.weight_rows(f"{item}.{rows}", item, rows) for item in stored)
        offset = "" if bias is None else graph.weight(f"{name}.bias.{rows}", bias[:rows])
        steps = _steps(graph, multipliers, scale)
        return blockwise(
            graph, x, with_late_scales(graph, data), steps, offset, table.shape[1], rows, found.block, bits=4
        )

    def _rows(self, graph: Graph, name: str, stored: Rounded) -> str:
        data, multipliers, _ = self._store(graph, name, stored)
        return _whole(graph, data, multipliers, stored, turn=False)

    def _store(self, graph: Graph, name: str, found: Rounded) -> tuple[str, str, str]:
        """The names of uint8 [N, blocks, block / 2], uint8 [N, blocks] and fp32 [N]."""
        assert found.multipliers is not None
        return (
            graph.weight(f"{name}.int4", pack(found)),
            graph.weight(f"{name}.multipliers", found.multipliers),
            graph.weight(f"{name}.scale", found.scales),
        )


def pack(found: Rounded) -> Array:
    """Two values a byte, the first in the lower bits, with zero point 8: uint8 [N, blocks, block / 2]."""
    rows, columns = found.values.shape
    padded = np.pad(found.values, ((0, 0), (0, -columns % found.block))) + np.int8(_MIDDLE)
    bits = padded.astype(np.uint8).reshape(rows, -1, found.block)
    packed: Array = bits[..., 0::2] | bits[..., 1::2] << 4
    return packed


def _steps(graph: Graph, multipliers: str, scale: str) -> str:
    """fp32 [N, blocks], what the values of a block are multiplied with: constant, computed at opening."""
    home = graph.home
    key = f"{multipliers} steps"
    if key not in home.derived:
        factors = home.op("Cast", multipliers, to=FLOAT)
        home.derived[key] = home.op("Mul", factors, home.op("Unsqueeze", scale, home.i64(1)))
    return home.derived[key]


def _whole(graph: Graph, data: str, multipliers: str, found: Rounded, *, turn: bool) -> str:
    """int8 [N, K], or turned [K, N]: values times multipliers, constant, computed at opening."""
    home = graph.home
    key = f"{data} {'turned' if turn else 'whole'}"
    if key not in home.derived:
        rows, columns = found.values.shape
        low = home.op("BitwiseAnd", data, home.constant(15, np.uint8))
        high = home.op("BitShift", data, home.constant(4, np.uint8), direction="RIGHT")
        pairs = [home.op("Unsqueeze", part, home.i64(-1)) for part in (low, high)]
        values = home.op("Concat", *pairs, axis=-1)
        values = home.op("Reshape", values, home.i64(rows, -1, found.block))
        values = home.op("Sub", home.op("Cast", values, to=FLOAT), home.f32(_MIDDLE))
        factors = home.op("Unsqueeze", home.op("Cast", multipliers, to=FLOAT), home.i64(-1))
        values = home.op("Cast", home.op("Mul", values, factors), to=INT8)
        values = home.op("Reshape", values, home.i64(rows, -1))
        if columns % found.block:
            values = home.op("Slice", values, home.i64(0), home.i64(columns), home.i64(1))
        home.derived[key] = home.op("Transpose", values, perm=[1, 0]) if turn else values
    return home.derived[key]
