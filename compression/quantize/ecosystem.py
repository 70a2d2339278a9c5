"""GPTQ and AWQ of onnx-neural-compressor, for the forms of a pack.

The library quantizes MatMul nodes of an ONNX model on a grid of its own: blocks of 4 bits with a zero point of 8, fp32
scales. A pack's blocks have integer multipliers, so what its GPTQ gives is rounded once more, to the nearest. (Version
1.0 reads the empty half of a triangular matrix, so that no error is carried on: its GPTQ is rounding to the nearest.)

AWQ (Lin et al. 2024) multiplies input channels of a matrix and divides the inputs: that is a pack's without a node more
where what makes the inputs is a matrix, too, and nothing else reads them: values in front of an attention's output, and
the inner layer behind a ReLU. Elsewhere a norm's output goes to the residual sum, too.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from mobilenmt.compression.core.errors import QuantizeError
from mobilenmt.compression.core.progress import progress
from mobilenmt.compression.prune.network import EMBEDDING, Batch, Network, Weights
from mobilenmt.compression.quantize.gptq import inputs
from mobilenmt.compression.quantize.matrices import Matrix, matrices, round_as, stacked, with_weights
from mobilenmt.compression.train.quantized.rounding import round_rows
from mobilenmt.export.quantize.forms import Form
from mobilenmt.export.quantize.rounding import Rounded, round_matrix
from mobilenmt.export.quantize.settings import Quantization

Array = npt.NDArray[Any]
_ROWS = 1024
"""Inputs of each matrix that AWQ looks at."""
_SCALE = "_weight_only_scale"  # how the library calls what it multiplies inputs with
_OPSET = 17


def gptq_network(
    network: Network, settings: Quantization, found: Mapping[str, Array], *, shortlist: bool = False
) -> dict[str, Rounded]:
    """Matrices of 4 bits by the library's GPTQ, then to the nearest in a pack's form; others to the nearest.

    Args:
        network: the model.
        settings: forms and clipping.
        found: Hessians.
        shortlist: whether the pack has one.

    Raises QuantizeError if the library is missing.
    """
    rounded: dict[str, Rounded] = {}
    todo = matrices(network.config)
    with progress("GPTQ, onnx-neural-compressor", "matrices", total=len(todo)) as bar:
        for matrix in todo:
            form = settings.form_of(matrix.name)
            if form.kind == "int4" and matrix.members != (EMBEDDING,):
                made = gptq_weights(stacked(network.weights, matrix), found[matrix.name], form.block)
                rounded[matrix.name] = round_matrix(made, form, clipping=settings.clipping)
            elif form.kind != "fp32":
                nearest = round_as(network.weights, matrix, settings, shortlist=shortlist)
                assert nearest is not None
                rounded[matrix.name] = nearest
            bar.update(1)
    return rounded


def gptq_weights(weight: Array, hessian: Array, block: int) -> Array:
    """fp32 [N, K]: what the library's GPTQ makes of a matrix [N, K] with blocks of ``block`` inputs.

    It is given K inputs whose sum of x x^T is the Hessian, which is all that it makes of inputs.
    """
    library = _library()
    damped = hessian + 1e-6 * np.trace(hessian) / len(hessian) * np.eye(len(hessian))
    rows = np.linalg.cholesky(damped).T.astype(np.float32)
    with _quietly():
        model = library.gptq.gptq_quantize(_product(weight), _reader(rows), _config(block))
    node = next(node for node in model.graph.node if node.op_type == "MatMulNBits")
    stored = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
    data, scales = stored[node.input[1]], stored[node.input[2]]
    values = np.stack([data & 15, data >> 4], axis=-1).astype(np.float32).reshape(len(weight), -1, block) - 8
    found: Array = (values * scales.reshape(len(weight), -1, 1)).reshape(len(weight), -1)[:, : weight.shape[1]]
    return np.ascontiguousarray(found, np.float32)


def awq_network(network: Network, batches: Sequence[Batch], form: Form) -> Network:
    """The same function with channels scaled by the library's AWQ, where a pack can say so and where it lowers the
    error of the outputs in ``form``, which is one of 4 bits: the library judges by its own grid.

    Raises QuantizeError if the library is missing.
    """
    _library()
    wanted = {matrix.name: source for matrix in matrices(network.config) if (source := _source(network, matrix))}
    samples: dict[str, list[Array]] = {name: [] for name in wanted}
    each = -(-_ROWS // len(batches))

    def keep(matrix: Matrix, rows: Array) -> None:
        if matrix.name in samples:
            samples[matrix.name].append(rows[:: -(-len(rows) // each)])

    inputs(network, batches, keep)
    changed: Weights = {}
    with progress("AWQ, onnx-neural-compressor", "matrices", total=len(wanted)) as bar:
        for name, source in wanted.items():
            weight, rows = network.weights[f"{name}.weight"].numpy(), np.concatenate(samples[name])
            scale = awq_scale(weight, rows, form.block)
            positive = name.endswith(".fc2")
            before, after = (
                _errors(weight, rows, form, one, positive=positive) for one in (np.ones_like(scale), scale)
            )
            if (after < before).all():
                factor = torch.from_numpy(scale)
                changed[f"{name}.weight"] = network.weights[f"{name}.weight"] * factor
                changed[f"{source}.weight"] = network.weights[f"{source}.weight"] / factor[:, None]
                changed[f"{source}.bias"] = network.weights[f"{source}.bias"] / factor
            bar.update(1)
    return with_weights(network, changed)


def awq_scale(weight: Array, rows: Array, block: int) -> Array:
    """fp32 [K]: what the library's AWQ multiplies the input channels of a matrix [N, K] with, by inputs [tokens, K].

    For an input that was never anything but zero, such as a neuron that seldom fires, the library's factor is next to
    nothing: divided by it, the first one that comes would be all that is left of its row in 8 bits. It gets the least
    factor of the others.
    """
    library = _library()
    with _quietly():
        model = library.awq.awq_quantize(_product(weight), _reader(rows), _config(block))
    inverse = next(numpy_helper.to_array(item) for item in model.graph.initializer if item.name.endswith(_SCALE))
    found: Array = (1 / inverse).astype(np.float32)
    seen = rows.any(axis=0)
    found[~seen] = found[seen].min(initial=np.inf) if seen.any() else 1.0
    return found


def _errors(weight: Array, rows: Array, form: Form, scale: Array, *, positive: bool) -> Array:
    """[2]: squared errors of the outputs, where the input channels are multiplied with ``scale`` before rounding, and
    the inputs are divided by it and then rounded to 8 bits: each row for itself, as in the C core, and all rows by one
    range, as ONNX Runtime does in the encoder. Inputs may lose more than weights gain."""
    stored = round_matrix(weight * scale, form, clipping="mse").weights()
    scaled = torch.from_numpy(rows / scale)
    found = []
    for read in (round_rows(scaled, positive=positive), round_rows(scaled.view(1, -1), positive=positive)):
        found.append(float(np.square(read.view(scaled.shape).numpy() @ stored.T - rows @ weight.T).sum()))
    return np.array(found)


def _source(network: Network, matrix: Matrix) -> str | None:
    """The linear layer whose outputs are the inputs of a matrix, scaled with them channel by channel; None if there is
    none."""
    if matrix.name.endswith(".out_proj"):
        return matrix.name.replace(".out_proj", ".v_proj")
    if matrix.name.endswith(".fc2") and network.config.activation_function == "relu":
        return matrix.name.replace(".fc2", ".fc1")
    return None


def _product(weight: Array) -> onnx.ModelProto:
    """inputs [tokens, K] times a matrix [N, K] transposed. A node in front, so that AWQ has a place to scale at."""
    rows, columns = weight.shape
    stored = numpy_helper.from_array(np.ascontiguousarray(weight.T), "weight")
    graph = helper.make_graph(
        [
            helper.make_node("Identity", ["x"], ["inputs"], name="inputs"),
            helper.make_node("MatMul", ["inputs", "weight"], ["y"], name="product"),
        ],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["tokens", columns])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["tokens", rows])],
        [stored],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=9)


def _config(block: int) -> dict[str, dict[str, Any]]:
    kinds = {"weight_dtype": "int", "weight_bits": 4, "weight_group_size": block, "weight_sym": True}
    return {"product": {**kinds, "accuracy_level": 0}}


def _reader(rows: Array) -> Any:
    library = _library()

    class Reader(library.data_reader.CalibrationDataReader):  # type: ignore[misc, name-defined]
        """One batch."""

        def __init__(self) -> None:
            self.rewind()

        def get_next(self) -> dict[str, Array] | None:
            """The batch, once."""
            return next(self._left, None)

        def rewind(self) -> None:
            """Begin again."""
            self._left = iter([{"x": rows}])

    return Reader()


class _Library:
    """The parts of onnx-neural-compressor that are used here."""

    def __init__(self) -> None:
        from onnx_neural_compressor import data_reader
        from onnx_neural_compressor.algorithms.weight_only import awq, gptq

        self.data_reader, self.awq, self.gptq = data_reader, awq, gptq


def _library() -> _Library:
    try:
        return _Library()
    except ImportError as error:
        raise QuantizeError(
            f"this needs onnx-neural-compressor ({error}): install the extra 'npu' (Python 3.11 or 3.12)"
        ) from None


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """The library draws bars on standard output."""
    with contextlib.redirect_stdout(io.StringIO()), np.errstate(all="ignore"):
        yield
