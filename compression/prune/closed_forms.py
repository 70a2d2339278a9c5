"""Closed forms of reconstruction: regularized least squares, and the best products of fewer channels."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch.nn import functional

Tensor = torch.Tensor

_LEAST = 1e-6  # relative, below which a direction counts as absent


def solve(rows: Iterable[tuple[Tensor, Tensor]], weight: Tensor, bias: Tensor, ridge: float) -> tuple[Tensor, Tensor]:
    """Weights and bias of the least-squares map of inputs to targets, near those given (ridge regression).

    Args:
        rows: inputs [N, in] and targets [N, out], batch by batch; N may be less than ``in``.
        weight: [out, in], what the solution is held to.
        bias: [out], likewise, hardly held.
        ridge: strength, relative to the mean square of the inputs.
    """
    size = weight.shape[1] + 1
    gram = torch.zeros(size, size, dtype=torch.float64)
    cross = torch.zeros(size, len(weight), dtype=torch.float64)
    for inputs, targets in rows:
        extended = torch.cat([inputs, inputs.new_ones(len(inputs), 1)], 1)
        missing = targets - functional.linear(inputs, weight, bias)
        gram += (extended.T @ extended).double()
        cross += (extended.T @ missing).double()
    held = torch.full((size,), ridge * float(gram.diagonal()[:-1].mean()), dtype=torch.float64)
    held += _LEAST * gram.diagonal().mean()  # inputs that are always zero keep their weights
    held[-1] = _LEAST * gram[-1, -1]
    change = torch.linalg.solve(gram + held.diag(), cross)
    return weight + change[:-1].T.float(), bias + change[-1].float()


class Regression:
    """Gain and offset of each channel for itself, by least squares, from sums over batches."""

    def __init__(self, channels: int) -> None:
        self._sums = torch.zeros(5, channels, dtype=torch.float64)

    def add(self, inputs: Tensor, targets: Tensor) -> None:
        """Take in [N, channels] of each."""
        x, y = inputs.double(), targets.double()
        count = torch.full_like(self._sums[0], len(x))
        self._sums += torch.stack([count, x.sum(0), y.sum(0), (x * x).sum(0), (x * y).sum(0)])

    def solve(self, usual: Tensor) -> tuple[Tensor, Tensor]:
        """Gains and offsets, [channels] each; ``usual`` gains where inputs never change."""
        count, x, y, xx, xy = self._sums
        spread = xx / count - (x / count) ** 2
        slope = (xy / count - x * y / count**2) / spread.clamp_min(1e-12)
        slope = torch.where(spread > 1e-9, slope, usual.double())
        return slope.float(), ((y - slope * x) / count).float()


def fewer_products(left: Tensor, right: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Maps A and B [n, size] with which (Q A)(K B)^T is nearest to Q K^T, of all of that rank (Eckart-Young).

    Args:
        left: Q^T Q, [n, n] in float64.
        right: K^T K.
        size: channels that are left.
    """
    (root, inverse), (other, other_inverse) = _roots(left), _roots(right)
    u, s, v = torch.linalg.svd(root @ other)
    scale = s[:size].sqrt()
    return inverse @ u[:, :size] * scale, other_inverse @ v[:size].T * scale


def fewer_values(gram: Tensor, out: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """A basis T [n, size], orthonormal, and a matrix W [out, size] with which V T W^T is nearest to V ``out``^T.

    Args:
        gram: V^T V, [n, n] in float64.
        out: [out, n].
        size: channels that are left.
    """
    root, inverse = _roots(gram)
    u, _, _ = torch.linalg.svd(root @ out.T, full_matrices=False)
    basis: Tensor = torch.linalg.qr(inverse @ u[:, :size]).Q  # so that values keep their size
    return basis, (torch.linalg.pinv(root @ basis) @ root @ out.T).T


def _roots(gram: Tensor) -> tuple[Tensor, Tensor]:
    """Symmetric root of a positive semidefinite matrix, and the root of its inverse, faint directions left out."""
    values, vectors = torch.linalg.eigh(gram)
    root = values.clamp_min(0).sqrt()
    inverse = torch.where(values > _LEAST * values.max(), 1 / root.clamp_min(1e-30), torch.zeros_like(root))
    return vectors * root @ vectors.T, vectors * inverse @ vectors.T
