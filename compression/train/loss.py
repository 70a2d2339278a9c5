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
from torch.overrides import TorchFunctionMode

from mobilenmt.compression.train.forward import layer_states
from mobilenmt.compression.train.hidden.loss import HiddenTargets, hidden_loss
from mobilenmt.compression.train.quantized.simulation import Simulation

CHUNK_BYTES = 16_000_000
"""fp32 logits held at once on a CPU: about half of a cache shared by its cores (8 MB: 6 % slower)."""
CHUNK_BYTES_GPU = 512_000_000
_TINY = 1e-38  # a likelihood below it counts as it


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
        on_cpu = hidden.device.type == "cpu"
        rows = max(16, (CHUNK_BYTES if on_cpu else CHUNK_BYTES_GPU) // (4 * classes))
        has_bias = bool(offset.any()) if on_cpu else True
        hard, smooth, temperature = 1.0 - weights.word_level, weights.label_smoothing, weights.temperature
        # What smoothing needs of all logits of a row, their sum, and what it adds to all gradients, a constant, go
        # through the sum of the table's rows: no pass over the logits.
        table_sum = weight[:classes].detach().sum(0, dtype=torch.float32)
        mean = (hidden.float() @ table_sum + offset.sum()) / classes
        totals = torch.zeros(3, dtype=torch.float64, device=hidden.device)
        hidden_grad = torch.empty_like(states) if wanted else None
        weight_grad = torch.zeros_like(weight, dtype=torch.float32) if wanted else None
        for start in range(0, len(states), rows):
            part = slice(start, start + rows)
            label = labels[part, None]
            logits = torch.mm(states[part], table.t()).float()
            if has_bias:
                logits += offset
            gradient = torch.softmax(logits, dim=1)
            nll = gradient.gather(1, label).clamp_min_(_TINY).log_().neg_().squeeze(1)
            log_sum = nll + logits.gather(1, label).squeeze(1)
            totals[0] += nll.sum(dtype=torch.float64)
            totals[1] += ((1 - smooth) * nll + smooth * (log_sum - mean[part])).sum(dtype=torch.float64)
            if soft is not None:
                ids, target = soft[0][part], soft[1][part]
                at_ids = logits.gather(1, ids) / temperature
                if temperature != 1.0:
                    logits /= temperature
                    log_sum = logits.logsumexp(1)
                    softened = torch.softmax(logits, dim=1)
                    gradient.mul_(hard).add_(softened, alpha=weights.word_level * temperature)
                entropy = torch.special.xlogy(target, target).sum(1)
                divergence = entropy - (target * at_ids).sum(1) + log_sum * target.sum(1)
                totals[2] += temperature**2 * divergence.sum(dtype=torch.float64)
                gradient.scatter_add_(1, ids, target * (-weights.word_level * temperature))
            if hidden_grad is None or weight_grad is None:
                continue
            gradient.scatter_add_(1, label, gradient.new_full(label.shape, -hard * (1 - smooth)))
            small = gradient.to(dtype)
            torch.mm(small, table, out=hidden_grad[part])
            if dtype == torch.float32:
                weight_grad[:classes].addmm_(small.t(), states[part])
            else:
                weight_grad[:classes] += torch.mm(small.t(), states[part])
        if hidden_grad is not None and weight_grad is not None:
            if smooth and hard:
                hidden_grad -= table_sum * (hard * smooth / classes)
                weight_grad[:classes] -= hidden.sum(0, dtype=torch.float32) * (hard * smooth / classes)
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


class _Dropout(torch.autograd.Function):
    """Dropout from 16 random bits an element, four elements a draw: torch draws twice 32 bits for each."""

    @staticmethod
    def forward(ctx: Any, values: torch.Tensor, p: float) -> torch.Tensor:
        count = values.numel()
        limit = round(p * 65536)
        bits = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
        keep = (bits[:count].view(values.shape) >= limit - 32768).to(values.dtype).mul_(65536 / (65536 - limit))
        ctx.save_for_backward(keep)
        return values * keep

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor) -> Any:
        (keep,) = ctx.saved_tensors
        return upstream[0] * keep, None


class FastDropout(TorchFunctionMode):
    """Within the block ``torch.nn.functional.dropout`` on a CPU draws as :class:`_Dropout` does (half the time)."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is nn.functional.dropout:
            values, p, training = _dropout_arguments(*args, **kwargs)
            if not training or p == 0:
                return values
            if values.device.type == "cpu":
                return _Dropout.apply(values, p)  # type: ignore[no-untyped-call]
        return func(*args, **kwargs)


def _dropout_arguments(
    input: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> tuple[torch.Tensor, float, bool]:
    return input, p, training


class TrainingModule(nn.Module):
    """A student with its loss, for one call a batch (what DistributedDataParallel wraps)."""

    def __init__(
        self,
        student: Any,
        weights: LossWeights,
        dtype: torch.dtype,
        *,
        compiled: bool = False,
        simulation: Simulation | None = None,
    ) -> None:
        super().__init__()
        self.simulation = simulation
        self.states = torch.compile(layer_states, dynamic=True) if compiled else layer_states
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
        taught: HiddenTargets | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Loss and sums of a batch; shapes as in ``batches.Batch``.

        The sums are those of :func:`fused_loss`, and of the hidden states' loss without its weight: float64 [4].
        """
        with FastDropout():
            make = None if self.simulation is None else self.simulation.make
            states = self.states(self.student, source, source_mask, decoder_input, self.dtype, make)
        hidden = states[1][-1].transpose(0, 1)
        hidden = hidden.reshape(-1, hidden.shape[-1])
        if positions is not None:
            hidden = hidden.index_select(0, positions)
        table = self.student.lm_head.weight  # the embedding, which it is tied to
        if self.simulation is not None:
            hidden, table = self.simulation.read_output(hidden), self.simulation.table()
        loss, sums = fused_loss(
            hidden,
            table,
            self.student.final_logits_bias,
            labels,
            self.weights,
            soft,
            self.dtype,
        )
        if self.simulation is not None and self.simulation.log_ranges is not None:
            loss = loss + 0.0 * self.simulation.log_ranges.sum()  # several processes want every parameter in every loss
        apart = sums.new_zeros(1)
        if taught is not None:
            distance = hidden_loss(states, taught, source_mask, positions)
            loss = loss + taught.weight * distance
            apart += distance.detach()
        return loss, torch.cat((sums, apart))
