"""What execution providers take, by their documentation: one file a provider, with its sources and its version."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

import onnx

from mobilenmt.runtime.errors import InputError

NAMES = ("nnapi", "coreml", "qnn", "xnnpack")


@dataclass(frozen=True)
class Table:
    """One provider's operators and rules. None of them is ours: each is in one of ``sources``."""

    name: str
    provider: str
    form: str
    """Of the static graphs that it gets."""
    sources: tuple[str, ...]
    version: str
    opset: int
    """The newest operator set that it takes."""
    rank: int
    """Most axes of a tensor."""
    refused_types: Mapping[str, Mapping[str, tuple[str, ...]]]
    """Operator -> number of an input -> element types that are not among those listed for it."""
    constant: Mapping[str, tuple[int, ...]]
    """Operator -> inputs that must be constant."""
    gemm: bool
    """Gemm wants alpha and beta 1, no transA and a bias of one axis."""
    operators: frozenset[str]

    def refusal(self, node: onnx.NodeProto, values: Values) -> str | None:
        """Why a node stays on the CPU, None if it does not."""
        if node.domain not in ("", "ai.onnx"):
            return f"{node.domain} is not ONNX's own"
        if node.op_type not in self.operators:
            return "no such operator in the table"
        for place, types in self.refused_types.get(node.op_type, {}).items():
            kind = values.kind(node, int(place))
            if kind in types:
                return f"not of {kind}"
        for index in self.constant.get(node.op_type, ()):
            if index < len(node.input) and node.input[index] and not values.is_constant(node.input[index]):
                return f"input {index} is not constant"
        if max((values.rank(name) for name in (*node.input, *node.output) if name), default=0) > self.rank:
            return f"more than {self.rank} axes"
        if self.gemm and node.op_type == "Gemm":
            given = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
            plain = given.get("alpha", 1) == 1 and given.get("beta", 1) == 1 and not given.get("transA", 0)
            if not plain or (len(node.input) > 2 and values.rank(node.input[2]) != 1):
                return "alpha, beta, transA or the shape of the bias"
        return None


class Values:
    """Element types, ranks and constants of a graph whose shapes are known."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._types: dict[str, tuple[int, int]] = {}
        for item in (*graph.input, *graph.output, *graph.value_info):
            tensor = item.type.tensor_type
            self._types[item.name] = tensor.elem_type, len(tensor.shape.dim)
        for weight in graph.initializer:
            self._types[weight.name] = weight.data_type, len(weight.dims)
        self._constant = {weight.name for weight in graph.initializer}
        for node in graph.node:
            if node.op_type == "DequantizeLinear" and node.input[0] in self._constant:
                self._constant.add(node.output[0])

    def kind(self, node: onnx.NodeProto, place: int) -> str:
        """Element type of an input, as numpy calls it."""
        kind, _ = self._types.get(node.input[place], (0, 0))
        return str(onnx.helper.tensor_dtype_to_np_dtype(kind)) if kind else "unknown"

    def rank(self, name: str) -> int:
        """Axes of a value; 0 where that is not known."""
        return self._types.get(name, (0, 0))[1]

    def is_constant(self, name: str) -> bool:
        """Whether it is a weight, or one that a DequantizeLinear makes numbers of."""
        return name in self._constant


def load_table(name: str) -> Table:
    """The table of a provider.

    Raises:
        InputError: there is none.
    """
    if name not in NAMES:
        raise InputError(f"there is no table of operators for {name!r}; there are {', '.join(NAMES)}")
    data: dict[str, Any] = json.loads(resources.files(__package__).joinpath(f"{name}.json").read_text("utf-8"))
    data["operators"] = frozenset(data["operators"])
    data["sources"] = tuple(data["sources"])
    return Table(**data)
