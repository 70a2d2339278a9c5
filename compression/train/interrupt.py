"""Ctrl-C and SIGTERM as a request: the update under way ends, and the state is saved."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from accelerate import Accelerator

_EVERY = 10
"""Updates between two times at which several processes ask one another."""


class StopRequest:
    """Within the block the first signal is noted, and the second one acts as usual."""

    def __init__(self) -> None:
        self.name: str | None = None
        self._kept: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():  # only there can handlers be set
            for number in (signal.SIGINT, signal.SIGTERM):
                self._kept[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *error: object) -> None:
        self._restore()

    def agreed(self, accelerator: Accelerator, step: int) -> bool:
        """Whether to stop now; several processes stop at the same update, if any of them was asked to."""
        if accelerator.num_processes == 1:
            return self.name is not None
        if step % _EVERY:
            return False
        import torch

        asked = torch.tensor([int(self.name is not None)], device=accelerator.device)
        if not int(accelerator.reduce(asked, "sum").item()):
            return False
        self.name = self.name or "a signal to another process"
        return True

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._kept.items():
            signal.signal(number, handler)
        self._kept = {}
