"""The training loop: updates, log, evaluation, saved states, and the checkpoint that comes out.

A run folder::

    settings.json   the configuration
    log.jsonl       one JSON object a line: {"step", "kind": "train" | "dev", ...}
    curve.png       loss and dev scores
    last/           the state to resume from, two generations while running
    best/           checkpoint of the best evaluation
    checkpoint/     the result: the best of best, last and (if wanted) average
    result.json     what was chosen, with its scores; written last

Everything random is drawn from the seed and the number of the update, so a run that was killed and resumed writes the
files of one that was not (``seconds`` and ``tokens_per_second`` in the log apart).
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from mobilenmt.compression.core.cores import free_cores
from mobilenmt.compression.core.errors import TrainingError
from mobilenmt.compression.core.settings import to_mapping
from mobilenmt.compression.core.stage import differences, write_json
from mobilenmt.compression.dataset.batches import Pairs
from mobilenmt.compression.train.interrupt import StopRequest
from mobilenmt.compression.train.job import NO_RESULT, TrainingJob, without_later
from mobilenmt.compression.train.processes import make_accelerator
from mobilenmt.compression.train.resume import keep_latest
from mobilenmt.compression.train.run import TrainingRun
from mobilenmt.compression.train.soft_targets import store_targets
from mobilenmt.compression.vocabulary.vocabulary import Vocabulary

if TYPE_CHECKING:
    from accelerate import Accelerator


_MAY_CHANGE = {
    *("steps", "epochs", "average_last", "average_every", "dev", "dev_lines", "dev_every", "dev_metric", "patience"),
    *("log_every", "bad_updates", *NO_RESULT),
}
"""Settings that a run can go on with when they changed, because they only say how long, and what is written down."""


def train(job: TrainingJob, dataset: Pairs, folder: Path, *, accelerator: Accelerator | None = None) -> dict[str, Any]:
    """Train a model, or go on training it, and write ``folder``/checkpoint.

    Start it with ``accelerate launch`` on several processes and every one of them calls this with the same arguments.

    Args:
        job: the model and how to train it; the vocabulary's files go into the checkpoint.
        dataset: its pairs, tokenized.
        folder: the run folder; made if needed.
        accelerator: the processes and devices; None asks Accelerate for those there are.

    Returns:
        JSON types: ``chosen`` (best, last or average), ``step`` and ``scores`` of it, ``steps`` and ``tokens`` of the
        run, ``parameters``, ``stopped_early``, ``skipped_updates``.

    Raises:
        TrainingError: something does not fit, the disk is full, training diverged, or it was told to stop; the
            message says which, and whether a state was saved.
        EvaluationError: the dev files cannot be scored.
    """
    settings = job.settings
    folder.mkdir(parents=True, exist_ok=True)
    if settings.threads or os.environ.get("WORLD_SIZE", "1") == "1":  # several processes share the cores by themselves
        torch.set_num_threads(settings.threads or free_cores())
    if accelerator is None:
        accelerator = make_accelerator(settings)
    described = {"shape": to_mapping(job.shape), "settings": to_mapping(settings), "seed": job.seed}
    described |= {"pairs": len(dataset)}
    if job.simulated is not None:
        described["pack"] = job.simulated.to_dict()
    described["settings"]["dev"] = [path.name for path in settings.dev]
    found = _read(folder / "result.json")
    result = found.pop("result", None)
    if isinstance(result, dict) and not differences(_fixed(found, NO_RESULT), _fixed(described, NO_RESULT)):
        _tidy(folder)
        return result
    if (folder / "last").is_dir() and (found := _read(folder / "settings.json")):
        told = differences(_fixed(found, _MAY_CHANGE), _fixed(described, _MAY_CHANGE))
        if told:
            raise TrainingError(
                f"{folder} was made with another configuration: {'; '.join(told)}. "
                "Take another folder, or begin again with --force"
            )
    vocabulary = Vocabulary.load(job.vocabulary)
    store_targets(settings, dataset, vocabulary, folder / "soft", accelerator)
    accelerator.wait_for_everyone()
    devices = [accelerator.device] if accelerator.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), StopRequest() as stop:
        run = TrainingRun(job, dataset, vocabulary, folder, accelerator)
        run.start(described)
        run.loop(stop)
        result = run.finish()
    if accelerator.is_main_process:
        write_json(folder / "result.json", {**described, "result": result})
        _tidy(folder)
    accelerator.wait_for_everyone()
    return result


def _tidy(folder: Path) -> None:
    shutil.rmtree(folder / "snapshots", ignore_errors=True)
    keep_latest(folder / "last", 1)


def _read(path: Path) -> dict[str, Any]:
    """What a JSON file holds; nothing if it is missing or damaged."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _fixed(described: dict[str, Any], free: Collection[str]) -> dict[str, Any]:
    """A configuration as it is compared: without ``free`` settings, and checkpoints wherever they lie now."""
    given = without_later(described.get("settings", {}))
    settings = {key: value for key, value in given.items() if key not in free}
    names = {key: Path(settings[key]).name for key in ("initial", "teacher") if settings.get(key)}
    return {**described, "settings": {**settings, **names}}
