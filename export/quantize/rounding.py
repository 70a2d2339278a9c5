"""From an fp32 matrix to stored integers and scales."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mobilenmt.export.quantize.forms import LEVELS, MULTIPLIERS, NIBBLE_LEVELS, Clipping, Form, Granularity
from mobilenmt.runtime.errors import InputError

Array = npt.NDArray[Any]

_SHARES = np.arange(100, 19, -1) / 100
"""Of the largest magnitude: where ``mse`` tries to clip 8 bits."""
_BLOCK_SHARES = np.arange(100, 59, -2) / 100
"""Likewise a row of 4-bit blocks, whose multipliers clip, too."""
_PRODUCTS = sorted({m * q for m in range(1, MULTIPLIERS + 1) for q in range(1, NIBBLE_LEVELS + 1)}, reverse=True)
"""Magnitudes that 4 bits and a multiplier make."""
_OFF_GRID = 1e-3
"""Of a step: further away a value is not what its integer was multiplied out to in fp32."""
_VALUES_AT_ONCE = 2**16  # so that what a search makes of them stays in the cache


@dataclass(frozen=True)
class Rounded:
    """A matrix as it is stored: ``values * multipliers * scales``."""

    values: Array
    """int8 [N, K]."""
    scales: Array
    """fp32 [N], all equal where the whole tensor shares one."""
    multipliers: Array | None = None
    """uint8 [N, ceil(K / block)], for 4 bits alone."""
    block: int = 0
    """Inputs that share a multiplier."""

    def integers(self) -> Array:
        """int8 [N, K]: what the scales are multiplied with."""
        if self.multipliers is None:
            return self.values
        spread = np.repeat(self.multipliers.astype(np.int8), self.block, axis=1)[:, : self.values.shape[1]]
        product: Array = self.values * spread
        return product

    def weights(self) -> Array:
        """fp32 [N, K]: the matrix that both engines multiply with."""
        product: Array = self.integers().astype(np.float32) * self.scales[:, None]
        return product

    def check(self, form: Form, shape: tuple[int, ...], levels: int | None = None) -> None:
        """Whether this is a matrix of ``shape`` in ``form``, with ``levels`` as in :func:`round_matrix`: for what comes
        from elsewhere.

        Raises:
            InputError: it is not; says what is wrong.
        """
        most = NIBBLE_LEVELS if form.kind == "int4" else levels if levels and form.kind == "int8" else form.levels
        problem = ""
        if form.kind == "fp32":
            problem = "fp32 has no rounded values"
        elif self.values.shape != shape or self.values.dtype != np.int8:
            problem = f"expected int8 {list(shape)}, found {self.values.dtype} {list(self.values.shape)}"
        elif np.abs(self.values.astype(np.int16)).max(initial=0) > most:
            problem = f"values beyond -{most} to {most}"
        elif self.scales.shape != shape[:1] or self.scales.dtype != np.float32:
            problem = f"expected a scale, float32, for each of {shape[0]} rows"
        elif not np.isfinite(self.scales).all() or (self.scales < 0).any():
            problem = "scales that are negative or no numbers"
        elif (self.multipliers is not None) != (form.kind == "int4") or self.block != form.block:
            problem = f"blocks of {self.block}, not of {form.block}"
        elif self.multipliers is not None:
            blocks = (shape[0], -(-shape[1] // form.block))
            if self.multipliers.shape != blocks or self.multipliers.dtype != np.uint8:
                problem = f"expected multipliers uint8 {list(blocks)}"
            elif self.multipliers.min() < 1 or self.multipliers.max() > MULTIPLIERS:
                problem = f"multipliers beyond 1 to {MULTIPLIERS}"
        if problem:
            raise InputError(f"it is not rounded as {form.name}: {problem}")


def round_matrix(
    weight: Array,
    form: Form,
    *,
    clipping: Clipping = "max",
    percentile: float = 99.99,
    granularity: Granularity = "channel",
    levels: int | None = None,
) -> Rounded:
    """Round ``weight`` [N, K] to the nearest values of a form; symmetric.

    What was multiplied out of integers of the form (``mobilenmt restore``) gives the same integers again, whatever the
    clipping: of it nothing is clipped, and nothing lost.

    Args:
        weight: fp32.
        form: any but fp32.
        clipping: what the largest integer stands for. ``max``: the largest magnitude, so that nothing is clipped.
            ``percentile``: that percentile of the magnitudes. ``mse``: a share of the largest magnitude, by a search
            for the least squared error, which also chooses the multipliers of 4-bit blocks; otherwise they are the
            smallest that clip nothing more.
        percentile: from 0 to 100, of a row or of the tensor.
        granularity: a scale for each row (``channel``), or one for all (``tensor``).
        levels: the largest integer of 8 bits, where it is not the form's.
    """
    if granularity == "tensor":
        groups = weight.reshape(1, -1)
    else:
        groups = weight
    if form.kind == "int4":
        return _round_blocks(weight, form.block, clipping, percentile, granularity)
    levels = form.levels if levels is None else levels
    most = _clip_at(groups, clipping, percentile)
    scales = most / levels
    if clipping == "percentile":
        whole = np.abs(groups).max(axis=1) / np.float32(levels)
        scales = np.where(_on_grid(groups / _divisor(whole)[:, None]), whole, scales)
    if clipping == "mse":
        scales = scales * _best_shares(groups, scales, levels)
    scales = np.broadcast_to(scales, len(weight))
    values = np.clip(np.rint(weight / _divisor(scales)[:, None]), -levels, levels)
    return Rounded(values.astype(np.int8), scales.astype(np.float32))


def _clip_at(groups: Array, clipping: Clipping, percentile: float) -> Array:
    """[groups]: the magnitude that the largest integer stands for; for ``mse`` the largest there is."""
    sizes = np.abs(groups)
    most: Array = sizes.max(axis=1) if clipping != "percentile" else np.percentile(sizes, percentile, axis=1)
    return most.astype(groups.dtype)


def _best_shares(groups: Array, scales: Array, levels: int) -> Array:
    """[groups]: by which share of its scale each group has the least squared error."""
    least = np.full(len(groups), np.inf)
    best = np.ones(len(groups), np.float32)
    for part in _parts(groups):
        some, divisor = groups[part], _divisor(scales[part])
        for share in _SHARES:
            step = (divisor * np.float32(share))[:, None]
            error = _squared(np.clip(np.rint(some / step), -levels, levels) * step - some)
            better = error < least[part]
            least[part] = np.where(better, error, least[part])
            best[part] = np.where(better, share, best[part])
    return best


def _round_blocks(
    weight: Array, block: int, clipping: Clipping, percentile: float, granularity: Granularity
) -> Rounded:
    rows, columns = weight.shape
    padded = np.pad(weight, ((0, 0), (0, -columns % block))).reshape(rows, -1, block)
    most = _clip_at(weight.reshape(1, -1) if granularity == "tensor" else weight, clipping, percentile)
    largest = np.broadcast_to(most / LEVELS, rows)
    if clipping == "mse":
        scales = largest * _best_block_shares(padded, largest, whole=granularity == "tensor")
        multipliers = np.concatenate([best_multipliers(padded[part], scales[part])[0] for part in _parts(padded)])
    else:
        scales = largest
        sizes = np.minimum(np.abs(padded).max(axis=2), np.broadcast_to(most, rows)[:, None])
        wanted = sizes / (_divisor(scales)[:, None] * NIBBLE_LEVELS)
        multipliers = np.ceil(wanted - 1e-4)  # what division left behind the point is no reason for a coarser step
    known = _known_block_scales(padded, whole=granularity == "tensor")
    rows_known = np.flatnonzero(known)
    if len(rows_known):
        scales = np.where(known > 0, known, scales)
        for part in _parts(padded[rows_known]):
            some = rows_known[part]
            multipliers[some] = _smallest_multipliers(np.rint(padded[some] / known[some][:, None, None]))
    multipliers = np.clip(multipliers, 1, MULTIPLIERS).astype(np.uint8)
    step = _divisor(scales)[:, None, None] * multipliers[:, :, None]
    values = np.clip(np.rint(padded / step), -NIBBLE_LEVELS, NIBBLE_LEVELS).reshape(rows, -1)[:, :columns]
    return Rounded(np.ascontiguousarray(values, np.int8), scales.astype(np.float32), multipliers, block)


def _best_block_shares(blocks: Array, scales: Array, *, whole: bool) -> Array:
    """[rows]: by which share of its scale each row, or the ``whole`` matrix, has the least squared error with the best
    multipliers."""
    errors = np.concatenate(
        [
            np.stack(
                [best_multipliers(blocks[part], scales[part] * np.float32(share))[1] for share in _BLOCK_SHARES],
                axis=1,
            )
            for part in _parts(blocks)
        ]
    )
    if whole:
        errors = errors.sum(axis=0, keepdims=True)
    best: Array = _BLOCK_SHARES[errors.argmin(axis=1)].astype(np.float32)
    return best


def best_multipliers(blocks: Array, scales: Array) -> tuple[Array, Array]:
    """For fp32 blocks [rows, n, size]: the multiplier of least squared error of each [rows, n], and the errors
    [rows]."""
    errors = []
    for multiplier in range(1, MULTIPLIERS + 1):
        step = (_divisor(scales) * np.float32(multiplier))[:, None, None]
        errors.append(_squared(np.clip(np.rint(blocks / step), -NIBBLE_LEVELS, NIBBLE_LEVELS) * step - blocks, axis=2))
    found = np.stack(errors)
    return found.argmin(axis=0) + 1, found.min(axis=0).sum(axis=1)


def _known_block_scales(blocks: Array, *, whole: bool) -> Array:
    """[rows]: the scale of each row, or of the ``whole`` matrix, of fp32 [rows, n, size] that was multiplied out of
    blocks of 4 bits; 0 where it was not."""
    groups = blocks.reshape(1 if whole else len(blocks), -1, blocks.shape[2])
    most = np.abs(groups).max(axis=(1, 2))
    found = np.zeros(len(groups), np.float32)
    for product in _PRODUCTS:
        scales = most / np.float32(product)
        left = np.flatnonzero((found == 0) & (scales > 1e-30))
        for part in (slice(0, 1), slice(0, None)):  # the first blocks tell nearly all that never were integers
            left = left[_on_grid(groups[left, part] / scales[left, None, None])]
        if len(left):
            integers = np.rint(groups[left] / scales[left, None, None])
            left = left[(_smallest_multipliers(integers) > 0).all(axis=1)]
            found[left] = scales[left]
    return np.broadcast_to(found, len(blocks))


def _smallest_multipliers(integers: Array) -> Array:
    """[rows, n]: by which every one of ``integers`` [rows, n, size] can be divided into 4 bits; 0 if there is none."""
    sizes = np.abs(integers)
    most, found = sizes.max(axis=2), np.zeros(sizes.shape[:2], np.uint8)
    for multiplier in range(MULTIPLIERS, 0, -1):
        fits = (most <= multiplier * NIBBLE_LEVELS) & (sizes % multiplier == 0).all(axis=2)
        found[fits] = multiplier
    return found


def _on_grid(values: Array) -> Array:
    """[rows]: whether all ``values`` [rows, ...] are integers but for what fp32 rounds."""
    found: Array = (np.abs(values - np.rint(values)) < _OFF_GRID).all(axis=tuple(range(1, values.ndim)))
    return found


def _squared(error: Array, axis: int = 1) -> Array:
    found: Array = np.square(error).sum(axis=axis, dtype=np.float64)
    return found


def _parts(groups: Array) -> list[slice]:
    """Rows, some at a time."""
    some = max(1, _VALUES_AT_ONCE * len(groups) // max(1, groups.size))
    return [slice(first, first + some) for first in range(0, len(groups), some)]


def _divisor(scales: Array) -> Array:
    # A scale that has no reciprocal in fp32 belongs to (nearly) zeros: divided by 1 they are rounded to zeros.
    divisor: Array = np.where(scales > 1e-30, scales, np.float32(1))
    return divisor
