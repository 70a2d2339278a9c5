"""Rounding that gradients pass through: rows of activations as the engine rounds them, learned ranges, weights.

The gradient of rounding is taken for that of leaving a value as it is (the straight-through estimator: Bengio, Léonard
& Courville 2013, "Estimating or Propagating Gradients Through Stochastic Neurons for Conditional Computation").
"""

from __future__ import annotations

from typing import Any

import torch

SIGNED_LEVELS, POSITIVE_LEVELS = 127, 255
"""Integers on each side of 0, or above 0 alone where no value can be below."""
_LEAST = 1e-20
"""A row without a larger magnitude counts as zeros, in the engine and here."""
_VALUES_AT_ONCE = 2**19  # fp32 numbers: so that several passes over them stay in a cache


class _RoundRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: torch.Tensor, levels: int) -> torch.Tensor:
        rows = values.reshape(-1, values.shape[-1])
        out = torch.empty_like(rows)
        step = max(1, _VALUES_AT_ONCE // rows.shape[1] if rows.device.type == "cpu" else len(rows))
        for start in range(0, len(rows), step):
            part = rows[start : start + step].to(torch.float32, copy=True)
            greatest = (part if levels == POSITIVE_LEVELS else part.abs()).amax(1, keepdim=True)
            factor = torch.where(greatest > _LEAST, levels / greatest, 0.0)
            out[start : start + step] = part.mul_(factor).round_().mul_(greatest / levels)
        return out.view(values.shape)

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor) -> Any:
        return upstream[0], None


def round_rows(values: torch.Tensor, *, positive: bool = False) -> torch.Tensor:
    """Round each row to 8 bits of its own largest magnitude, as the C core does (``quantize`` in kernels/body.h).

    Args:
        values: [..., K] of any float type; the result has it, too. In bf16 a rounded value is as near as bf16 can say.
        positive: no value is below 0, as behind a ReLU: 255 levels above it instead of 127 on each side.
    """
    levels = POSITIVE_LEVELS if positive else SIGNED_LEVELS
    found: torch.Tensor = _RoundRows.apply(values, levels)  # type: ignore[no-untyped-call]
    return found


class _RoundClipped(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: torch.Tensor, log_range: torch.Tensor, positive: bool) -> torch.Tensor:
        ctx.save_for_backward(values, log_range)
        ctx.positive = positive
        step, low, high = _grid(log_range, positive)
        return values.to(torch.float32, copy=True).div_(step).round_().clamp_(low, high).mul_(step).to(values.dtype)

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor) -> Any:
        values, log_range = ctx.saved_tensors
        step, low, high = _grid(log_range, ctx.positive)
        scaled = values.to(torch.float32, copy=True).div_(step)
        inside = (scaled >= low) & (scaled <= high)
        by_step = torch.where(inside, scaled.round() - scaled, scaled.clamp(low, high))
        by_step = (by_step * upstream[0]).sum() * step / (values.shape[-1] * high) ** 0.5
        return upstream[0] * inside, by_step.reshape(log_range.shape), None


def _grid(log_range: torch.Tensor, positive: bool) -> tuple[torch.Tensor, int, int]:
    """The step between two values, and the least and the greatest integer."""
    high = POSITIVE_LEVELS if positive else SIGNED_LEVELS
    return log_range.exp() / high, 0 if positive else -high, high


def round_clipped(values: torch.Tensor, log_range: torch.Tensor, *, positive: bool = False) -> torch.Tensor:
    """Round all values to 8 bits of one range that is learned, and clip what lies outside.

    The gradient of the range is that of Esser et al. 2020 ("Learned Step Size Quantization", equation 3, with the
    factor of section 2.2 for K features), carried on to the range's logarithm: so that a step of Adam changes a wide
    and a narrow range by the same part. Clipped values get no gradient, as in PACT (Choi et al. 2018).

    Args:
        values: [..., K].
        log_range: the logarithm of the largest magnitude there is, a scalar.
        positive: as in :func:`round_rows`.
    """
    found: torch.Tensor = _RoundClipped.apply(values, log_range, positive)  # type: ignore[no-untyped-call]
    return found


class _Substitute(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        ctx.dtype = weight.dtype
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor) -> Any:
        return upstream[0].to(ctx.dtype), None


def substitute(weight: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """``value``, whose gradient goes to ``weight``; of equal shapes."""
    found: torch.Tensor = _Substitute.apply(weight, value)  # type: ignore[no-untyped-call]
    return found
