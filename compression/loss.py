"""Losses: label-smoothed cross-entropy, and word-level distillation, KL(teacher || student).

The padding piece is left out of the softmax, as it is never generated. Logits exist only for positions that have a
label, and only for a few hundred of them at once: loss and gradient are computed together, chunk by chunk, so that a
batch of 8,000 tokens with a vocabulary of 32,000 takes megabytes instead of a gigabyte, and on a CPU the numbers stay
in its cache.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

CHUNK_BYTES = 8_000_000
"""fp32 logits held at once on a CPU: about a core's share of the cache."""
CHUNK_BYTES_GPU = 512_000_000


@dataclass(frozen=True)
class LossWeights:
    """What the loss is made of: (1 - word_level) * cross-entropy + word_level * temperature^2 * KL."""

    label_smoothing: float = 0.0
    word_level: float = 0.0
    temperature: float = 1.0


class FusedLoss(torch.autograd.Function):
    """Output layer and loss in one. Use :func:`fused_loss`."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor,
        labels: torch.Tensor,
        soft: tuple[torch.Tensor, torch.Tensor] | None,
        weights: LossWeights,
        dtype: torch.dtype,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        classes = weight.shape[0] - 1
        table = weight[:classes].to(dtype)
        offset = bias.view(-1)[:classes].to(torch.float32)
        states = hidden.to(dtype)
        wanted = ctx.needs_input_grad[0] or ctx.needs_input_grad[1]
        hidden_grad = torch.empty_like(states) if wanted else None
        weight_grad = torch.zeros_like(weight, dtype=torch.float32) if wanted else None
        size = CHUNK_BYTES if hidden.device.type == "cpu" else CHUNK_BYTES_GPU
        rows = max(16, size // (4 * classes))
        has_bias = bool(offset.any()) if hidden.device.type == "cpu" else True
        # Sum of all logits of a row without another pass over them.
        column_sum, offset_sum = weight[:classes].detach().sum(0, dtype=torch.float32), offset.sum()
        hard, smooth = 1.0 - weights.word_level, weights.label_smoothing
        totals = torch.zeros(3, dtype=torch.float64, device=hidden.device)
        for start in range(0, len(states), rows):
            chunk = states[start : start + rows]
            label = labels[start : start + rows]
            logits = torch.mm(chunk, table.t()).float()
            if has_bias:
                logits += offset
            at_label = logits.gather(1, label[:, None]).squeeze(1)
            mean = (chunk.float() @ column_sum + offset_sum) / classes
            if soft is None or weights.temperature == 1.0:
                at_soft = None if soft is None else logits.gather(1, soft[0][start : start + rows])
                softened = None
            else:
                softened = logits / weights.temperature
                at_soft = softened.gather(1, soft[0][start : start + rows])
            log_sum = _softmax_(logits)
            nll = log_sum - at_label
            totals[0] += nll.sum(dtype=torch.float64)
            totals[1] += ((1 - smooth) * nll + smooth * (log_sum - mean)).sum(dtype=torch.float64)
            gradient = logits
            if soft is not None and at_soft is not None:
                ids, target = soft[0][start : start + rows], soft[1][start : start + rows]
                soft_sum = log_sum if softened is None else _softmax_(softened)
                entropy = torch.special.xlogy(target, target).sum(1)
                divergence = entropy - (target * at_soft).sum(1) + soft_sum * target.sum(1)
                totals[2] += weights.temperature**2 * divergence.sum(dtype=torch.float64)
                if wanted:
                    scale = weights.word_level * weights.temperature
                    if softened is None:
                        gradient = logits  # (hard + word_level) = 1 times the same softmax
                    else:
                        gradient = logits.mul_(hard).add_(softened, alpha=scale)
                    gradient.scatter_add_(1, ids, target * -scale)
            elif wanted and hard != 1.0:
                gradient.mul_(hard)
            if hidden_grad is None or weight_grad is None:
                continue
            if smooth and hard:
                gradient -= hard * smooth / classes
            gradient.scatter_add_(1, label[:, None], gradient.new_full((len(label), 1), -hard * (1 - smooth)))
            small = gradient.to(dtype)
            torch.mm(small, table, out=hidden_grad[start : start + rows])
            if dtype == torch.float32:
                weight_grad[:classes].addmm_(small.t(), chunk)
            else:
                weight_grad[:classes] += torch.mm(small.t(), chunk)
        if wanted:
            ctx.save_for_backward(hidden_grad, weight_grad)
            ctx.hidden_dtype = hidden.dtype
        loss = hard * totals[1] + weights.word_level * totals[2]
        ctx.mark_non_differentiable(totals)
        return loss.to(torch.float32), totals

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor) -> Any:
        hidden_grad, weight_grad = ctx.saved_tensors
        factor = upstream[0]
        return (hidden_grad * factor).to(ctx.hidden_dtype), weight_grad.mul_(factor), None, None, None, None, None


def fused_loss(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    labels: torch.Tensor,
    weights: LossWeights,
    soft: tuple[torch.Tensor, torch.Tensor] | None = None,
    dtype: torch.dtype = torch.float32,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Loss of decoder states, summed over the tokens.

    Args:
        hidden: [N, D] decoder states.
        weight: [V, D] tied embedding; the last row, of ``<pad>``, takes no part.
        bias: [1, V] or [V], added to the logits; gets no gradient.
        labels: int64 [N].
        weights: what the loss is made of.
        soft: pieces int64 [N, K] and probabilities float32 [N, K] of the teacher, already softened by the temperature.
        dtype: type of the matrix products.

    Returns:
        The loss (a scalar), and float64 [3] without gradient: sums of the plain negative log-likelihood, of the
        smoothed cross-entropy, and of temperature^2 * KL.
    """
    if weights.word_level and soft is None:
        raise ValueError("word-level distillation needs the teacher's distributions")
    result: tuple[torch.Tensor, torch.Tensor] = FusedLoss.apply(  # type: ignore[no-untyped-call]
        hidden, weight, bias, labels, soft if weights.word_level else None, weights, dtype
    )
    return result


def soften(logprobs: torch.Tensor, temperature: float) -> torch.Tensor:
    """Probabilities [N, K] from log-probabilities of the K best pieces: softened, and renormalized over the K."""
    return torch.softmax(logprobs.float() / temperature, dim=-1)


def _softmax_(logits: torch.Tensor) -> torch.Tensor:
    """Turn logits [N, V] into probabilities in place; returns the logarithm of the sum of exponentials, [N]."""
    largest = logits.amax(1, keepdim=True)
    logits.sub_(largest).exp_()
    total = logits.sum(1, keepdim=True)
    logits.div_(total)
    return (total.log() + largest).squeeze(1)


class TrainingModule(nn.Module):
    """A student with its loss, for one call a batch (what DistributedDataParallel wraps)."""

    def __init__(self, student: Any, weights: LossWeights, dtype: torch.dtype) -> None:
        super().__init__()
        self.student = student
        self.weights = weights
        self.dtype = dtype

    def forward(
        self,
        source: torch.Tensor,
        source_mask: torch.Tensor | None,
        decoder_input: torch.Tensor,
        positions: torch.Tensor | None,
        labels: torch.Tensor,
        soft: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Loss and sums of a batch, see :func:`fused_loss`; shapes as in ``batches.Batch``."""
        with torch.autocast(source.device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16):
            hidden = self.student.model(
                input_ids=source, attention_mask=source_mask, decoder_input_ids=decoder_input, use_cache=False
            ).last_hidden_state
        hidden = hidden.reshape(-1, hidden.shape[-1])
        if positions is not None:
            hidden = hidden.index_select(0, positions)
        return fused_loss(
            hidden,
            self.student.model.shared.weight,
            self.student.final_logits_bias,
            labels,
            self.weights,
            soft,
            self.dtype,
        )
