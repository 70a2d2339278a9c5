"""SmoothQuant: ranges of channels move from activations into weights, where that costs no operator.

Xiao et al. 2023 (arXiv 2211.10438), as onnx-neural-compressor computes it. In a post-norm Transformer what a
LayerNormalization gives goes to the residual as well, so a factor could not be undone there without another operator;
such products take 16 bits where they need them. Inside the feed-forward network and behind the values of attention the
factor folds into the matrix before, and what the model computes stays the same.
"""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from mobilenmt.export.checkpoint import Checkpoint
from mobilenmt.export.npu.groups import Group
from mobilenmt.export.npu.recording import Recorded, with_tensors
from mobilenmt.export.weights import Array
from mobilenmt.runtime.errors import ExportError

ALPHA = 0.5
"""How much of the range goes to the weights: the paper's."""
_HOMOGENEOUS = ("relu", "leaky_relu", "linear")
"""Activation functions that a positive factor passes through."""
_PARENT = {"fc2": "fc1", "self_attn.out_proj": "self_attn.v_proj", "encoder_attn.out_proj": "encoder_attn.v_proj"}
"""A product -> the one before, whose outputs can take its factors."""
_MOST = 64.0
"""Largest factor, either way: a channel that the calibration text hardly moves says little about its range."""


def parent_of(group: Group, activation: str) -> str | None:
    """The projection that can take the factors of a product's inputs, or None."""
    (name, *more) = group.names
    for part, parent in _PARENT.items():
        if not more and name.endswith(f".{part}") and (part != "fc2" or activation in _HOMOGENEOUS):
            return f"{name.removesuffix(part)}{parent}"
    return None


def smooth(
    checkpoint: Checkpoint, products: Sequence[Group], recorded: Mapping[str, Recorded], alpha: float = ALPHA
) -> tuple[Checkpoint, dict[str, Recorded]]:
    """The same model with smoother activations, and what its products then read and give.

    Raises:
        ExportError: onnx-neural-compressor is not installed.
    """
    parents = {group.name: parent_of(group, checkpoint.config.activation_function) for group in products}
    chosen = [group for group in products if parents[group.name]]
    factors = smooth_factors(
        {group.name: (recorded[group.name].read.joined(), group.weight(checkpoint)) for group in chosen}, alpha
    )
    changed: dict[str, Array] = {}
    found = dict(recorded)
    for group in chosen:
        factor = factors[group.name]
        (name,), parent = group.names, str(parents[group.name])
        changed[f"{name}.weight"] = checkpoint[f"{name}.weight"] * factor
        changed[f"{parent}.weight"] = checkpoint[f"{parent}.weight"] / factor[:, None]
        changed[f"{parent}.bias"] = checkpoint[f"{parent}.bias"] / factor
        found[group.name] = Recorded(found[group.name].read.scaled(1 / factor), found[group.name].given)
        owner = next(other for other in products if parent in other.names)
        width = len(factor)
        start = owner.names.index(parent) * width
        spread = np.ones(len(owner.names) * width, np.float32)
        spread[start : start + width] = 1 / factor
        found[owner.name] = Recorded(found[owner.name].read, found[owner.name].given.scaled(spread))
    return with_tensors(checkpoint, changed), found


def smooth_factors(products: Mapping[str, tuple[Array, Array]], alpha: float) -> dict[str, Array]:
    """What SmoothQuant divides the channels of each input by, fp32 [in].

    onnx-neural-compressor sees one model of products that have nothing to do with each other, each with the rows that
    were recorded as its input: so it needs neither our graphs nor their padding.

    Args:
        products: rows [n, in] of the input and the weight [out, in] of each.
        alpha: from 0, all stays in the activations, to 1.
    """
    try:
        from onnx_neural_compressor.algorithms.smoother.core import Smoother
    except ImportError as error:
        raise ExportError(
            f"smoothing needs onnx-neural-compressor ({error}): install the extra 'npu', on Python 3.11 or 3.12 "
            "(in a checkout of mobilenmt, pip install '.[npu]')"
        ) from None
    names = list(products)
    nodes, inputs, outputs, initializers, feed = [], [], [], [], {}
    for index, (rows, weight) in enumerate(products.values()):
        count, width = rows.shape
        inputs.append(helper.make_tensor_value_info(f"x{index}", TensorProto.FLOAT, [count, width]))
        outputs.append(helper.make_tensor_value_info(f"y{index}", TensorProto.FLOAT, [count, len(weight)]))
        turned = np.ascontiguousarray(weight.T, np.float32)
        initializers.append(numpy_helper.from_array(turned, f"w{index}"))
        nodes.append(helper.make_node("Identity", [f"x{index}"], [f"i{index}"], f"identity{index}"))
        nodes.append(helper.make_node("MatMul", [f"i{index}", f"w{index}"], [f"y{index}"], f"product{index}"))
        feed[f"x{index}"] = np.ascontiguousarray(rows, np.float32)
    graph = helper.make_graph(nodes, "products", inputs, outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)  # it tells of every node, and draws its progress on stdout
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            smoothed = Smoother(model, _Once(feed)).transform(
                alpha=float(alpha), folding=False, percentile=99.999, op_types=["MatMul"], calib_iter=1
            )
    finally:
        logging.disable(before)
    after = {tensor.name: numpy_helper.to_array(tensor) for tensor in smoothed.graph.initializer}
    factors = {}
    for index, name in enumerate(names):
        rows, weight = products[name]
        inserted = _inserted(smoothed, after, f"i{index}")
        factor = np.ones(rows.shape[1]) if inserted is None else 1 / inserted.astype(np.float64)
        silent = ~rows.any(axis=0) | ~weight.any(axis=0) | ~np.isfinite(factor) | (factor <= 0)
        factors[name] = np.where(silent, 1.0, np.clip(factor, 1 / _MOST, _MOST)).astype(np.float32)
    return factors


def _inserted(model: onnx.ModelProto, values: Mapping[str, Array], read: str) -> Array | None:
    """The constant of the Mul that reads ``read``."""
    for node in model.graph.node:
        if node.op_type == "Mul" and read in node.input:
            (other,) = [name for name in node.input if name != read]
            return values[other].reshape(-1)
    return None


class _Once:
    """A calibration reader of one batch, as onnx-neural-compressor wants it."""

    def __init__(self, feed: dict[str, Array]) -> None:
        self._feed, self._left = feed, True

    def get_next(self) -> dict[str, Array] | None:
        """The batch, then None."""
        self._left, there = False, self._left
        return self._feed if there else None

    def rewind(self) -> None:
        """Begin again."""
        self._left = True
