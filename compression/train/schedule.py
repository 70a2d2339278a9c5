"""Learning rate and optimizers: Adam for everything, or Muon for the matrices of the layers and Adam for the rest.

The rate follows from the settings and the step alone, so a resumed run goes on exactly.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from mobilenmt.compression.core.errors import TrainingError
from mobilenmt.compression.train.settings import DEFAULT_EPOCHS, DistillSettings, TrainSettings


def total_steps(settings: TrainSettings, updates_per_epoch: int) -> int:
    """Updates of the whole run: ``steps`` or ``epochs`` of the settings, whichever ends first."""
    if settings.steps is None:
        return (settings.epochs or DEFAULT_EPOCHS) * updates_per_epoch
    if settings.epochs is None:
        return settings.steps
    return min(settings.steps, settings.epochs * updates_per_epoch)


def learning_rate(settings: TrainSettings, step: int, total: int) -> float:
    """Rate of update ``step`` (the first is 1) of ``total``."""
    peak, warmup = settings.learning_rate, settings.warmup_steps
    if step <= warmup:
        rate = peak * step / warmup
    elif settings.schedule == "inverse_sqrt":
        rate = peak * math.sqrt(max(warmup, 1) / step)
    elif settings.schedule == "cosine":
        rate = peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(total - warmup, 1)))
    else:
        rate = peak
    decaying = settings.final_decay * total
    if decaying:
        rate *= min(1.0, (total - step + 1) / decaying)
    return rate


def hidden_weight(settings: TrainSettings, step: int, total: int) -> float:
    """Weight of the loss of hidden states in update ``step`` (the first is 1) of ``total``; 0 without one."""
    if not isinstance(settings, DistillSettings):
        return 0.0
    left = (total - step + 1) / total
    if settings.hidden_schedule == "linear":
        return settings.hidden * left
    if settings.hidden_schedule == "cosine":
        return settings.hidden * 0.5 * (1 - math.cos(math.pi * left))
    return settings.hidden


class Optimizer:
    """What changes the weights, with one rate for all of them.

    Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/) makes the momentum of a matrix orthogonal, by
    Newton-Schulz iterations in bf16. Its step is scaled by 0.2 * sqrt(max(rows, columns)), to the size of a step of
    Adam's (Liu et al. 2025, "Muon is Scalable for LLM Training", section 2.2), so that one learning rate serves both.
    Weight decay is decoupled (Loshchilov & Hutter 2019) and spares embeddings, biases and norms.
    """

    def __init__(self, parameters: Mapping[str, torch.nn.Parameter], settings: TrainSettings) -> None:
        """Raises TrainingError if torch is too old for the optimizer that the settings want."""
        self.parameters = dict(parameters)
        self.kind = settings.optimizer
        matrices = {name: value for name, value in parameters.items() if is_matrix(name, value)}
        rest = [value for name, value in parameters.items() if name not in matrices]
        decay = settings.weight_decay
        groups: list[dict[str, Any]] = [{"params": rest, "weight_decay": 0.0}]
        self._parts: list[torch.optim.Optimizer] = []
        if self.kind == "muon":
            if not hasattr(torch.optim, "Muon"):
                raise TrainingError(f"optimizer = 'muon' needs torch 2.9 or newer, this is {torch.__version__}")
            self._parts.append(
                torch.optim.Muon(
                    matrices.values(),
                    weight_decay=decay,
                    momentum=settings.muon_momentum,
                    adjust_lr_fn="match_rms_adamw",
                )
            )
        else:
            groups.append({"params": list(matrices.values()), "weight_decay": decay})
        betas = (settings.adam_beta1, settings.adam_beta2)
        self._parts.append(torch.optim.AdamW(groups, betas=betas, eps=settings.adam_epsilon, fused=True))

    def step(self, rate: float, skip: torch.Tensor | None = None) -> None:
        """Change the weights by their gradients.

        ``skip``, a bool that only the device knows, keeps Adam from changing anything; Muon, which has no way to be
        told, takes the gradient for zero, and goes on by its momentum alone.
        """
        for part in self._parts:
            if skip is not None and isinstance(part, torch.optim.AdamW):
                part.found_inf = skip.float()  # type: ignore[attr-defined]  # as torch's GradScaler tells it
            elif skip is not None:
                for group in part.param_groups:
                    for parameter in group["params"]:
                        parameter.grad = torch.where(skip, torch.zeros_like(parameter.grad), parameter.grad)
            for group in part.param_groups:
                group["lr"] = rate
            part.step()

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for part in self._parts:
            part.zero_grad(set_to_none=True)

    def state(self) -> dict[str, torch.Tensor]:
        """Moments and counts to resume from: ``parameter:what``."""
        return {
            f"{name}:{key}": value
            for name, parameter in self.parameters.items()
            for part in self._parts
            for key, value in part.state.get(parameter, {}).items()
        }

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> list[str]:
        """Take in what :meth:`state` gave, of this optimizer or another one.

        Returns the names of parameters whose moments were another optimizer's and are dropped: they begin anew.
        Raises KeyError for parameters that are not there, RuntimeError for another shape.
        """
        dropped = []
        for key, value in tensors.items():
            name, _, what = key.rpartition(":")
            parameter = self.parameters[name]
            if value.dim() and value.shape != parameter.shape:
                raise RuntimeError(f"{key} is {list(value.shape)}, {list(parameter.shape)} is wanted")
            part = self._part_of(parameter)
            if what in _KEPT[type(part)]:
                part.state[parameter][what] = value.to(parameter.device)  # Adam, fused, keeps its count there too
            elif name not in dropped:
                dropped.append(name)
        return dropped

    def _part_of(self, parameter: torch.nn.Parameter) -> torch.optim.Optimizer:
        return next(
            part for part in self._parts if any(parameter is x for group in part.param_groups for x in group["params"])
        )


def is_matrix(name: str, value: torch.Tensor) -> bool:
    """Whether a parameter is a matrix of a layer: Muon and weight decay are for these alone."""
    return value.dim() > 1 and not name.startswith("model.shared.")


_KEPT: dict[type, tuple[str, ...]] = {torch.optim.AdamW: ("step", "exp_avg", "exp_avg_sq")}
"""What each optimizer keeps beside a parameter."""
if hasattr(torch.optim, "Muon"):
    _KEPT[torch.optim.Muon] = ("momentum_buffer",)
