"""Several processes that train together, started by ``accelerate launch`` or ``torchrun``."""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobilenmt.compression.core.errors import TrainingError
from mobilenmt.compression.core.settings import to_mapping
from mobilenmt.compression.core.stage import StageResult
from mobilenmt.compression.train.settings import TrainSettings

if TYPE_CHECKING:
    from accelerate import Accelerator

_PATIENT = timedelta(days=30)
"""How long processes wait for one another: one tokenizes, or evaluates, while the others wait."""


def make_accelerator(settings: TrainSettings) -> Accelerator:
    """The processes and devices that there are.

    Raises TrainingError if several processes were started that do not see one another: they would each train alone.
    """
    import torch
    from accelerate import Accelerator, InitProcessGroupKwargs

    accelerator = Accelerator(
        # Accelerate joins processes on CPUs only if it is told that there is nothing else.
        cpu=settings.device == "cpu" or not torch.accelerator.is_available(),
        mixed_precision="no",  # the loss decides it, from the settings
        kwargs_handlers=[InitProcessGroupKwargs(timeout=_PATIENT)],
    )
    if accelerator.num_processes > 1:
        atexit.unregister(_leave)
        atexit.register(_leave)  # threads of a group that is left open can abort the interpreter on its way out
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if started != accelerator.num_processes:
        raise TrainingError(
            f"{started} processes were started, but Accelerate joined {accelerator.num_processes}; "
            "start them with `accelerate launch --multi_gpu --num_processes N`"
        )
    return accelerator


def _leave() -> None:
    from torch import distributed

    if distributed.is_initialized():
        distributed.destroy_process_group()


def run_together(
    name: str,
    folder: Path,
    accelerator: Accelerator,
    stage: Callable[[Callable[[Path], Mapping[str, Any]]], StageResult],
    work: Callable[[Path], Mapping[str, Any]],
) -> StageResult:
    """Run a stage on several processes: the first keeps the folder, and tells the others whether there is work for all.

    Args:
        name: the stage.
        folder: its folder.
        accelerator: the processes.
        stage: calls ``run_stage`` with the work it is given.
        work: what every process does.

    Raises TrainingError in the others if the first one stops before the work.
    """
    from accelerate.utils import broadcast_object_list

    def tell(message: Any) -> Any:
        box = [message]
        broadcast_object_list(box, from_process=0)
        return box[0]

    if not accelerator.is_main_process:
        message = tell(None)
        if message == "work":
            summary = to_mapping(work(folder))
            return StageResult(name, folder, skipped=False, summary=summary)
        if isinstance(message, str):
            raise TrainingError(f"the first process stopped: {message}")
        return StageResult(name, folder, skipped=True, summary=message)
    told = False

    def work_together(stage_folder: Path) -> Mapping[str, Any]:
        nonlocal told
        told = True
        tell("work")
        return work(stage_folder)

    try:
        result = stage(work_together)
    except BaseException as error:
        if not told:
            tell(str(error) or type(error).__name__)
        raise
    if not told:
        tell(dict(result.summary))
    return result
