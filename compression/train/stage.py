"""The stages that train: a student on a teacher's text (``distill``), and a teacher on text (``teacher_model``)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobilenmt.compression.core.context import Context, Stage
from mobilenmt.compression.core.errors import RecipeError
from mobilenmt.compression.core.stage import StageResult, check_stage, run_stage
from mobilenmt.compression.dataset.augment import AugmentSettings
from mobilenmt.compression.train.job import TrainingJob
from mobilenmt.compression.train.processes import make_accelerator, run_together
from mobilenmt.compression.train.settings import (
    DEFAULT_EPOCHS,
    DistillSettings,
    TeacherModelSettings,
    TrainSettings,
)
from mobilenmt.compression.train.size import count_parameters
from mobilenmt.compression.train.student import StudentShape
from mobilenmt.compression.vocabulary.stage import VocabularySettings

if TYPE_CHECKING:
    from accelerate import Accelerator


CHECKPOINT = "checkpoint"
"""The result, inside the folder of the stage."""


def run(job: TrainingJob, folder: Path, *, name: str = "distill", force: bool = False) -> StageResult:
    """Train a model on pairs (a teacher's text, or references), and write ``folder``/checkpoint.

    Killed, it resumes from the last saved state. On several GPUs or machines start the same command with
    ``accelerate launch``; machines need a common file system.

    Args:
        job: the model, its text and how to train it.
        folder: the stage's folder. ``dataset``, ``soft`` and ``last`` in it may be deleted once it is done.
        name: the stage: ``distill`` for a student, ``teacher_model`` for a teacher.
        force: begin anew.

    Returns:
        The stage's result; its summary is that of :func:`~mobilenmt.compression.train.train.train`.

    Raises:
        TrainingError: see :func:`~mobilenmt.compression.train.train.train`.
        CheckpointError: ``initial`` or ``teacher`` is no checkpoint.
        CorpusError, VocabularyError: pairs or vocabulary do not do.
        StageError: the folder belongs to something else, or the configuration changed since it was begun.
    """
    settings, inputs = job.described(), job.inputs()
    # Before the folder remembers these settings: a mistake in them can then be mended without --force.
    if (force or not check_stage(folder, name=name, settings=settings, inputs=inputs)) and job.pairs.exists():
        _check_job(job)
    accelerator = make_accelerator(job.settings)

    def work(stage: Path) -> Mapping[str, Any]:
        return _work(job, stage, accelerator)

    def stage(work: Callable[[Path], Mapping[str, Any]]) -> StageResult:
        return run_stage(
            folder,
            name=name,
            settings=settings,
            inputs=inputs,
            work=work,
            force=force,
            scratch=("dataset", "soft", "last"),
        )

    return stage(work) if accelerator.num_processes == 1 else run_together(name, folder, accelerator, stage, work)


def _check_job(job: TrainingJob) -> None:
    """Find out in seconds what would stop the run after hours."""
    from mobilenmt.compression.train.devset import read_dev_sets
    from mobilenmt.compression.train.student import load_weights, make_student
    from mobilenmt.compression.train.train import check_lengths
    from mobilenmt.compression.vocabulary.vocabulary import Vocabulary

    settings, known = job.settings, Vocabulary.load(job.vocabulary)
    check_lengths(settings, job.shape)
    read_dev_sets(settings.dev, settings.dev_lines)
    if settings.initial is not None:
        load_weights(make_student(job.shape, known, seed=0), settings.initial, known, layers=settings.initial_layers)
    if isinstance(settings, DistillSettings) and settings.word_level and settings.teacher is not None:
        from mobilenmt.compression.train.soft_targets import check_soft_teacher

        check_soft_teacher(settings.teacher, known, settings.max_tokens)


def _work(job: TrainingJob, folder: Path, accelerator: Accelerator) -> Mapping[str, Any]:
    from mobilenmt.compression.dataset.dataset import PackedDataset, build_dataset
    from mobilenmt.compression.train.loss import LossWeights
    from mobilenmt.compression.train.train import train
    from mobilenmt.compression.train.update import Extras
    from mobilenmt.compression.vocabulary.vocabulary import Vocabulary

    settings, known = job.settings, Vocabulary.load(job.vocabulary)
    if accelerator.is_main_process:
        build_dataset(
            job.pairs,
            job.vocabulary,
            folder / "dataset",
            weights=job.weights,
            augment=job.augment,
            seed=job.seed,
            max_tokens=settings.max_tokens,
        )
    accelerator.wait_for_everyone()
    dataset = PackedDataset(folder / "dataset")
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
        job.shape,
        settings,
        dataset=dataset,
        vocabulary=known,
        folder=folder,
        seed=job.seed,
        extras=extras,
        accelerator=accelerator,
        report=job.report,
    )


def _check_section(context: Context, name: str, settings: TrainSettings, shape: StudentShape) -> None:
    from mobilenmt.compression.train.devset import read_dev_sets
    from mobilenmt.compression.train.train import check_lengths

    check_lengths(settings, shape)
    read_dev_sets(settings.dev, settings.dev_lines)
    for key in ("initial", "teacher"):
        path = getattr(settings, key, None)
        if path is not None and path != context.teacher_checkpoint.absolute() and not (path / "config.json").is_file():
            raise RecipeError(f"{context.recipe_name}: {name}.{key}: {path} is no checkpoint folder")


def _length(settings: TrainSettings) -> str:
    told = [f"{value:,} {name}" for value, name in ((settings.steps, "updates"), (settings.epochs, "epochs")) if value]
    return f"at most {' or '.join(told)}" if told else f"{DEFAULT_EPOCHS} epochs"


def _job(context: Context, settings: TrainSettings, shape: StudentShape, pairs: Path) -> TrainingJob:
    return TrainingJob(
        shape=shape,
        settings=settings,
        pairs=pairs,
        vocabulary=context.folder("vocabulary"),
        weights=context.weights,
        augment=context.section(AugmentSettings) if context.has(AugmentSettings) else None,
        seed=context.seed,
    )


def distill_settings(context: Context) -> DistillSettings:
    """Settings of the student's training; in a recipe that trains a teacher, that one is its teacher by default."""
    given = context.given(DistillSettings)
    wanted = {"teacher": "word_level" in given, "initial": given.get("initial_layers") == "spread"}
    own = str(context.teacher_checkpoint.absolute())
    return context.section(
        DistillSettings, **{key: own for key, want in wanted.items() if want and context.trains_teacher}
    )


def _check_distill(context: Context, to_do: bool) -> str:
    settings = distill_settings(context)
    if to_do:
        _check_section(context, STAGE.name, settings, context.section(StudentShape))
    kind = "teacher's text" if context.teacher_translates else "references"
    if settings.word_level:
        kind += f" and, by {settings.word_level:g}, its distributions"
    return f"{kind}, {_length(settings)}"


def _run_distill(context: Context, force: bool) -> StageResult:
    job = _job(context, distill_settings(context), context.section(StudentShape), context.text)
    return run(job, context.folder(STAGE.name), name=STAGE.name, force=force)


def _check_teacher_model(context: Context, to_do: bool) -> str:
    settings = context.section(TeacherModelSettings)
    if to_do:
        _check_section(context, TEACHER_MODEL.name, settings, settings.shape)
    parameters = count_parameters(settings.shape, context.section(VocabularySettings).size)
    return f"{parameters:,} parameters, {_length(settings)}"


def _run_teacher_model(context: Context, force: bool) -> StageResult:
    if not context.trains_teacher:
        raise RecipeError(f"{context.recipe_name}: it has no [teacher_model], so no teacher is trained")
    settings = context.section(TeacherModelSettings)
    job = _job(context, settings, settings.shape, context.pairs)
    return run(job, context.folder(TEACHER_MODEL.name), name=TEACHER_MODEL.name, force=force)


TEACHER_MODEL = Stage(
    name="teacher_model",
    settings=TeacherModelSettings,
    run=_run_teacher_model,
    check=_check_teacher_model,
    help="Train the teacher of a recipe from its corpus.",
    example="steps=1000",
    wanted=lambda context: context.trains_teacher,
)
STAGE = Stage(
    name="distill",
    settings=DistillSettings,
    run=_run_distill,
    check=_check_distill,
    help="Train the student of a recipe on the teacher's text, or on the references if there is no teacher.\n\n"
    "On several processes: accelerate launch --num_processes 2 -m mobilenmt distill RECIPE",
    example="steps=1000",
)
