"""4 bits in blocks: half the bytes of INT8, and in every kernel the same integers."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from mobilenmt.export.graph import FLOAT, INT8, OPSET, OURS, Graph
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


def unpack(packed: Array) -> Array:
    """What :func:`pack` packed: uint8 [N, blocks, block / 2] -> int8 [N, blocks, block], a last block with its
    padding."""
    bits = np.stack([packed & 15, packed >> 4], axis=-1).reshape(*packed.shape[:-1], -1)
    values: Array = bits.astype(np.int8) - np.int8(_MIDDLE)
    return values


def _steps(graph: Graph, multipliers: str, scale: str) -> str:
    """fp32 [N, blocks], what the values of a block are multiplied with: constant, computed at opening."""
    home = graph.home
    key = f"{multipliers} steps"
    if key not in home.derived:
        home.derived[key] = home.call(_STEPS, multipliers, scale)
    return home.derived[key]


def _whole(graph: Graph, data: str, multipliers: str, found: Rounded, *, turn: bool) -> str:
    """int8 [N, K], or turned [K, N]: values times multipliers, constant, computed at opening."""
    home = graph.home
    key = f"{data} {'turned' if turn else 'whole'}"
    if key not in home.derived:
        columns = found.values.shape[1]
        values = home.call(_TURNED if turn else _WHOLE, data, multipliers)
        if columns % found.block:
            values = home.op("Slice", values, home.i64(0), home.i64(columns), home.i64(0 if turn else 1))
        home.derived[key] = values
    return home.derived[key]


def _function(name: str, *nodes: tuple[Any, ...], **constants: Any) -> onnx.FunctionProto:
    """A function of the first two values its nodes read; a node is a type, inputs, the output, and attributes."""
    made = [
        helper.make_node("Constant", [], [key], value=numpy_helper.from_array(value))
        for key, value in constants.items()
    ]
    made += [helper.make_node(kind, inputs.split(), [output], **kinds) for kind, inputs, output, kinds in nodes]
    imports = [helper.make_opsetid("", OPSET)]
    return helper.make_function(OURS, name, ["a", "b"], [nodes[-1][2]], made, imports)


_EXPANDING: list[tuple[Any, ...]] = [
    ("BitwiseAnd", "a fifteen", "low", {}),
    ("BitShift", "a four", "high", {"direction": "RIGHT"}),
    ("Unsqueeze", "low last", "lows", {}),
    ("Unsqueeze", "high last", "highs", {}),
    ("Concat", "lows highs", "pairs", {"axis": -1}),
    ("Reshape", "pairs blocks", "bits", {}),
    ("Cast", "bits", "bits32", {"to": FLOAT}),
    ("Sub", "bits32 middle", "values", {}),
    ("Cast", "b", "b32", {"to": FLOAT}),
    ("Unsqueeze", "b32 last", "factors", {}),
    ("Mul", "values factors", "products", {}),
    ("Cast", "products", "integers", {"to": INT8}),
    ("Reshape", "integers rows", "whole", {}),
]
_EXPANDED: dict[str, Any] = {
    "fifteen": np.array(15, np.uint8),
    "four": np.array(4, np.uint8),
    "last": np.array([-1], np.int64),
    "middle": np.array(_MIDDLE, np.float32),
    "blocks": np.array([0, 0, -1], np.int64),
    "rows": np.array([0, -1], np.int64),
}
_WHOLE = _function("Whole", *_EXPANDING, **_EXPANDED)
"""uint8 [N, n, size / 2] of two values a byte, and uint8 [N, n] -> int8 [N, n * size]. A function, since the graphs of
a pack would have these nodes a hundred times."""
_TURNED = _function("Turned", *_EXPANDING, ("Transpose", "whole", "turned", {"perm": [1, 0]}), **_EXPANDED)
"""The same as int8 [n * size, N]."""
_STEPS = _function(
    "Steps",
    ("Cast", "a", "factors", {"to": FLOAT}),
    ("Unsqueeze", "b last", "scales", {}),
    ("Mul", "factors scales", "steps", {}),
    last=np.array([-1], np.int64),
)
"""uint8 [N, n] and fp32 [N] -> fp32 [N, n]."""
