"""One update: forward, backward, clipping, Adam, moving average, on one process or many.

The gradient is the sum over all tokens of the update divided by their number, wherever they were worked off, so pieces
and processes only change the order of summation.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.profiler import record_function

from mobilenmt.compression.core.errors import TrainingError
from mobilenmt.compression.core.pack_forms import PackForms
from mobilenmt.compression.dataset.batches import Batch, derive_seed
from mobilenmt.compression.train.averaging import MovingAverage
from mobilenmt.compression.train.hidden.loss import HiddenTargets
from mobilenmt.compression.train.loss import LossWeights, TrainingModule
from mobilenmt.compression.train.quantized.simulation import LOG_RANGES, Simulation
from mobilenmt.compression.train.resume import is_state
from mobilenmt.compression.train.schedule import Optimizer
from mobilenmt.compression.train.settings import DistillSettings, TrainSettings
from mobilenmt.compression.train.student import trained_parameters

if TYPE_CHECKING:
    from accelerate import Accelerator
    from transformers import MarianMTModel

SoftTargets = Callable[["DeviceBatch"], "tuple[torch.Tensor, torch.Tensor]"]
"""Pieces int64 [N, K] and softened probabilities float32 [N, K] of the teacher for a batch."""
Hidden = Callable[["DeviceBatch", int], "HiddenTargets | None"]
"""The teacher's states for a batch in an update, and the weight of their loss; None without one."""


class DeviceBatch:
    """A :class:`Batch` as tensors on the model's device."""

    def __init__(self, batch: Batch, device: torch.device) -> None:
        def move(array: Any) -> Any:
            if array is None:
                return None
            tensor = torch.from_numpy(array)
            return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)

        self.source, self.source_mask = move(batch.source), move(batch.source_mask)
        self.decoder_input, self.positions = move(batch.decoder_input), move(batch.positions)
        self.labels = move(batch.labels)
        self.soft_ids, self.soft_logprobs = move(batch.soft_ids), move(batch.soft_logprobs)


class Updater:
    """Holds the model, its optimizer and its moving average."""

    def __init__(
        self,
        student: MarianMTModel,
        settings: TrainSettings,
        accelerator: Accelerator,
        soft_targets: SoftTargets | None,
        seed: int,
        hidden: Hidden | None = None,
        forms: PackForms | None = None,
    ) -> None:
        self.settings = settings
        self.weights = LossWeights(settings.label_smoothing)
        if isinstance(settings, DistillSettings):
            self.weights = LossWeights(settings.label_smoothing, settings.word_level, settings.temperature)
        self.accelerator = accelerator
        self.soft_targets, self.hidden = soft_targets, hidden
        self.seed = seed
        self.student = student
        self.dtype = matrix_type(settings.precision, accelerator.device)
        compiled = settings.compiled and accelerator.device.type != "cpu"
        self.simulation: Simulation | None = None
        if forms is not None and isinstance(settings, DistillSettings):
            self.simulation = Simulation(student, forms, self.dtype, settings.quantization_activations)
            self._simulated_from = settings.quantization_from
        self._module = TrainingModule(student, self.weights, self.dtype, compiled=compiled, simulation=self.simulation)
        self.module = accelerator.prepare_model(self._module)
        self.parameters = trained_parameters(student)
        if self.simulation is not None and self.simulation.log_ranges is not None:
            self.parameters[LOG_RANGES] = self.simulation.log_ranges
        self.optimizer = Optimizer(self.parameters, settings)
        self.average: MovingAverage | None = None
        if settings.ema_decay:
            settled = settings.initial is not None and is_state(settings.initial)
            self.average = MovingAverage(self.parameters, settings.ema_decay, settled=settled)

    def update(self, step: int, work: Sequence[tuple[int, bool, Batch]], tokens: int, rate: float) -> UpdateResult:
        """Make update ``step`` (from 1).

        Args:
            step: number of the update; decides dropout.
            work: number of piece, whether it counts, and batch, for each piece of this process.
            tokens: target tokens of the whole update, on all processes.
            rate: learning rate.

        Returns:
            Sums of this process and the norm of the whole gradient. An update whose gradient is not finite changes
            nothing; its sums are zero. On an accelerator nothing waits for it: see :meth:`Optimizer.step`.
        """
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        whole_pieces = self.settings.accumulation % world == 0
        sums = torch.zeros(5, dtype=torch.float64, device=self.accelerator.device)
        self._simulate(step, work)
        for position, (number, counts, batch) in enumerate(work):
            torch.manual_seed(derive_seed(self.seed, "dropout", step, number, 0 if whole_pieces else rank))
            data = DeviceBatch(batch, self.accelerator.device)
            last = position == len(work) - 1
            with contextlib.nullcontext() if last else self.accelerator.no_sync(self.module):
                loss, parts = self._loss(self.module, data, step)
                # DistributedDataParallel takes the mean over processes; the sum is wanted.
                (loss * (world / tokens if counts else 0.0)).backward()  # type: ignore[no-untyped-call]
            if counts:
                sums[:4] += parts
                sums[4] += batch.tokens
        with record_function("optimizer"):
            norm = self._step(step, rate)
        finite = torch.isfinite(norm)
        return UpdateResult(torch.where(finite, sums, torch.zeros_like(sums)), norm)

    def _simulate(self, step: int, work: Sequence[tuple[int, bool, Batch]]) -> None:
        """Get the simulation ready for update ``step``."""
        if self.simulation is None:
            return
        self.simulation.active = step >= self._simulated_from
        if not self.simulation.active:
            return
        with record_function("rounding"):
            self.simulation.refresh()
        ranges = self.parameters.get(LOG_RANGES)
        if ranges is None or step != self._simulated_from:
            return
        with torch.no_grad(), self.simulation.observing():
            for number, _, batch in work:
                torch.manual_seed(derive_seed(self.seed, "ranges", step, number))
                self._loss(self._module, DeviceBatch(batch, self.accelerator.device), step)
        with torch.no_grad():
            ranges.copy_(self.accelerator.gather(ranges.detach()[None]).amax(0))
            if self.average is not None:
                self.average.values[LOG_RANGES].copy_(ranges)

    def _loss(self, module: Any, data: DeviceBatch, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        soft = None if self.soft_targets is None else self.soft_targets(data)
        taught = None if self.hidden is None else self.hidden(data, step)
        with record_function("forward"):
            found: tuple[torch.Tensor, torch.Tensor] = module(
                data.source, data.source_mask, data.decoder_input, data.positions, data.labels, soft, taught
            )
        return found

    def _step(self, step: int, rate: float) -> torch.Tensor:
        """Change weights and average by the gradients, unless these are not finite; returns their norm."""
        limit = self.settings.clip_norm or math.inf
        norm = torch.nn.utils.clip_grad_norm_(self.parameters.values(), limit, foreach=True)
        waiting = self.accelerator.device.type == "cpu"
        if not waiting or torch.isfinite(norm):
            self.optimizer.step(rate, None if waiting else ~torch.isfinite(norm))
            with torch.no_grad():
                self.student.model.shared.weight[-1].zero_()
            if self.average is not None:
                self.average.update(self.parameters, step)
        self.optimizer.zero_grad()
        return norm

    def state(self) -> dict[str, Mapping[str, torch.Tensor]]:
        """Tensors to resume from, by group and name."""
        groups: dict[str, Mapping[str, torch.Tensor]] = {"model": self.parameters, "optimizer": self.optimizer.state()}
        if self.average is not None:
            groups["average"] = self.average.values
        return groups

    def restore(self, tensors: Mapping[str, Mapping[str, torch.Tensor]]) -> list[str]:
        """Take in what :meth:`state` gave; return names of parameters whose moments another optimizer made.

        Raises TrainingError if it belongs to another model.
        """
        try:
            with torch.no_grad():
                for name, parameter in self.parameters.items():
                    if name == LOG_RANGES and name not in tensors["model"]:
                        continue  # the state of a run that learned none
                    parameter.copy_(tensors["model"][name])
                    if self.average is not None:  # a run without one may be gone on with by one that has one
                        self.average.values[name].copy_(tensors.get("average", tensors["model"])[name])
            kept = tensors["optimizer"]
            if LOG_RANGES not in self.parameters:
                kept = {name: value for name, value in kept.items() if not name.startswith(f"{LOG_RANGES}:")}
            return self.optimizer.restore(kept)
        except (KeyError, RuntimeError) as error:
            raise TrainingError(f"the saved state belongs to another model: {error}") from None


class UpdateResult:
    """What an update gave, which an accelerator may still be working on."""

    def __init__(self, sums: torch.Tensor, norm: torch.Tensor) -> None:
        self.sums = sums
        """float64 [5]: the four of :class:`TrainingModule`, and the target tokens they are summed over; zeros if the
        update was skipped."""
        self._norm = norm if norm.device.type == "cpu" else norm.to("cpu", non_blocking=True)
        self._copied = None
        if norm.device.type == "cuda":
            self._copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._copied.record()

    def norm(self) -> float:
        """Of the gradient, before clipping; not finite if the update was skipped. Waits for this update alone."""
        if self._copied is not None:
            self._copied.synchronize()
        return float(self._norm)


def matrix_type(precision: str, device: torch.device) -> torch.dtype:
    """Type of matrix products for ``auto``, ``fp32`` or ``bf16``: bf16 where the processor multiplies it natively."""
    if precision == "auto":
        if device.type == "cuda":
            fast = torch.cuda.is_bf16_supported(including_emulation=False)
        else:
            fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        precision = "bf16" if fast else "fp32"
    return torch.bfloat16 if precision == "bf16" else torch.float32
