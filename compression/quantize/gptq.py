"""GPTQ for the forms of a pack: rounding that makes up for its errors where inputs go together.

Frantar, Ashkboos, Hoefler & Alistarh 2023, "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained
Transformers". What differs is the grid: a row has a scale, and each of its blocks of 4 bits an integer multiplier
(:mod:`mobilenmt.export.quantize.forms`); the multiplier of a block is chosen when its first column comes, from what is
left of its weights by then.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from mobilenmt.compression.core.errors import QuantizeError
from mobilenmt.compression.core.progress import progress
from mobilenmt.compression.prune.network import EMBEDDING, Batch, Network
from mobilenmt.compression.quantize.matrices import Matrix, matrices, round_as, stacked
from mobilenmt.export.quantize.forms import NIBBLE_LEVELS, Form
from mobilenmt.export.quantize.rounding import Rounded, best_multipliers
from mobilenmt.export.quantize.settings import Quantization

Array = npt.NDArray[Any]
_DAMPING = 0.01
"""Of the mean of the Hessian's diagonal, added to it: the authors' value."""
_AT_ONCE = 128  # columns whose errors are carried to the ones behind them in one product
_FROM_SOURCE = ("encoder_attn.k_proj", "encoder_attn.v_proj")


@dataclass(frozen=True)
class _Listening(Network):
    """A network that tells what goes into its products, rows of padding too."""

    hear: Callable[[str, torch.Tensor], None] = field(default=lambda name, states: None)

    def linear(self, name: str, states: torch.Tensor) -> torch.Tensor:
        self.hear(name, states)
        return super().linear(name, states)


def inputs(network: Network, batches: Sequence[Batch], use: Callable[[Matrix, Array], None]) -> None:
    """Call ``use`` with each matrix and what goes into it, fp32 [tokens, columns], for one batch after the other.

    Raises QuantizeError if that is NaN.
    """
    heard = {matrix.members[0]: matrix for matrix in matrices(network.config)}
    for batch in progress_over(batches):

        def hear(name: str, states: torch.Tensor, batch: Batch = batch) -> None:
            if name in heard:
                of_source = ".encoder.layers." in name or name.endswith(_FROM_SOURCE)
                mask = batch.source_mask if of_source else batch.target_mask
                rows = states[mask]
                if not bool(rows.isfinite().all()):
                    raise QuantizeError(f"{heard[name].name}: the model gives NaN on the text")
                use(heard[name], rows.numpy())

        listening = _Listening(network.config, network.weights, hear)
        with torch.inference_mode():
            use(heard[EMBEDDING], listening.states(batch)[batch.target_mask].numpy())


def progress_over(batches: Sequence[Batch]) -> Any:
    """The batches, counted on the terminal."""
    with progress("inputs of matrices", "batches", total=len(batches)) as bar:
        for batch in batches:
            yield batch
            bar.update(1)


def hessians(network: Network, batches: Sequence[Batch]) -> dict[str, Array]:
    """Matrix -> float64 [columns, columns], the sum of x x^T over its inputs x."""
    found: dict[str, Array] = {}

    def add(matrix: Matrix, rows: Array) -> None:
        product = (rows.T @ rows).astype(np.float64)
        found[matrix.name] = found[matrix.name] + product if matrix.name in found else product

    inputs(network, batches, add)
    return found


def round_network(
    network: Network, settings: Quantization, found: Mapping[str, Array], *, shortlist: bool = False
) -> dict[str, Rounded]:
    """Every matrix that does not stay fp32, rounded by GPTQ.

    The table is an embedding, too, whose rows are read as they are: its own error counts as much as that of outputs.
    """
    rounded: dict[str, Rounded] = {}
    todo = matrices(network.config)
    with progress("GPTQ", "matrices", total=len(todo)) as bar:
        for matrix in todo:
            start = round_as(network.weights, matrix, settings, shortlist=shortlist)
            if start is not None:
                hessian = found[matrix.name]
                if matrix.members == (EMBEDDING,):
                    hessian = hessian + np.eye(len(hessian)) * np.trace(hessian) / len(hessian)
                form = settings.form_of(matrix.name)
                rounded[matrix.name] = gptq(stacked(network.weights, matrix), hessian, form, start)
            bar.update(1)
    return rounded


def gptq(weight: Array, hessian: Array, form: Form, start: Rounded) -> Rounded:
    """Round a matrix so that its outputs change little, instead of its values.

    Args:
        weight: fp32 [N, K].
        hessian: [K, K], the sum of x x^T over inputs x.
        form: of integers.
        start: the matrix rounded to the nearest: its scales are kept.
    """
    columns = weight.shape[1]
    most = NIBBLE_LEVELS if form.kind == "int4" else int(max(form.levels, np.abs(start.values.astype(np.int16)).max()))
    scales = np.where(start.scales > 1e-30, start.scales, np.float32(1))
    left, upper = weight.astype(np.float32, copy=True), _errors_upon(hessian)
    values = np.zeros(weight.shape, np.int8)
    multipliers = None if start.multipliers is None else start.multipliers.copy()
    for first in range(0, columns, _AT_ONCE):
        end = min(first + _AT_ONCE, columns)
        errors = np.zeros((len(weight), end - first), np.float32)
        for column in range(first, end):
            step = scales
            if multipliers is not None:
                place = column // form.block
                if column % form.block == 0:
                    block = left[:, None, column : column + form.block]
                    multipliers[:, place] = best_multipliers(block, scales)[0][:, 0]
                step = scales * multipliers[:, place]
            values[:, column] = chosen = np.clip(np.rint(left[:, column] / step), -most, most).astype(np.int8)
            error = (left[:, column] - chosen * step) / upper[column, column]
            left[:, column + 1 : end] -= np.outer(error, upper[column, column + 1 : end])
            errors[:, column - first] = error
        left[:, end:] -= errors @ upper[first:end, end:]
    return Rounded(values, start.scales, multipliers, start.block)


def output_error(weight: Array, rounded: Array, hessian: Array) -> float:
    """Squared error of the outputs, summed over the inputs that ``hessian`` is of."""
    difference = (weight - rounded).astype(np.float64)
    return float(np.einsum("nk,kl,nl->", difference, hessian, difference, optimize=True))


def _errors_upon(hessian: Array) -> Array:
    """fp32 [K, K], upper: how the error of a column is carried on to those behind it: the Cholesky factor of the
    inverse Hessian. Inputs that are always zero carry nothing."""
    damped = hessian.astype(np.float64, copy=True)
    diagonal = np.arange(len(damped))
    mean = damped[diagonal, diagonal].mean() or 1.0
    damped[diagonal, diagonal] += _DAMPING * mean
    factor: Array = np.linalg.cholesky(np.linalg.inv(damped)).T.astype(np.float32)
    return factor
