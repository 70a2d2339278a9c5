"""A thin builder for ONNX graphs: nodes in order of execution, fresh names, weights from one store."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from mobilenmt.export.weights import Array, WeightStore

OPSET = 21
IR_VERSION = 10
MICROSOFT = "com.microsoft"
OURS = "mobilenmt"
"""The domain of functions that a model brings along."""
FLOAT, INT64, INT32, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL
INT8, UINT8 = TensorProto.INT8, TensorProto.UINT8

# Operators of ONNX Runtime beyond the ONNX standard that our graphs use.
_MICROSOFT_OPS = frozenset(
    {
        "DynamicQuantizeMatMul",
        "FusedMatMul",
        "GatherBlockQuantized",
        "GroupQueryAttention",
        "MatMulNBits",
        "MultiHeadAttention",
        "QuickGelu",
    }
)


class Graph:
    """One graph, or a body of Loop or If inside ``parent``: bodies see the outer values by name."""

    def __init__(
        self,
        name: str,
        store: WeightStore,
        parent: Graph | None = None,
        *,
        home: bool = True,
        compact: bool = False,
    ) -> None:
        self.name = name
        self.store = store
        self.root: Graph = parent.root if parent else self
        self._compact = compact
        """Short names of values, none of nodes: a sixth of the file. Of the root."""
        self.home: Graph = self if home or not parent else parent.home
        """The graph that declares the weights which this one reads."""
        self._nodes: list[onnx.NodeProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._constants: dict[tuple[Any, ...], onnx.TensorProto] = {}
        self._weights: dict[str, onnx.TensorProto] = {}
        self._functions: dict[str, onnx.FunctionProto] = {}
        self._counter = 0
        self.derived: dict[str, str] = {}
        """Values that this graph computes from weights alone, by the weight's name."""

    # -- values ---------------------------------------------------------------------------------------------------

    def input(self, name: str, dtype: int, shape: Sequence[int | str | None] | None = None) -> str:
        """Declare an input; in a Loop body leave ``shape`` out, since it may change from step to step."""
        self._inputs.append(helper.make_tensor_value_info(name, dtype, shape))
        return name

    def output(self, value: str, dtype: int, shape: Sequence[int | str | None] | None = None) -> None:
        """Declare ``value`` as the next output."""
        self._outputs.append(helper.make_tensor_value_info(value, dtype, shape))

    def outputs(self, values: Sequence[str], dtypes: Sequence[int]) -> None:
        """Declare several outputs, of shapes that may change from step to step."""
        for value, dtype in zip(values, dtypes, strict=True):
            self.output(value, dtype)

    def constant(self, value: Any, dtype: Any) -> str:
        """A small constant kept inside the graph; equal constants are one."""
        array = np.asarray(value, dtype)
        root = self.root
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in root._constants:
            root._constants[key] = numpy_helper.from_array(array, f"const_{len(root._constants)}")
        return root._constants[key].name

    def i64(self, *values: int) -> str:
        """A 1-D int64 constant."""
        return self.constant(values, np.int64)

    def f32(self, value: float) -> str:
        """A scalar fp32 constant."""
        return self.constant(value, np.float32)

    def weight(self, name: str, array: Array) -> str:
        """An initializer that lives in weights.bin, declared once in :attr:`home`; returns what it is called there."""
        self.store.add(name, array)
        return self._declare(name)

    def weight_rows(self, name: str, of: str, count: int) -> str:
        """An initializer that is the first ``count`` rows of the weight ``of`` of the store, stored once."""
        self.store.rows(name, of, count)
        return self._declare(name)

    def _declare(self, name: str) -> str:
        home = self.home
        if name not in home._weights:
            proto = self.store[name].proto()
            if home is not home.root:  # the outermost graph may have it, too, and no name may hide another
                proto.name = f"{home.name}.{name}"
            home._weights[name] = proto
        return home._weights[name].name

    # -- nodes ----------------------------------------------------------------------------------------------------

    def fresh(self, hint: str) -> str:
        """A name not used before in any graph below the same root."""
        self.root._counter += 1
        return f"_{self.root._counter}" if self.root._compact else f"{hint}_{self.root._counter}"

    def op(self, op_type: str, *inputs: str, **attributes: Any) -> str:
        """Append a node with one output and return that output's name."""
        return self.ops(op_type, *inputs, outputs=1, **attributes)[0]

    def ops(self, op_type: str, *inputs: str, outputs: int | Sequence[str], **attributes: Any) -> list[str]:
        """Append a node with several outputs (a count, or names) and return their names."""
        names = [self.fresh(op_type.lower()) for _ in range(outputs)] if isinstance(outputs, int) else list(outputs)
        domain = MICROSOFT if op_type in _MICROSOFT_OPS else ""
        name = None if self.root._compact else self.fresh(op_type)
        self._nodes.append(helper.make_node(op_type, list(inputs), names, name=name, domain=domain, **attributes))
        return names

    def call(self, function: onnx.FunctionProto, *inputs: str) -> str:
        """Append a call of a function with one output, which the model brings along; return that output's name."""
        self.root._functions[function.name] = function
        output = self.fresh(function.name)
        self._nodes.append(helper.make_node(function.name, list(inputs), [output], domain=OURS))
        return output

    def rename(self, value: str, name: str) -> None:
        """Give ``value``, which a node of this graph has already produced, another name wherever it stands."""
        for node in self._nodes:
            node.input[:] = [name if item == value else item for item in node.input]
            node.output[:] = [name if item == value else item for item in node.output]

    def body(self, name: str, *, home: bool = False) -> Graph:
        """A graph for use as a body of Loop or If of this one.

        ONNX Runtime packs constant matrices for its kernels if they are declared in the kernel's own graph or in the
        one around it. So a body with a Loop of its own must be ``home`` to the weights that the inner one reads.
        """
        return Graph(name, self.store, self, home=home)

    # -- results --------------------------------------------------------------------------------------------------

    def to_graph(self) -> onnx.GraphProto:
        """The finished GraphProto."""
        used = {name for node in self._nodes for name in _inputs(node)}
        initializers = [item for item in (*self._constants.values(), *self._weights.values()) if item.name in used]
        return helper.make_graph(self._nodes, self.name, self._inputs, self._outputs, initializers)

    def to_model(self, producer_version: str) -> onnx.ModelProto:
        """The finished ModelProto, with the operator sets it uses."""
        ours = [helper.make_opsetid(OURS, 1)] if self._functions else []
        return helper.make_model(
            self.to_graph(),
            functions=list(self._functions.values()),
            opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid(MICROSOFT, 1), *ours],
            ir_version=IR_VERSION,
            producer_name="mobilenmt",
            producer_version=producer_version,
        )


def _inputs(node: onnx.NodeProto) -> Iterator[str]:
    """Names that a node reads, those of the bodies inside it included."""
    yield from node.input
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield from (item.name for item in attribute.g.output)
            for inner in attribute.g.node:
                yield from _inputs(inner)
