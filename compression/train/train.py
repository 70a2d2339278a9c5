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
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from mobilenmt.compression.core.errors import TrainingError
from mobilenmt.compression.core.settings import to_mapping
from mobilenmt.compression.core.stage import write_json
from mobilenmt.compression.dataset.batches import Pairs
from mobilenmt.compression.train.interrupt import StopRequest
from mobilenmt.compression.train.processes import make_accelerator
from mobilenmt.compression.train.resume import keep_latest
from mobilenmt.compression.train.run import TrainingRun
from mobilenmt.compression.train.settings import TrainSettings
from mobilenmt.compression.train.student import StudentShape
from mobilenmt.compression.train.update import Extras
from mobilenmt.compression.vocabulary.vocabulary import Vocabulary

if TYPE_CHECKING:
    from accelerate import Accelerator


_MAY_CHANGE = {
    *("steps", "epochs", "average_last", "average_every", "dev", "dev_lines", "dev_every", "dev_metric", "patience"),
    *("save_every", "save_seconds", "log_every", "bad_updates", "device", "threads"),
    "teacher_tokens",
}
"""Settings that a run can go on with when they changed, because they only say how long, and what is written down."""


def train(
    shape: StudentShape,
    settings: TrainSettings,
    *,
    dataset: Pairs,
    vocabulary: Vocabulary,
    folder: Path,
    seed: int,
    extras: Extras | None = None,
    accelerator: Accelerator | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Train a model, or go on training it, and write ``folder``/checkpoint.

    Start it with ``accelerate launch`` on several processes and every one of them calls this with the same arguments.

    Args:
        shape: dimensions of the model.
        settings: how to train.
        dataset: tokenized pairs.
        vocabulary: the model's; its files go into the checkpoint.
        folder: the run folder; made if needed.
        seed: everything random is derived from it.
        extras: word-level distillation.
        accelerator: the processes and devices; None asks Accelerate for those there are.
        report: receives a line now and then.

    Returns:
        JSON types: ``chosen`` (best, last or average), ``step`` and ``scores`` of it, ``steps`` and ``tokens`` of the
        run, ``parameters``, ``stopped_early``, ``skipped_updates``.

    Raises:
        TrainingError: something does not fit, the disk is full, training diverged, or it was told to stop; the
            message says which, and whether a state was saved.
    """
    check_lengths(settings, shape)
    folder.mkdir(parents=True, exist_ok=True)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    if accelerator is None:
        accelerator = make_accelerator(settings)
    described = {"shape": to_mapping(shape), "settings": to_mapping(settings), "seed": seed, "pairs": len(dataset)}
    described["settings"]["dev"] = [path.name for path in settings.dev]
    done = _finished(folder, described)
    if done is not None:
        return done
    if (folder / "last").is_dir():
        _check_unchanged(folder / "settings.json", described)
    devices = [accelerator.device] if accelerator.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), StopRequest() as stop:
        run = TrainingRun(shape, settings, dataset, vocabulary, folder, seed, extras, accelerator, report)
        run.start(described)
        run.loop(stop)
        result = run.finish()
    if accelerator.is_main_process:
        write_json(folder / "result.json", {**described, "result": result})
        _tidy(folder)
    accelerator.wait_for_everyone()
    return result


def check_lengths(settings: TrainSettings, shape: StudentShape) -> None:
    """TrainingError if sentences may be longer than the model has positions for."""
    if settings.max_tokens > shape.max_position_embeddings:
        raise TrainingError(
            f"max_tokens {settings.max_tokens} exceeds max_position_embeddings {shape.max_position_embeddings} "
            "of the model; lower the one or raise the other"
        )


def _finished(folder: Path, described: dict[str, Any]) -> dict[str, Any] | None:
    """The result of a run that is done."""
    try:
        found = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    result = found.pop("result", None)
    if not isinstance(result, dict) or found != json.loads(json.dumps(described)):
        return None
    _tidy(folder)
    return result


def _tidy(folder: Path) -> None:
    shutil.rmtree(folder / "snapshots", ignore_errors=True)
    keep_latest(folder / "last", 1)


def _check_unchanged(path: Path, described: dict[str, Any]) -> None:
    """TrainingError if a saved state was made with settings that a run cannot change on its way."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
    wanted = json.loads(json.dumps(described))
    different = [
        f"{part}.{key} was {found[part].get(key)!r} and is {value!r}"
        for part in ("shape", "settings")
        for key, value in wanted[part].items()
        if key not in _MAY_CHANGE and found.get(part, {}).get(key) != value
    ]
    different += [
        f"{key} was {found.get(key)!r} and is {wanted[key]!r}"
        for key in ("seed", "pairs")
        if found.get(key) != wanted[key]
    ]
    if different:
        raise TrainingError(
            f"{path.parent} was made with another configuration: {'; '.join(different)}. "
            "Take another folder, or begin again with --force"
        )
