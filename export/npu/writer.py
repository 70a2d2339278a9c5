"""Emits the layers of a model with fixed shapes and standard operators alone.

Two forms of the same graphs. ``qdq`` is for processors of integers (QNN): around a product QuantizeLinear and
DequantizeLinear say how activations are rounded, and the driver makes integer arithmetic of it. ``float`` is for those
whose providers take no such pairs (CoreML, NNAPI): weights are the same integers, which ONNX Runtime turns into numbers
when it opens the graph, and activations are not rounded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import onnx
from onnx import helper

from mobilenmt.export.checkpoint import Checkpoint
from mobilenmt.export.graph import FLOAT, INT8, INT64, Graph
from mobilenmt.export.layers import LAYER_NORM_EPSILON, POSITION_ROWS, ModelWriter, angles, sums_of_angles
from mobilenmt.export.npu.groups import OUTPUT, Group, rounded_rows
from mobilenmt.export.npu.ranges import Range
from mobilenmt.export.npu.recording import rectified
from mobilenmt.export.npu.sensitivity import Product
from mobilenmt.export.precision.blocks import ZERO_POINT
from mobilenmt.export.weights import Array
from mobilenmt.runtime.errors import CheckpointError, ExportError

Form = Literal["qdq", "float"]
FORMS: tuple[Form, ...] = ("qdq", "float")
OPSETS = {"qdq": (21, 10), "float": (19, 9)}
"""Operator set and IR version: 21 is the first with 16-bit integers in QuantizeLinear; 19 is as far as CoreML's
provider went for some versions."""
_UNSIGNED = {8: np.uint8, 16: np.uint16}
_LARGEST_BIAS = 2**31 - 1


def _erf_gelu(graph: Graph, x: str) -> str:
    error = graph.op("Erf", graph.op("Mul", x, graph.f32(0.5**0.5)))
    return graph.op("Mul", graph.op("Mul", x, graph.f32(0.5)), graph.op("Add", error, graph.f32(1)))


def _sigmoid_times(factor: float) -> Callable[[Graph, str], str]:
    def write(graph: Graph, x: str) -> str:
        inner = x if factor == 1 else graph.op("Mul", x, graph.f32(factor))
        return graph.op("Mul", x, graph.op("Sigmoid", inner))

    return write


ACTIVATIONS: dict[str, Callable[[Graph, str], str]] = {
    "gelu": _erf_gelu,
    "gelu_python": _erf_gelu,
    "leaky_relu": lambda graph, x: graph.op("LeakyRelu", x, alpha=0.01),
    "linear": lambda graph, x: x,
    "quick_gelu": _sigmoid_times(1.702),
    "relu": lambda graph, x: graph.op("Relu", x),
    "sigmoid": lambda graph, x: graph.op("Sigmoid", x),
    "silu": _sigmoid_times(1.0),
    "swish": _sigmoid_times(1.0),
    "tanh": lambda graph, x: graph.op("Tanh", x),
}
"""In operators that the providers' tables have, other than those of the CPU's graphs."""


def check_static_activation(name: str) -> None:
    """Raise CheckpointError for a function that the tables of providers have no operators for."""
    if name not in ACTIVATIONS:
        raise CheckpointError(
            f"config.json: activation_function {name!r} needs operators outside the providers' tables; "
            f"static graphs know {', '.join(ACTIVATIONS)}"
        )


@dataclass
class StaticWriter:
    """Emits products and norms into one graph at a time; sequences are matrices [tokens, d_model] here."""

    model: ModelWriter
    products: Mapping[str, Product]
    form: Form
    rounded: dict[str, Range] = field(default_factory=dict)
    """Values of the graph at hand that are rounded already."""

    @property
    def checkpoint(self) -> Checkpoint:
        """The model's, smoothed."""
        return self.model.checkpoint

    @property
    def shortlist(self) -> bool:
        """Whether the pack has one."""
        return self.model.shortlist is not None

    def linear(self, graph: Graph, x: str, group: Group) -> str:
        """x [rows, in] times the group's matrix, plus its bias -> [rows, out]."""
        product = self.products.get(group.name, Product()) if self.form == "qdq" else Product()
        values, scales = group.rounded(self.checkpoint, shortlist=self.shortlist)
        bias = group.bias(self.checkpoint)
        weight = self._weight(graph, group, values, scales)
        x = self._round(graph, x, product.read)
        inputs = [x, weight]
        if bias.any() or group.names != (OUTPUT,):
            inputs.append(self._bias(graph, group, bias, scales, product.read))
        y = graph.op("Gemm", *inputs, transB=0 if group.wide else 1)
        if rectified(group, self.checkpoint) and product.given is None:
            y = graph.op("Relu", y)  # else the range begins at zero: rounding cuts what is below
        return self._round(graph, y, product.given)

    def _weight(self, graph: Graph, group: Group, values: Array, scales: Array) -> str:
        """fp32 matrix from the bytes that the CPU's graphs read: equal ones are stored once, whatever their names."""
        scale = graph.weight(f"static.{group.name}.scale", _positive(scales))
        name = f"static.{group.name}"
        if group.wide:
            stored = graph.weight(name, np.ascontiguousarray(values.T))
            return graph.op("DequantizeLinear", stored, scale, axis=1)
        if group.names == (OUTPUT,) and self.shortlist:
            return graph.op("DequantizeLinear", graph.weight(name, values), scale, axis=0)
        unsigned = graph.weight(name, (values.astype(np.int16) + ZERO_POINT).astype(np.uint8))
        # Read as signed, with the highest bit turned over: ONNX Runtime does it once, when it opens the graph.
        turned = graph.op("BitwiseXor", unsigned, graph.constant(ZERO_POINT, np.uint8))
        return graph.op("DequantizeLinear", graph.op("Cast", turned, to=INT8), scale, axis=0)

    def _bias(self, graph: Graph, group: Group, bias: Array, scales: Array, read: Range | None) -> str:
        if read is None:
            return graph.weight(f"static.{group.name}.bias", bias.astype(np.float32))
        # int32, its steps those of the sums of products
        steps = np.maximum(np.float32(read.scale) * _positive(scales), np.abs(bias) / np.float32(_LARGEST_BIAS / 2))
        steps = np.maximum(steps, np.float32(1e-30)).astype(np.float32)
        whole = np.rint(bias.astype(np.float64) / steps).astype(np.int32)
        kind = f"static.{group.name}.bias.{read.bits}"
        return graph.op("DequantizeLinear", graph.weight(kind, whole), graph.weight(f"{kind}.scale", steps), axis=0)

    def _round(self, graph: Graph, x: str, how: Range | None) -> str:
        if how is None or self.rounded.get(x) == how:
            return x
        scale = graph.f32(how.scale)
        zero = graph.constant(how.zero_point, _UNSIGNED[how.bits])
        y = graph.op("DequantizeLinear", graph.op("QuantizeLinear", x, scale, zero), scale, zero)
        self.rounded[y] = how
        return y

    def norm(self, graph: Graph, x: str, name: str) -> str:
        """LayerNormalization over the last axis; in its parts for the providers that lack it."""
        weight = graph.weight(f"{name}.weight", self.checkpoint[f"{name}.weight"])
        bias = graph.weight(f"{name}.bias", self.checkpoint[f"{name}.bias"])
        if self.form == "qdq":
            return graph.op("LayerNormalization", x, weight, bias, axis=-1, epsilon=LAYER_NORM_EPSILON)
        axes = graph.i64(-1)
        centred = graph.op("Sub", x, graph.op("ReduceMean", x, axes, keepdims=1))
        square = graph.op("Mul", centred, centred)
        spread = graph.op("Add", graph.op("ReduceMean", square, axes, keepdims=1), graph.f32(LAYER_NORM_EPSILON))
        # Not with Sqrt and Div: those ONNX Runtime puts together again, before it asks the provider.
        y = graph.op("Mul", centred, graph.op("Pow", spread, graph.f32(-0.5)))
        return graph.op("Add", graph.op("Mul", y, weight), bias)

    def residual(self, graph: Graph, x: str, branch: str, projection: str, norm: str, *, wide: bool) -> str:
        """LayerNorm(x + branch W + b)."""
        return self.norm(graph, graph.op("Add", self.linear(graph, branch, Group((projection,), wide)), x), norm)

    def feed_forward(self, graph: Graph, x: str, prefix: str, *, wide: bool) -> str:
        """The position-wise network of a layer with its residual and norm."""
        group = Group((f"{prefix}.fc1",), wide)
        hidden = self.linear(graph, x, group)
        if not rectified(group, self.checkpoint):
            hidden = ACTIVATIONS[self.checkpoint.config.activation_function](graph, hidden)
        return self.residual(graph, x, hidden, f"{prefix}.fc2", f"{prefix}.final_layer_norm", wide=wide)

    def embed(self, graph: Graph, ids: str, side: str) -> str:
        """Scaled embeddings [tokens, d_model] of int32 ``ids`` [1, tokens], from the CPU's table."""
        key = "source_embedding" if side == "encoder" else "target_embedding"
        table, name = self.checkpoint[key], self.model.table_name(key)
        values, scales = rounded_rows(table, wide=not self.shortlist)
        factor = np.float32(self.checkpoint.config.embedding_scale)
        scale = graph.weight(f"static.{name}.scale.embedding", scales[:, None] * factor)
        if self.shortlist:
            rows = graph.op("Gather", graph.weight(f"static.{name}.rows", values), ids)
            rows = graph.op("Cast", rows, to=FLOAT)
        else:
            unsigned = (values.astype(np.int16) + ZERO_POINT).astype(np.uint8)
            rows = graph.op("Gather", graph.weight(f"static.{name}.rows", unsigned), ids)
            rows = graph.op("Sub", graph.op("Cast", rows, to=FLOAT), graph.f32(ZERO_POINT))
        rows = graph.op("Mul", rows, graph.op("Gather", scale, ids))
        return graph.op("Reshape", rows, graph.i64(-1, table.shape[1]))

    def positions(self, graph: Graph, side: str, count: int) -> str:
        """Position vectors [count, d_model], put together from what :meth:`ModelWriter.positions` reads, when the graph
        is opened."""
        config = self.checkpoint.config
        width = config.d_model
        table = self.checkpoint.tensors.get(f"{side}_positions")
        if table is not None:
            graph.weight(f"{side}.positions", table)
            return graph.weight_rows(f"{side}.positions.{count}", f"{side}.positions", count)
        blocks = -(-count // POSITION_ROWS)
        first, rest = angles(config.max_position_embeddings, width)
        graph.weight("positions.blocks", first)
        start = graph.weight_rows(f"positions.blocks.{blocks}", "positions.blocks", blocks)
        rows = sums_of_angles(graph, start, rest, width)
        return graph.op("Slice", rows, graph.i64(0), graph.i64(count), graph.i64(0))

    def attend(self, graph: Graph, query: str, key: str, value: str, mask: str, heads: int) -> str:
        """Queries [1, heads, n, size], keys turned [1, heads, size, m], values [1, heads, m, size]; ``mask`` is added
        to the scores -> [1, heads, n, size]."""
        scores = graph.op("Add", graph.op("MatMul", query, key), mask)
        return graph.op("MatMul", graph.op("Softmax", scores, axis=-1), value)

    def scaled_query(self, graph: Graph, query: str, heads: int) -> str:
        """Queries over the square root of a head's size."""
        return graph.op("Mul", query, graph.f32((self.checkpoint.config.d_model // heads) ** -0.5))


def _positive(scales: Array) -> Array:
    """ONNX wants positive scales; a row of zeros has any."""
    found: Array = np.where(scales > 0, scales, np.float32(1e-30)).astype(np.float32)
    return found


def to_model(graph: Graph, form: Form, producer_version: str) -> onnx.ModelProto:
    """The finished model, with the shapes of all its values.

    Raises:
        ExportError: an operator is not ONNX's own, a shape is open, or the graph has others inside.
    """
    opset, ir = OPSETS[form]
    model = helper.make_model(
        graph.to_graph(),
        opset_imports=[helper.make_opsetid("", opset)],
        ir_version=ir,
        producer_name="mobilenmt",
        producer_version=producer_version,
    )
    check_static(model)
    return model


def check_static(model: onnx.ModelProto) -> None:
    """Raise ExportError unless a graph has standard operators and fixed shapes alone."""
    name = model.graph.name
    for node in model.graph.node:
        if node.domain not in ("", "ai.onnx"):
            raise ExportError(f"{name}: operator {node.domain}.{node.op_type} is outside ONNX's own, in a static graph")
        if any(item.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) for item in node.attribute):
            raise ExportError(f"{name}: operator {node.op_type} has a graph inside, in a static graph")
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    shapes = {item.name: item for item in (*inferred.input, *inferred.output, *inferred.value_info)}
    for node in model.graph.node:
        for value in node.output:
            dims = shapes[value].type.tensor_type.shape.dim if value in shapes else None
            if dims is None or not all(dim.HasField("dim_value") and dim.dim_value > 0 for dim in dims):
                raise ExportError(f"{name}: the shape of {value} ({node.op_type}) is not fixed, in a static graph")


def allowed(graph: Graph, ids: str, tokens: int, model: ModelWriter) -> str:
    """uint8 [V]: 1 for what a shortlist allows for int32 source ``ids`` [1, tokens]."""
    shortlist, vocabulary = model.shortlist, model.checkpoint.config.decoder_vocab_size
    assert shortlist is not None
    kind = np.uint16 if vocabulary <= 2**16 else np.int32
    common = np.zeros(vocabulary, np.uint8)
    common[shortlist.common] = 1
    found = graph.op("Gather", graph.weight("shortlist.lexical", shortlist.lexical.astype(kind)), ids)
    found = graph.op("Reshape", graph.op("Cast", found, to=INT64), graph.i64(-1))
    ones = graph.constant(np.ones(tokens * shortlist.lexical.shape[1]), np.uint8)
    return graph.op("ScatterElements", graph.weight("shortlist.common", common), found, ones, axis=0)
