"""Layers of the Marian Transformer as ONNX nodes: embedding, attention, feed-forward; all post-norm."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mobilenmt.export.checkpoint import Checkpoint, sinusoidal_positions
from mobilenmt.export.graph import INT32, Graph
from mobilenmt.export.precision.protocol import Precision, Use
from mobilenmt.export.quantize.quantizer import TABLES
from mobilenmt.export.shortlist import Shortlist
from mobilenmt.export.weights import Array
from mobilenmt.runtime.errors import CheckpointError

LAYER_NORM_EPSILON = 1e-5  # torch.nn.LayerNorm's default, which Marian keeps
POSITION_ROWS = 16  # rows of the table of positions that share what is computed from their block


@dataclass(frozen=True)
class ModelWriter:
    """Emits the layers of one checkpoint at one precision; knows names of weights, not where graphs begin or end."""

    checkpoint: Checkpoint
    precision: Precision
    shortlist: Shortlist | None = None
    """Candidates for each source token; None: every target token is one."""

    def linear(self, graph: Graph, x: str, *names: str, use: Use) -> str:
        """One matmul for the projections ``names``, stacked along their outputs."""
        weights = [self.checkpoint[f"{name}.weight"] for name in names]
        biases = np.concatenate([self.checkpoint[f"{name}.bias"] for name in names])
        stacked = np.concatenate(weights) if len(weights) > 1 else weights[0]
        return self.precision.linear(graph, x, stacked_name(names), stacked, biases, use)

    def residual(
        self, graph: Graph, x: str, branch: str, projection: str, norm: str, use: Use, shift: float = 0.0
    ) -> str:
        """LayerNorm(x + branch W + b) + shift.

        Two nodes on purpose: ONNX Runtime's fused SkipLayerNormalization is as fast for one row, but takes 39 us
        instead of 7 us for 30 rows of 256.
        """
        y = graph.op("Add", self.linear(graph, branch, projection, use=use), x)
        scale = graph.weight(f"{norm}.weight", self.checkpoint[f"{norm}.weight"])
        bias = self.checkpoint[f"{norm}.bias"]
        offset = (
            graph.weight(f"{norm}.bias", bias) if not shift else graph.weight(f"{norm}.bias.{shift:g}", bias + shift)
        )
        return graph.op("LayerNormalization", y, scale, offset, axis=-1, epsilon=LAYER_NORM_EPSILON)

    def feed_forward(self, graph: Graph, x: str, prefix: str, use: Use, shift: float = 0.0) -> str:
        """The position-wise network of layer ``prefix`` with its residual and norm, plus ``shift``."""
        hidden = self.linear(graph, x, f"{prefix}.fc1", use=use)
        hidden = activation(graph, self.checkpoint.config.activation_function, hidden)
        return self.residual(graph, x, hidden, f"{prefix}.fc2", f"{prefix}.final_layer_norm", use, shift)

    def embed(self, graph: Graph, ids: str, side: str, positions: str) -> str:
        """Token embeddings of int64 ``ids`` [rows, length], scaled, plus ``positions`` [length, d_model]."""
        key = "source_embedding" if side == "encoder" else "target_embedding"
        factor = self.checkpoint.config.embedding_scale
        chosen = self.shortlist is not None
        x = self.precision.embed(graph, ids, self.table_name(key), self.checkpoint[key], factor, chosen=chosen)
        return graph.op("Add", x, positions)

    def positions(self, graph: Graph, side: str, count: str) -> str:
        """Position vectors [count, d_model] for a 1-D int64 ``count`` of one element.

        A trained table, and the reference's, is read from the weights. Otherwise the sinusoids are put together from
        those of sixteen times the row and of the rest, sin(a + b) = sin a cos b + cos a sin b, and likewise for cos:
        that spares nearly 4 * max_positions * d_model bytes, and sines computed one by one took 0.1 ms a sentence.
        """
        config = self.checkpoint.config
        table = self.checkpoint.tensors.get(f"{side}_positions")
        if table is None and self.precision.name == "fp32":
            table = sinusoidal_positions(config.max_position_embeddings, config.d_model)
        if table is not None:
            name = graph.weight(f"{side}.positions", table)
            return graph.op("Slice", name, graph.i64(0), count, graph.i64(0))
        size = POSITION_ROWS
        blocks = graph.op("Div", graph.op("Add", count, graph.i64(size - 1)), graph.i64(size))
        first, rest = angles(config.max_position_embeddings, config.d_model)
        start = graph.op("Slice", graph.weight("positions.blocks", first), graph.i64(0), blocks, graph.i64(0))
        rows = sums_of_angles(graph, start, rest, config.d_model)
        return graph.op("Slice", rows, graph.i64(0), count, graph.i64(0))

    def output_shift(self, use: Use) -> float:
        """What :func:`mobilenmt.export.decoder.write_step` adds to its result for the output layer's sake."""
        layers = self.checkpoint.config.decoder_layers
        if use is not Use.STEP or self.shortlist is None or not layers:
            return 0.0
        norm = self.checkpoint[f"model.decoder.layers.{layers - 1}.final_layer_norm.weight"]
        return self.precision.shift(self.table_name("output_embedding"), norm)

    @property
    def output_bias(self) -> Array | None:
        """final_logits_bias [target vocabulary], None if it is zero."""
        bias: Array = self.checkpoint["final_logits_bias"].reshape(-1)
        return bias if bias.any() else None

    def table_name(self, key: str) -> str:
        """Tied tables share one name, so that they are stored and held once."""
        return next(name for name in TABLES if self.checkpoint[name] is self.checkpoint[key])


def stacks(encoder_layers: int, decoder_layers: int) -> Iterator[list[str]]:
    """The projections of each matrix that a pack stores, tables left out, in the order they are computed. Keys and
    values of the source are one matrix of all decoder layers: it is multiplied once a sentence."""
    for side, count in (("encoder", encoder_layers), ("decoder", decoder_layers)):
        prefixes = [f"model.{side}.layers.{index}" for index in range(count)]
        if side == "decoder" and prefixes:
            yield [f"{prefix}.encoder_attn.{part}_proj" for prefix in prefixes for part in "kv"]
        for prefix in prefixes:
            yield [f"{prefix}.self_attn.{part}_proj" for part in "qkv"]
            yield [f"{prefix}.self_attn.out_proj"]
            if side == "decoder":
                yield [f"{prefix}.encoder_attn.q_proj"]
                yield [f"{prefix}.encoder_attn.out_proj"]
            yield [f"{prefix}.fc1"]
            yield [f"{prefix}.fc2"]


def stacked_name(names: Sequence[str]) -> str:
    """What the matrix of several projections is called in a pack."""
    return names[0] + "".join(f"+{name.rpartition('.')[2]}" for name in names[1:])


def unstacked_names(name: str) -> list[str]:
    """The projections of :func:`stacked_name`. Keys and values come again for each decoder layer."""
    first, *others = name.split("+")
    prefix, _, part = first.rpartition(".")
    parts = [part, *others]
    kinds = list(dict.fromkeys(parts))
    around, _, block = prefix.rpartition(".layers.0.")
    if len(kinds) == len(parts):
        return [f"{prefix}.{part}" for part in parts]
    return [f"{around}.layers.{i // len(kinds)}.{block}.{part}" for i, part in enumerate(parts)]


def sums_of_angles(graph: Graph, start: str, rest: tuple[Array, Array], width: int) -> str:
    """Position vectors [blocks * 16, width] of the first ``blocks`` of :func:`angles`' blocks, ``start``."""
    sin_a, cos_a = graph.ops("Split", start, outputs=2, axis=2, num_outputs=2)
    sin_b = graph.weight("positions.rest.sin", rest[0])
    cos_b = graph.weight("positions.rest.cos", rest[1])
    sines = graph.op("Add", graph.op("Mul", sin_a, cos_b), graph.op("Mul", cos_a, sin_b))
    cosines = graph.op("Sub", graph.op("Mul", cos_a, cos_b), graph.op("Mul", sin_a, sin_b))
    rows = graph.op("Concat", sines, cosines, axis=2)
    if width % 2:
        rows = graph.op("Slice", rows, graph.i64(0), graph.i64(width), graph.i64(2))
    return graph.op("Reshape", rows, graph.i64(-1, width))


def angles(count: int, width: int) -> tuple[Array, tuple[Array, Array]]:
    """Sines and cosines of the angles of sinusoidal positions: of every sixteenth row [blocks, 1, 2 * half], the sines
    first; and of the first sixteen rows, sines and cosines [1, rows, half] each."""
    rate = np.power(10000.0, -2 * np.arange((width + 1) // 2) / width)
    first = np.arange(0, count, POSITION_ROWS)[:, None, None] * rate
    rest = np.arange(POSITION_ROWS)[None, :, None] * rate
    blocks = np.concatenate([np.sin(first), np.cos(first)], axis=-1)
    return blocks.astype(np.float32), (np.sin(rest).astype(np.float32), np.cos(rest).astype(np.float32))


def attention(graph: Graph, heads: int, *inputs: str, outputs: int = 1) -> list[str]:
    """Scaled dot-product attention over ``heads`` heads; see ONNX Runtime's MultiHeadAttention for the inputs."""
    return graph.ops("MultiHeadAttention", *inputs, outputs=outputs, num_heads=heads)


def length_mask(graph: Graph, lengths: str, width: str) -> str:
    """int32 mask [rows, width]: 1 where the position is below the row's int64 length, else 0."""
    steps = graph.op("Range", graph.constant(0, np.int64), graph.op("Squeeze", width), graph.constant(1, np.int64))
    inside = graph.op("Less", graph.op("Unsqueeze", steps, graph.i64(0)), graph.op("Unsqueeze", lengths, graph.i64(1)))
    return graph.op("Cast", inside, to=INT32)


def split_heads(graph: Graph, x: str, heads: int, width: int) -> str:
    """[rows, length, heads * width] -> [rows, heads, length, width]."""
    return graph.op("Transpose", graph.op("Reshape", x, graph.i64(0, 0, heads, width)), perm=[0, 2, 1, 3])


def dimension(graph: Graph, value: str, axis: int) -> str:
    """Size of ``value`` along ``axis`` as a 1-D int64 of one element."""
    return graph.op("Shape", value, start=axis, end=axis + 1)


def join(graph: Graph, *values: str) -> str:
    """Concatenate 1-D int64 values, for shapes."""
    return graph.op("Concat", *values, axis=0)


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
