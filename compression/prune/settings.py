"""Settings of pruning, checked when they are made. Imports nothing heavy."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from mobilenmt.compression.core.errors import RecipeError

Importance = Literal["magnitude", "activation", "gradient", "taylor", "trajectory", "random"]
Depth = Literal["loss", "magnitude", "activation", "gradient", "taylor", "trajectory", "random"]


@dataclass(frozen=True)
class HowToPrune:
    """What decides which units stay, and what becomes of the weights around those that go."""

    importance: Importance = "gradient"
    """What says how much a channel, a head or a neuron matters. magnitude: its weights. activation: what flows through
    it on the text (Minitron, Muralidharan et al. 2024). gradient: the squared gradient of the loss for a gate on it
    (Fisher; Kwon et al. 2022). taylor: activation times gradient, by token (Molchanov et al. 2019). trajectory: how far
    the states behind it and the output move without it (after OPTIN, Khaki & Plataniotis 2024). random: a control."""
    depth: Depth = "loss"
    """The same for layers. loss: one layer at a time goes, the one without which the loss of the text is lowest."""
    reconstruct: Literal["least_squares", "norms", "none"] = "least_squares"
    """least_squares: every remaining matrix is fitted so that it gives on the text what the whole model gave, from what
    the pruned one has in front of it. norms: layer norms alone are fitted to their fewer channels. none: the weights
    stay as they were."""
    ridge: float = 0.01
    """How strongly fitted weights are held to the old ones, as a share of the mean square of their inputs."""
    sentences: int = 1000
    """Pairs of text that importance and fits are measured on."""
    tokens: int = 128
    """Pairs with a longer side are left out."""
    position_weight: float = 1.0
    """Channels carry sinusoids, whose frequencies follow from the width; how much it counts, against importance, that a
    channel keeps nearly its own."""

    def __post_init__(self) -> None:
        for name, least in (("sentences", 1), ("tokens", 2)):
            if not least <= getattr(self, name) <= 10**6:
                raise RecipeError(f"{name}: must be from {least} to 1,000,000, found {getattr(self, name)}")
        for name in ("ridge", "position_weight"):
            if not (getattr(self, name) >= 0 and math.isfinite(getattr(self, name))):
                raise RecipeError(f"{name}: must be 0 or more, found {getattr(self, name)}")


@dataclass(frozen=True)
class PruneSettings(HowToPrune):
    """Pruning of a teacher to the shape of [student], whose training starts from what comes out."""

    checkpoint: Path | None = None
    """Marian checkpoint folder to prune; by default the teacher that is trained in the recipe, or the one it names."""

    rounds: int = 1
    """In so many rounds the model becomes that small; between two of them what is left is trained, as [distill] says.
    The vocabulary changes in the first one. 1: in one shot."""
    round_steps: int = 500
    """Updates between two rounds."""
    round_schedule: Literal["geometric", "linear"] = "geometric"
    """Parameters after each round. geometric: each takes the same share of what is left. linear: the same number."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, most in (("rounds", 100), ("round_steps", 10**9 - 1)):
            if not 1 <= getattr(self, name) <= most:
                raise RecipeError(f"{name}: must be from 1 to {most:,}, found {getattr(self, name)}")

    def how(self) -> HowToPrune:
        """What decides what stays, without the checkpoint and the rounds."""
        return HowToPrune(**{item.name: getattr(self, item.name) for item in fields(HowToPrune)})
