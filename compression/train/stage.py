"""The stages that train: a student on a teacher's text (``distill``), and a teacher on text (``teacher_model``)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobilenmt.compression.core.stage import StageResult, check_stage, run_stage
from mobilenmt.compression.train.processes import make_accelerator, run_together
from mobilenmt.compression.train.settings import DistillSettings, TeacherModelSettings, TrainSettings
from mobilenmt.compression.train.student import TOKENIZER_FILES, StudentShape

if TYPE_CHECKING:
    from accelerate import Accelerator

    from mobilenmt.compression.dataset.augment import AugmentSettings

CHECKPOINT = "checkpoint"
"""The result, inside the folder of the stage."""

_NO_RESULT = ("save_every", "save_seconds", "teacher_tokens")
"""Settings that change nothing in the files that come out; they may change on the way."""


def run(
    settings: DistillSettings,
    folder: Path,
    *,
    shape: StudentShape,
    pairs: Path,
    vocabulary: Path,
    weights: Mapping[str, float] | None = None,
    augment: AugmentSettings | None = None,
    seed: int = 1,
    force: bool = False,
    report: Callable[[str], None] = lambda line: None,
) -> StageResult:
    """Train a student on pairs (a teacher's text, or references), and write ``folder``/checkpoint.

    Killed, it resumes from the last saved state. On several GPUs or machines start the same command with
    ``accelerate launch``; machines need a common file system.

    Args:
        settings: how to train.
        folder: the stage's folder. ``dataset``, ``soft`` and ``last`` in it may be deleted once it is done.
        shape: dimensions of the student.
        pairs: file of pairs.
        vocabulary: folder with tokenizer.json, of the conventions of Marian checkpoints.
        weights: how often pairs go in, by tag.
        augment: shares of augmented copies.
        seed: the recipe's.
        force: begin anew.
        report: receives a line now and then.

    Returns:
        The stage's result; its summary is that of :func:`~mobilenmt.compression.train.train.train`.

    Raises:
        TrainingError: see :func:`~mobilenmt.compression.train.train.train`.
        CheckpointError: ``initial`` or ``teacher`` is no checkpoint.
        CorpusError, VocabularyError: pairs or vocabulary do not do.
        StageError: the folder belongs to something else, or the configuration changed since it was begun.
    """
    return _stage("distill", settings, folder, shape, pairs, vocabulary, weights, augment, seed, force, report)


def run_teacher_model(
    settings: TeacherModelSettings,
    folder: Path,
    *,
    pairs: Path,
    vocabulary: Path,
    weights: Mapping[str, float] | None = None,
    augment: AugmentSettings | None = None,
    seed: int = 1,
    force: bool = False,
    report: Callable[[str], None] = lambda line: None,
) -> StageResult:
    """Train a teacher from text, of any size, as :func:`run` trains a student."""
    shape = settings.shape
    return _stage("teacher_model", settings, folder, shape, pairs, vocabulary, weights, augment, seed, force, report)


def _stage(
    name: str,
    settings: TrainSettings,
    folder: Path,
    shape: StudentShape,
    pairs: Path,
    vocabulary: Path,
    weights: Mapping[str, float] | None,
    augment: AugmentSettings | None,
    seed: int,
    force: bool,
    report: Callable[[str], None],
) -> StageResult:
    described: dict[str, Any] = {
        **{key: value for key, value in _fields(settings).items() if key not in _NO_RESULT},
        "student": shape,
        "weights": dict(weights or {}),
        "augment": augment,
    }
    inputs: dict[str, Path | str] = {"pairs": pairs, "vocabulary": vocabulary / "tokenizer.json", "seed": str(seed)}
    # What else lies there does not count: its report has measured memory, which differs each time it is made.
    beside = (vocabulary / name for name in TOKENIZER_FILES[1:])
    inputs |= {path.name: path for path in beside if path.exists() or not vocabulary.exists()}
    inputs |= {f"dev {path.name}": path for path in settings.dev}
    for key in ("initial", "teacher"):
        path = getattr(settings, key, None)
        if path is not None:
            inputs[key] = path
    # Before the folder remembers these settings: a mistake in them can then be mended without --force.
    if (force or not check_stage(folder, name=name, settings=described, inputs=inputs)) and pairs.exists():
        _check(settings, shape, vocabulary)
    accelerator = make_accelerator(settings)

    def work(stage: Path) -> Mapping[str, Any]:
        return _work(settings, stage, shape, pairs, vocabulary, weights, augment, seed, accelerator, report)

    def stage(work: Callable[[Path], Mapping[str, Any]]) -> StageResult:
        return run_stage(
            folder,
            name=name,
            settings=described,
            inputs=inputs,
            work=work,
            force=force,
            scratch=("dataset", "soft", "last"),
        )

    return stage(work) if accelerator.num_processes == 1 else run_together(name, folder, accelerator, stage, work)


def _fields(settings: object) -> dict[str, Any]:
    return {field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)}  # type: ignore[arg-type]


def _check(settings: TrainSettings, shape: StudentShape, vocabulary: Path) -> None:
    """Find out in seconds what would stop the run after hours."""
    from mobilenmt.compression.train.devset import read_dev_sets
    from mobilenmt.compression.train.student import load_weights, make_student
    from mobilenmt.compression.train.train import check_lengths
    from mobilenmt.compression.vocabulary.vocabulary import Vocabulary

    known = Vocabulary.load(vocabulary)
    check_lengths(settings, shape)
    read_dev_sets(settings.dev, settings.dev_lines)
    if settings.initial is not None:
        load_weights(make_student(shape, known, seed=0), settings.initial, known, layers=settings.initial_layers)
    if isinstance(settings, DistillSettings) and settings.word_level and settings.teacher is not None:
        from mobilenmt.compression.train.soft_targets import check_soft_teacher

        check_soft_teacher(settings.teacher, known, settings.max_tokens)


def _work(
    settings: TrainSettings,
    folder: Path,
    shape: StudentShape,
    pairs: Path,
    vocabulary: Path,
    weights: Mapping[str, float] | None,
    augment: AugmentSettings | None,
    seed: int,
    accelerator: Accelerator,
    report: Callable[[str], None],
) -> Mapping[str, Any]:
    from mobilenmt.compression.dataset.dataset import PackedDataset, build_dataset
    from mobilenmt.compression.train.loss import LossWeights
    from mobilenmt.compression.train.run import Extras
    from mobilenmt.compression.train.train import train
    from mobilenmt.compression.vocabulary.vocabulary import Vocabulary

    known = Vocabulary.load(vocabulary)
    if accelerator.is_main_process:
        build_dataset(
            pairs,
            vocabulary,
            folder / "dataset",
            weights=weights or {},
            augment=augment,
            seed=seed,
            max_tokens=settings.max_tokens,
        )
    accelerator.wait_for_everyone()
    dataset = PackedDataset.open(folder / "dataset")
    extras = None
    if isinstance(settings, DistillSettings) and settings.word_level:
        from mobilenmt.compression.train.soft_targets import StoredTargets, live_targets, store_targets, stored_targets

        loss = LossWeights(settings.label_smoothing, settings.word_level, settings.temperature)
        if settings.soft_targets == "live":
            extras = Extras(loss, targets=live_targets(settings, known))
        else:
            soft, rank, world = folder / "soft", accelerator.process_index, accelerator.num_processes
            store_targets(settings, dataset, known, soft, accelerator.device, rank, world)
            accelerator.wait_for_everyone()
            stored = StoredTargets(soft, dataset, known, settings.top_k)
            extras = Extras(loss, stored, stored_targets(settings.temperature))
    return train(
        shape,
        settings,
        dataset=dataset,
        vocabulary=known,
        folder=folder,
        seed=seed,
        extras=extras,
        accelerator=accelerator,
        report=report,
    )
