"""Activation functions of transformers' ``ACT2FN``, as ONNX nodes."""

from __future__ import annotations

from collections.abc import Callable

from mobilenmt.export.graph import Graph
from mobilenmt.runtime.errors import CheckpointError


def _gelu(graph: Graph, x: str) -> str:
    return graph.op("Gelu", x)


def _gelu_tanh(graph: Graph, x: str) -> str:
    return graph.op("Gelu", x, approximate="tanh")


def _gelu_10(graph: Graph, x: str) -> str:
    return graph.op("Clip", graph.op("Gelu", x), graph.f32(-10), graph.f32(10))


def _laplace(graph: Graph, x: str) -> str:
    # 0.5 * (1 + erf((x - mu) / (sigma * sqrt(2)))) with mu = 0.707107, sigma = 0.282095 (MEGA, arXiv 2209.10655)
    centred = graph.op("Sub", x, graph.f32(0.707107))
    error = graph.op("Erf", graph.op("Div", centred, graph.f32(0.282095 * 2**0.5)))
    return graph.op("Mul", graph.op("Add", error, graph.f32(1.0)), graph.f32(0.5))


def _mish(graph: Graph, x: str) -> str:
    return graph.op("Mul", x, graph.op("Tanh", graph.op("Softplus", x)))


def _relu_squared(graph: Graph, x: str) -> str:
    positive = graph.op("Relu", x)
    return graph.op("Mul", positive, positive)


ACTIVATIONS: dict[str, Callable[[Graph, str], str]] = {
    "gelu": _gelu,
    "gelu_10": _gelu_10,
    "gelu_accurate": _gelu_tanh,
    "gelu_fast": _gelu_tanh,
    "gelu_new": _gelu_tanh,
    "gelu_python": _gelu,
    "gelu_python_tanh": _gelu_tanh,
    "gelu_pytorch_tanh": _gelu_tanh,
    "laplace": _laplace,
    "leaky_relu": lambda graph, x: graph.op("LeakyRelu", x, alpha=0.01),
    "linear": lambda graph, x: x,
    "mish": _mish,
    "quick_gelu": lambda graph, x: graph.op("QuickGelu", x, alpha=1.702),
    "relu": lambda graph, x: graph.op("Relu", x),
    "relu2": _relu_squared,
    "relu6": lambda graph, x: graph.op("Clip", x, graph.f32(0), graph.f32(6)),
    "sigmoid": lambda graph, x: graph.op("Sigmoid", x),
    "silu": lambda graph, x: graph.op("QuickGelu", x, alpha=1.0),
    "swish": lambda graph, x: graph.op("QuickGelu", x, alpha=1.0),
    "tanh": lambda graph, x: graph.op("Tanh", x),
}


def check_activation(name: str) -> None:
    """Raise CheckpointError for a function that has no ONNX form here (``prelu`` and ``xielu`` carry weights)."""
    if name not in ACTIVATIONS:
        raise CheckpointError(
            f"config.json: activation_function {name!r} is not supported; supported: {', '.join(ACTIVATIONS)}"
        )


def activation(graph: Graph, name: str, x: str) -> str:
    """Apply the activation ``name`` to ``x``."""
    check_activation(name)
    return ACTIVATIONS[name](graph, x)
