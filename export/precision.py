"""How a pack stores and multiplies its matrices: fp32 as the reference, INT8 in blocks for phones."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from mobilenmt.export.graph import FLOAT, Graph
from mobilenmt.export.weights import Array

_BLOCKS = (128, 64, 32, 16)  # 128 is the fastest in ONNX Runtime's kernels; 16 the smallest they take
_ZERO_POINT = 128


class Precision(Protocol):
    """Emits the nodes that read a matrix, and stores it."""

    name: str

    def linear(self, graph: Graph, x: str, name: str, weight: Array, bias: Array | None = None) -> str:
        """x [..., K] times ``weight`` [N, K] transposed, plus ``bias`` [N] -> [..., N]."""
        ...

    def embed(self, graph: Graph, ids: str, name: str, table: Array) -> str:
        """Rows of ``table`` [V, D] for int64 ``ids`` [...] -> fp32 [..., D]."""
        ...


class Float32(Precision):
    """Plain matrices, each stored as the checkpoint has it: [out, in]."""

    name = "fp32"

    def linear(self, graph: Graph, x: str, name: str, weight: Array, bias: Array | None = None) -> str:
        y = graph.op("FusedMatMul", x, graph.weight(name, weight), transB=1)
        return y if bias is None else graph.op("Add", y, graph.weight(f"{name}.bias", bias))

    def embed(self, graph: Graph, ids: str, name: str, table: Array) -> str:
        return graph.op("Gather", graph.weight(name, table), ids)


class Int8Blocks(Precision):
    """Symmetric INT8, one fp32 scale for each block of up to 128 inputs of an output row.

    ``MatMulNBits`` at accuracy level 4 quantizes activations to INT8 by row and block, so no row of a batch, of a
    beam or of padding influences another, and it does not saturate on processors without VNNI. The table of the tied
    embedding serves ``GatherBlockQuantized`` and ``MatMulNBits`` from the same bytes.
    """

    name = "int8"

    def linear(self, graph: Graph, x: str, name: str, weight: Array, bias: Array | None = None) -> str:
        rows, columns = weight.shape
        blocks, scales = quantize_blocks(weight)
        inputs = [x, graph.weight(f"{name}.int8", blocks), graph.weight(f"{name}.scale", scales)]
        if bias is not None:
            inputs += ["", "", graph.weight(f"{name}.bias", bias)]
        size = blocks.shape[2]
        return graph.op("MatMulNBits", *inputs, K=columns, N=rows, bits=8, block_size=size, accuracy_level=4)

    def embed(self, graph: Graph, ids: str, name: str, table: Array) -> str:
        rows, columns = table.shape
        blocks, scales = quantize_blocks(table)
        count, size = blocks.shape[1:]
        if count * size == columns:
            data = graph.weight(f"{name}.int8.rows", blocks.reshape(rows, columns))
            scale = graph.weight(f"{name}.scale", scales)
            return graph.op("GatherBlockQuantized", data, ids, scale, bits=8, block_size=size, quantize_axis=1)
        # The kernel wants a width that its blocks divide; other widths take the same bytes through standard nodes.
        chosen = graph.op("Gather", graph.weight(f"{name}.int8", blocks), ids)
        value = graph.op("Sub", graph.op("Cast", chosen, to=FLOAT), graph.f32(_ZERO_POINT))
        scale = graph.op("Gather", graph.weight(f"{name}.scale", scales), ids)
        value = graph.op("Mul", value, graph.op("Unsqueeze", scale, graph.i64(-1)))
        value = graph.op("Reshape", value, graph.i64(0, 0, count * size))
        return graph.op("Slice", value, graph.i64(0), graph.i64(columns), graph.i64(-1))


def block_size(columns: int) -> int:
    """The largest block that divides a row of ``columns`` values, or the smallest block if none does."""
    return next((size for size in _BLOCKS if columns % size == 0), _BLOCKS[-1])


def quantize_blocks(weight: Array) -> tuple[Array, Array]:
    """Symmetric INT8: ``weight`` [N, K] -> uint8 [N, blocks, size] with zero point 128, fp32 scales [N, blocks].

    A value is ``(stored - 128) * scale``; the largest magnitude of a block maps to 127. A last block that K does not
    fill is padded with zeros.
    """
    rows, columns = weight.shape
    size = block_size(columns)
    padded = np.pad(weight, ((0, 0), (0, -columns % size))).reshape(rows, -1, size)
    scales = np.abs(padded).max(axis=2) / 127
    # A scale that has no reciprocal in fp32 belongs to a block of (nearly) zeros: it stores zeros.
    divisor = np.where(scales > 1e-30, scales, np.inf)
    blocks = np.rint(padded / divisor[:, :, None]) + _ZERO_POINT
    return blocks.astype(np.uint8), scales.astype(np.float32)


PRECISIONS: dict[str, type[Precision]] = {Float32.name: Float32, Int8Blocks.name: Int8Blocks}
