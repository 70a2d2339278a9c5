"""What a run counts: sums of the losses, tokens, speed, and updates that had to be skipped."""

from __future__ import annotations

import math
import time
from collections import deque
from typing import TYPE_CHECKING, Any

import torch

from mobilenmt.compression.core.errors import TrainingError
from mobilenmt.compression.train.settings import TrainSettings
from mobilenmt.compression.train.update import UpdateResult

if TYPE_CHECKING:
    from accelerate import Accelerator

_BEHIND = 8
"""Updates that an accelerator may be behind before Python waits for the outcome of the first of them."""


class Tally:
    """The counts of one process since the last line of the log, and those of the whole run."""

    def __init__(self, settings: TrainSettings, accelerator: Accelerator) -> None:
        self.settings, self.accelerator = settings, accelerator
        self.window = torch.zeros(5, dtype=torch.float64, device=accelerator.device)
        self.tokens = self.skipped = self.bad_in_a_row = 0
        self.norm = 0.0
        """Of the latest gradient that is known."""
        self.begun = self.mark = time.monotonic()
        self.mark_tokens = 0
        self.seconds_before = 0.0
        self._pending: deque[tuple[int, UpdateResult]] = deque()

    def add(self, step: int, result: UpdateResult, tokens: int) -> None:
        """Count update ``step``. Raises TrainingError if too many in a row were not finite."""
        self.tokens += tokens
        self.window += result.sums
        self._pending.append((step, result))
        while len(self._pending) > (_BEHIND if self.accelerator.device.type != "cpu" else 0):
            self._settle()

    def flush(self) -> None:
        """Wait for the outcome of all updates that were begun. Raises as :meth:`add` does."""
        while self._pending:
            self._settle()

    def _settle(self) -> None:
        step, result = self._pending.popleft()
        self.norm = result.norm()
        if math.isfinite(self.norm):
            self.bad_in_a_row = 0
            return
        self.skipped += 1
        self.bad_in_a_row += 1
        if self.bad_in_a_row >= self.settings.bad_updates:
            raise TrainingError(
                f"training diverged: loss or gradient not finite in {self.bad_in_a_row} updates in a row, the last "
                f"being {step:,}. Lower learning_rate ({self.settings.learning_rate:g}), lengthen warmup_steps, "
                "lower clip_norm, or take precision = 'fp32'; then begin again with --force"
            )

    def entry(self, word_level: float, hidden: float | None = None) -> dict[str, Any]:
        """A line of the log, and the next one begins. A collective operation: every process takes part.

        Args:
            word_level: weight of the teacher's distributions.
            hidden: weight of the loss of hidden states in the latest update; None without one.
        """
        self.flush()
        *sums, count = self.accelerator.reduce(self.window, "sum").tolist()
        now = time.monotonic()
        nll, smoothed, divergence, apart = (value / max(count, 1) for value in sums)
        found = {
            "loss": (1 - word_level) * smoothed + word_level * divergence,
            "nll": nll,
            **({"kl": divergence} if word_level else {}),
            **({"hidden": apart, "hidden_weight": hidden} if hidden is not None else {}),
            "norm": self.norm if math.isfinite(self.norm) else None,
            "tokens": self.tokens,
            "skipped": self.skipped,
            "seconds": round(self.seconds_before + now - self.begun, 1),
            "tokens_per_second": round((self.tokens - self.mark_tokens) / max(now - self.mark, 1e-9)),
        }
        self.window.zero_()
        self.mark, self.mark_tokens = now, self.tokens
        return found

    def values(self) -> dict[str, Any]:
        """What a saved state keeps."""
        self.flush()
        *sums, tokens = self.window.tolist()
        return {
            "tokens": self.tokens,
            "skipped": self.skipped,
            "bad_in_a_row": self.bad_in_a_row,
            "window": sums,
            "window_tokens": int(tokens),
        }

    def restore(self, values: dict[str, Any], *, main: bool) -> None:
        """Take what :meth:`values` gave out of ``values``."""
        sums = values.pop("window")
        sums += [0.0] * (len(self.window) - 1 - len(sums))  # a state from before there was a loss of hidden states
        window = [*sums, values.pop("window_tokens")]
        if main:  # they are its own sums, whatever the number of processes was and is
            self.window += torch.tensor(window, dtype=torch.float64, device=self.window.device)
        for name in ("tokens", "skipped", "bad_in_a_row"):
            setattr(self, name, values.pop(name))
        self.mark_tokens = self.tokens  # the speed shown next is that of this process
