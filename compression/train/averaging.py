"""Averages of weights: an exponential moving average while training, a plain one of the latest snapshots at the end."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError

from mobilenmt.compression.core.errors import TrainingError
from mobilenmt.runtime.atomic import atomic_path

Tensors = Mapping[str, torch.Tensor]


class MovingAverage:
    """Exponential moving average of parameters, in fp32.

    The decay of update t is min(decay, (1 + t) / (10 + t)), so that the average forgets the random start; it is
    ``decay`` from the first update on if the run goes on from another one's average (``settled``).
    """

    def __init__(self, parameters: Tensors, decay: float, *, settled: bool = False) -> None:
        self.decay, self.settled = decay, settled
        self.values = {name: value.detach().clone() for name, value in parameters.items()}

    @torch.no_grad()
    def update(self, parameters: Tensors, step: int) -> None:
        """Take in the weights after update ``step``."""
        decay = self.decay if self.settled else min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(
            list(self.values.values()), [parameters[name].detach() for name in self.values], weight=1 - decay
        )


@contextlib.contextmanager
def swapped(parameters: Tensors, values: Tensors | None) -> Iterator[None]:
    """Within the block the parameters hold ``values``; afterwards their own again. None changes nothing."""
    if values is None:
        yield
        return
    with torch.no_grad():
        kept = {name: parameter.detach().clone() for name, parameter in parameters.items()}
        try:
            for name, parameter in parameters.items():
                parameter.copy_(values[name])
            yield
        finally:
            for name, parameter in parameters.items():
                parameter.copy_(kept[name])


class Snapshots:
    """Weights of some updates, a file each, of which the latest ``count`` are kept."""

    def __init__(self, folder: Path, count: int) -> None:
        self.folder = folder
        self.count = count

    def add(self, step: int, values: Tensors) -> None:
        """Write the weights after update ``step`` atomically. Raises TrainingError if the disk refuses."""
        from safetensors.torch import save_file

        try:
            self.folder.mkdir(exist_ok=True)
            with atomic_path(self.folder / f"{step:09d}.safetensors") as temporary:
                save_file({name: value.detach().cpu().contiguous() for name, value in values.items()}, temporary)
        except (OSError, SafetensorError) as error:
            raise TrainingError(f"{self.folder}: a snapshot cannot be written: {error}") from error

    def prune(self) -> None:
        """Remove all but the latest ``count``. Only after the state that no longer needs them was saved."""
        for path in self._files()[: -self.count]:
            path.unlink()

    def forget_after(self, step: int) -> None:
        """Remove those of later updates, which a resumed run makes again."""
        for path in self._files():
            if int(path.stem) > step:
                path.unlink()

    def average(self) -> dict[str, torch.Tensor] | None:
        """Mean of the latest ``count``, summed in float64; None if there are none."""
        from safetensors.torch import load_file

        files = self._files()[-self.count :]
        total: dict[str, torch.Tensor] = {}
        for path in files:
            for name, value in load_file(path).items():
                total[name] = total[name].add_(value) if name in total else value.double()
        return {name: (value / len(files)).float() for name, value in total.items()} if files else None

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("[0-9]*.safetensors")) if self.folder.is_dir() else []
