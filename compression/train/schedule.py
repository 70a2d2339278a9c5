"""The learning rate. It follows from the settings and the step alone, so a resumed run goes on exactly."""

from __future__ import annotations

import math

from mobilenmt.compression.train.settings import DEFAULT_EPOCHS, TrainSettings


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
