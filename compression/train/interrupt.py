"""Ctrl-C, SIGTERM and SIGHUP as a request: the update under way ends, and the state is saved."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from accelerate import Accelerator

_EVERY = 10
"""Updates between two times at which several processes ask one another."""
_BOUNCE = 1.0
"""Seconds in which a second signal counts as the first one: a key that bounces, or a shell that passes it on."""


class StopRequest:
    """Within the block the first signal is noted, and a later one acts as usual."""

    def __init__(self) -> None:
        self.name: str | None = None
        self.exit_code = 128 + signal.SIGTERM
        self._noted = 0.0
        self._kept: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():  # only there can handlers be set
            for name in ("SIGINT", "SIGTERM", "SIGHUP"):
                number = getattr(signal, name, None)  # Windows has no SIGHUP, and nohup ignores it
                if number is not None and (name != "SIGHUP" or signal.getsignal(number) is not signal.SIG_IGN):
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
        if self.name is None:
            self.name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
            self.exit_code = 128 + number
            self._noted = time.monotonic()
        elif time.monotonic() - self._noted > _BOUNCE:
            self._restore()
            signal.raise_signal(number)

    def _restore(self) -> None:
        for number, handler in self._kept.items():
            signal.signal(number, handler)
        self._kept = {}
