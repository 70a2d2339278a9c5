"""The student as its pack will compute: weights in the forms they are stored in, activations in 8 bits.

What is simulated is the C core (docs/core/engine.md): integers of weights and activations are its own; sums, norms and
everything else are the trainer's.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from mobilenmt.compression.core.errors import TrainingError
from mobilenmt.compression.core.pack_forms import PackForms
from mobilenmt.compression.train.averaging import swapped
from mobilenmt.compression.train.forward import Pass
from mobilenmt.compression.train.quantized.rounding import round_clipped, round_rows, substitute
from mobilenmt.compression.train.quantized.weights import TABLE, RoundedWeights
from mobilenmt.compression.train.student import trained_parameters

if TYPE_CHECKING:
    from transformers import MarianMTModel

LOG_RANGES = "quantization.log_ranges"
"""The name of the learned ranges among the parameters that are trained."""
_CLIPPED_SHARE = 1e-4
"""Of the values that ranges begin with: what lies outside."""
Activations = Literal["rows", "clipped", "none"]
RANGES = "ranges.json"
"""In a checkpoint: the ranges that the inputs of its matrices were clipped to."""
_NEVER_NEGATIVE = ("relu",)  # of the activations that a student may have


class Simulation(nn.Module):
    """Rounds what a pass of the student reads.

    Args:
        student: its weights are read, never changed.
        forms: what the pack will store.
        dtype: of the matrix products.
        activations: ``rows``: each row of what goes into a product has its own range, as in the C core. ``clipped``:
            the input of each matrix has a range that is learned. ``none``: activations stay as they are.
    """

    def __init__(
        self, student: MarianMTModel, forms: PackForms, dtype: torch.dtype, activations: Activations = "rows"
    ) -> None:
        super().__init__()
        self.weights = RoundedWeights(student, forms, dtype)
        self.activations = activations
        self.active = True
        self._observing = False
        self._student = (student,)  # in a tuple, so that it is no module of this one
        relu = student.config.activation_function in _NEVER_NEGATIVE
        self._inputs: dict[torch.Tensor, _Input] = {}
        for index, (name, members) in enumerate(self.weights.matrices.items()):
            positive = relu and name.endswith(".fc2")
            for member in members:
                self._inputs[member] = _Input(index, positive, self.weights.rounds(name))
        if activations == "clipped":
            self.log_ranges = nn.Parameter(torch.zeros(len(self.weights.matrices)))
        else:
            self.register_parameter("log_ranges", None)

    def refresh(self) -> None:
        """Round the weights as they are now; to be called whenever they changed."""
        self.weights.refresh()

    def make(self, student: Any, dtype: torch.dtype) -> Pass:
        """A pass that reads what was rounded, or a plain one where the simulation is not active."""
        return QuantizedPass(student, dtype, self) if self.active else Pass(student, dtype)

    def weight(self, parameter: torch.Tensor) -> torch.Tensor:
        """A matrix as products read it; gradients go to the parameter."""
        value = self.weights.value(parameter) if self.active else None
        return parameter if value is None else substitute(parameter, value)

    def read(self, values: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
        """The input [..., K] of the matrix that ``parameter`` is a part of, as its product reads it."""
        site = self._inputs[parameter]
        if not (self.active and site.rounded):
            return values
        if self._observing:
            with torch.no_grad():
                most = values.abs().flatten().topk(math.ceil(_CLIPPED_SHARE * values.numel())).values[-1]
                self.log_ranges[site.index] = self.log_ranges[site.index].maximum(most.float().log())
        elif self.activations == "clipped":
            return round_clipped(values, self.log_ranges[site.index], positive=site.positive)
        return values if self.activations == "none" else round_rows(values, positive=site.positive)

    def read_output(self, hidden: torch.Tensor) -> torch.Tensor:
        """The input [N, D] of the output layer."""
        return self.read(hidden, self._student[0].model.shared.weight)

    def table(self) -> torch.Tensor:
        """The table [V, D] of embeddings and output layer."""
        return self.weight(self._student[0].model.shared.weight)

    @contextlib.contextmanager
    def observing(self) -> Iterator[None]:
        """Within the block, passes take ranges from what they meet, all but the largest ten-thousandth, and clip
        nothing."""
        with torch.no_grad():
            self.log_ranges.fill_(-30.0)
        self._observing = True
        try:
            yield
        finally:
            self._observing = False

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Within the block the student's parameters hold their rounded values."""
        student = self._student[0]
        exact = dict(self.weights.exact())
        names = {name: value for name, value in trained_parameters(student).items() if value in exact}
        with swapped(names, {name: exact[parameter] for name, parameter in names.items()}):
            yield

    def write_ranges(self, path: Path) -> None:
        """Write the ranges by the exporter's names of matrices, if they are learned.

        Raises TrainingError if the disk refuses.
        """
        if self.log_ranges is None:
            return
        ranges = self.log_ranges.detach().exp().tolist()
        names = self.weights.matrices
        found = {("output" if name == TABLE else name): value for name, value in zip(names, ranges, strict=True)}
        try:
            path.write_text(json.dumps({"inputs": found}, indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            raise TrainingError(f"{path}: cannot be written: {error}") from error


@dataclass(frozen=True)
class _Input:
    """What goes into a matrix."""

    index: int
    positive: bool
    rounded: bool


class QuantizedPass(Pass):
    """A pass of the student that reads rounded weights and activations."""

    def __init__(self, student: Any, dtype: torch.dtype, simulation: Simulation) -> None:
        super().__init__(student, dtype)
        self.simulation = simulation
        self.table = simulation.table()

    def weight(self, layer: nn.Linear) -> torch.Tensor:
        return self.simulation.weight(layer.weight).to(self.dtype)

    def read(self, states: torch.Tensor, layer: nn.Linear) -> torch.Tensor:
        return self.simulation.read(states, layer.weight)

    def heads(self, packed: torch.Tensor, count: int) -> torch.Tensor:
        if self.simulation.activations == "none":
            return packed
        return round_rows(packed.view(*packed.shape[:2], count, -1)).view(packed.shape)
