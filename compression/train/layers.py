"""Layers of the Transformer; on a CPU with gradients written by hand, in fewer passes over memory than autograd's own.

Anywhere else they are torch's own, which fuse there. States are [time, sentences, width].
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

_FUSED = hasattr(torch.ops.mkldnn, "_linear_pointwise")


class _Linear(torch.autograd.Function):
    """x W' + b, then relu if wanted: in bf16 with the bias in the kernel, where torch adds it in a pass of its own."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, relu: bool) -> torch.Tensor:
        out: torch.Tensor
        if _FUSED and x.dtype == torch.bfloat16 and x.device.type == "cpu":
            out = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
        else:
            out = functional.linear(x, weight, bias)
        if relu:
            out.relu_()  # the kernel's own would make 0 of what is not a number
        ctx.save_for_backward(x, weight, out if relu else None)
        return out

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor) -> Any:
        x, weight, out = ctx.saved_tensors
        gradient = upstream[0]
        if out is not None:
            gradient = torch.ops.aten.threshold_backward(gradient, out, 0)
        # The wider matrix last: the one that is transposed is put in order for the product first.
        wide = weight.shape[0] > weight.shape[1]
        weight_grad = torch.mm(x.t(), gradient).t() if wide else torch.mm(gradient.t(), x)
        return gradient @ weight, weight_grad, gradient.sum(0), None


class _Attend(torch.autograd.Function):
    """softmax(q k' + mask) v for all heads at once. Use :func:`attend`."""

    @staticmethod
    def forward(
        ctx: Any, packed: torch.Tensor, memory: torch.Tensor | None, mask: torch.Tensor | None, heads: int
    ) -> torch.Tensor:
        ctx.heads, ctx.width = heads, packed.shape[2] // (3 if memory is None else 1)
        ctx.lengths = packed.shape[0], (packed if memory is None else memory).shape[0]
        padded = ctx.lengths[1] if mask is None else mask.shape[2]
        sides = _sides(packed, memory)
        q, k, v = (
            _split(side, heads, length) for side, length in zip(sides, (len(packed), padded, padded), strict=True)
        )
        scores = torch.bmm(q, k.transpose(1, 2)) if mask is None else torch.baddbmm(mask, q, k.transpose(1, 2))
        shares = torch.softmax(scores, dim=2)
        ctx.save_for_backward(q, k, v, shares)
        ctx.packed = memory is None
        out = packed.new_empty(len(packed), packed.shape[1], ctx.width)
        _join(torch.bmm(shares, v), out, heads)
        return out

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor) -> Any:
        q, k, v, shares = ctx.saved_tensors
        gradient = _split(upstream[0], ctx.heads, ctx.lengths[0])
        v_grad = torch.bmm(shares.transpose(1, 2), gradient)
        share_grad = torch.bmm(gradient, v.transpose(1, 2))
        score_grad = torch._softmax_backward_data(share_grad, shares, 2, shares.dtype)
        found = (torch.bmm(score_grad, k), torch.bmm(score_grad.transpose(1, 2), q), v_grad)
        sentences = upstream[0].shape[1]
        packed = upstream[0].new_empty(ctx.lengths[0], sentences, ctx.width * (3 if ctx.packed else 1))
        memory = None if ctx.packed else packed.new_empty(ctx.lengths[1], sentences, 2 * ctx.width)
        sides = _sides(packed, memory)
        for value, side in zip(found, sides, strict=True):
            _join(value, side, ctx.heads)
        return packed, memory, None, None


class _AddNorm(torch.autograd.Function):
    """Layer norm of x + y (post-norm); statistics of each row in fp32."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, y: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        total = x + y
        out, mean, scale = torch.native_layer_norm(total, weight.shape, weight, bias, 1e-5)
        ctx.save_for_backward(total, mean, scale, weight, bias)
        return out

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor) -> Any:
        total, mean, scale, weight, bias = ctx.saved_tensors
        found = torch.ops.aten.native_layer_norm_backward(
            upstream[0].contiguous(), total, weight.shape, mean, scale, weight, bias, [True, True, True]
        )
        return found[0], *found


def by_hand(values: torch.Tensor) -> bool:
    """Whether layers of these values are those written by hand."""
    return values.device.type == "cpu"


def linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, *, relu: bool = False) -> torch.Tensor:
    """A linear layer of rows [N, I], with weight [O, I] and bias [O] of the same type."""
    found: torch.Tensor
    if by_hand(x):
        found = _Linear.apply(x, weight, bias, relu)  # type: ignore[no-untyped-call]
        return found
    found = functional.linear(x, weight, bias)
    return functional.relu(found) if relu else found


def attend(
    packed: torch.Tensor,
    memory: torch.Tensor | None,
    mask: torch.Tensor | None,
    heads: int,
    *,
    causal: bool = False,
    dropout: float = 0.0,
) -> torch.Tensor:
    """Attention of all heads.

    Args:
        packed: [T, B, 3 D] queries (scaled), keys and values; [T, B, D] queries alone if there is a memory.
        memory: [S, B, 2 D] keys and values of something else.
        mask: is added to the scores [B * heads, T, S], broadcast to them; its last dimension may be longer than S, with
            the lowest number there: see :func:`padded_length`.
        heads: how many.
        causal: ``mask`` lets each position see those before it, and nothing else.
        dropout: share of the attention weights that is dropped.

    Returns:
        [T, B, D]
    """
    if by_hand(packed) and not dropout:
        found: torch.Tensor = _Attend.apply(packed, memory, mask, heads)  # type: ignore[no-untyped-call]
        return found
    time, sentences, _ = packed.shape
    sides = _sides(packed, memory)
    q, k, v = (side.reshape(len(side), sentences, heads, -1).permute(1, 2, 0, 3) for side in sides)
    if causal:
        mask = None  # kernels that know of it need none
    elif mask is not None:
        mask = mask.view(-1, heads if len(mask) > 1 else 1, *mask.shape[1:])[..., : k.shape[2]]
    out = functional.scaled_dot_product_attention(q, k, v, mask, dropout, causal, scale=1.0)
    return out.permute(2, 0, 1, 3).reshape(time, sentences, -1)


def padded_length(length: int, like: torch.Tensor) -> int:
    """Keys to make room for: torch's softmax of bf16 on a CPU takes six times as long for 31 of them as for 32."""
    return -(-length // 32) * 32 if by_hand(like) and like.dtype == torch.bfloat16 else length


def add_norm(x: torch.Tensor, y: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Layer norm of x + y, [T, B, D]; weight and bias [D] are fp32, also beside bf16 states."""
    if by_hand(x):
        found: torch.Tensor = _AddNorm.apply(x, y, weight, bias)  # type: ignore[no-untyped-call]
        return found
    return functional.layer_norm((x + y).float(), weight.shape, weight, bias).to(x.dtype)


def _sides(packed: torch.Tensor, memory: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
    """Queries, keys and values as :func:`attend` is given them; slices of what they are packed in."""
    return packed.chunk(3, 2) if memory is None else (packed, *memory.chunk(2, 2))


def _split(value: torch.Tensor, heads: int, length: int) -> torch.Tensor:
    """[T, B, D] to [B * heads, length, D / heads], zeros behind T.

    The copy pays: products of strided matrices take several times as long.
    """
    time, sentences, width = value.shape
    shape = (sentences, heads, length, width // heads)
    out = value.new_empty(shape)
    out[:, :, :time].copy_(value.view(time, sentences, heads, -1).permute(1, 2, 0, 3))
    out[:, :, time:].zero_()
    return out.view(sentences * heads, length, -1)


def _join(value: torch.Tensor, out: torch.Tensor, heads: int) -> None:
    """[B * heads, length, D / heads] into [T, B, D], without what is behind T."""
    time, sentences, _ = out.shape
    out.view(time, sentences, heads, -1).copy_(
        value.view(sentences, heads, value.shape[1], -1)[:, :, :time].permute(2, 0, 1, 3)
    )
