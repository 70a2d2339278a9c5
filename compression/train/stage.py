"""The stages that train: a student on a teacher's text (``distill``), and a teacher on text (``teacher_model``)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mobilenmt.compression.core.context import Context, Stage
from mobilenmt.compression.core.errors import EvaluationError, RecipeError
from mobilenmt.compression.core.pack_forms import PackForms
from mobilenmt.compression.core.scoring import Scorer
from mobilenmt.compression.core.stage import StageResult, check_stage, run_stage
from mobilenmt.compression.dataset.augment import AugmentSettings
from mobilenmt.compression.train.job import TrainingJob
from mobilenmt.compression.train.processes import make_accelerator, run_together
from mobilenmt.compression.train.settings import DEFAULT_EPOCHS, DistillSettings, TeacherModelSettings, TrainSettings
from mobilenmt.compression.train.size import count_parameters
from mobilenmt.compression.train.student import StudentShape
from mobilenmt.compression.vocabulary.stage import VocabularySettings
from mobilenmt.compression.vocabulary.vocabulary import Vocabulary


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
        known = Vocabulary.load(job.vocabulary)
        _check_dev(job, name, known.languages[1])
        _check_checkpoints(job, known)
    accelerator = make_accelerator(job.settings)

    def work(stage: Path) -> Mapping[str, Any]:
        from mobilenmt.compression.dataset.dataset import PackedDataset, build_dataset
        from mobilenmt.compression.train.train import train

        data = stage / "dataset"
        if accelerator.is_main_process:
            build_dataset(
                job.pairs,
                job.vocabulary,
                data,
                weights=job.weights,
                augment=job.augment,
                seed=job.seed,
                max_tokens=job.settings.max_tokens,
                processes=job.settings.threads,
            )
        accelerator.wait_for_everyone()
        return train(job, PackedDataset(data), stage, accelerator=accelerator)

    def stage(work: Callable[[Path], Mapping[str, Any]]) -> StageResult:
        return run_stage(
            folder,
            name=name,
            settings=settings,
            inputs=inputs,
            work=work,
            force=force,
            scratch=("dataset", "soft", "last"),
            keep=("dataset",),
        )

    return stage(work) if accelerator.num_processes == 1 else run_together(name, folder, accelerator, stage, work)


def _check_dev(job: TrainingJob, name: str, language: str) -> None:
    """Find out in seconds what would stop the run at its first evaluation."""
    from mobilenmt.compression.train.devset import read_dev_sets

    if read_dev_sets(job.settings.dev, job.settings.dev_lines):
        try:
            Scorer(language)
        except EvaluationError as error:
            raise EvaluationError(f"{name}.dev: {error}; install that, or train without dev files") from None


def _check_checkpoints(job: TrainingJob, known: Vocabulary) -> None:
    """Find out in seconds what would stop the run once the text is tokenized."""
    from mobilenmt.compression.train.resume import is_state
    from mobilenmt.compression.train.soft_targets import check_soft_teacher
    from mobilenmt.compression.train.student import check_state, load_weights, make_student

    settings = job.settings
    if settings.initial is not None and is_state(settings.initial):
        check_state(settings.initial, make_student(job.shape, known, seed=0), known)
    elif settings.initial is not None:
        load_weights(make_student(job.shape, known, seed=0), settings.initial, known, layers=settings.initial_layers)
    if isinstance(settings, DistillSettings) and settings.reads_teacher and settings.teacher is not None:
        check_soft_teacher(settings.teacher, known, settings.max_tokens)


def _length(settings: TrainSettings) -> str:
    told = [f"{value:,} {name}" for value, name in ((settings.steps, "updates"), (settings.epochs, "epochs")) if value]
    return f"at most {' or '.join(told)}" if told else f"{DEFAULT_EPOCHS} epochs"


def _job(context: Context, settings: TrainSettings, shape: StudentShape, pairs: Path) -> TrainingJob:
    simulates = isinstance(settings, DistillSettings) and bool(settings.quantization_aware)
    return TrainingJob(
        shape=shape,
        settings=settings,
        pairs=pairs,
        vocabulary=context.folder("vocabulary"),
        weights=context.weights,
        augment=context.section(AugmentSettings) if context.has(AugmentSettings) else None,
        seed=context.seed,
        pack=context.pack_forms if simulates else PackForms(),
    )


def _check_job(context: Context, job: TrainingJob, name: str) -> None:
    """What can be checked before the stages before this one have run."""
    _check_dev(job, name, context.languages[1])
    for key, path in job.checkpoints().items():
        made_here = (context.teacher_checkpoint.absolute(), context.pruned_checkpoint.absolute())
        if path not in made_here and not (path / "config.json").is_file():
            if key == "initial" and [*path.glob("state.json"), *path.glob("step-*/state.json")]:
                if job.settings.initial_layers == "spread":
                    raise RecipeError(
                        f"{context.recipe_name}: {name}.initial_layers: a saved state is taken as it is; use 'same', "
                        "or give a checkpoint folder in initial"
                    )
                continue
            raise RecipeError(f"{context.recipe_name}: {name}.{key}: {path} is no checkpoint folder")


def distill_settings(context: Context) -> DistillSettings:
    """Settings of the student's training. In a recipe that trains a teacher, that one is its teacher by default; in one
    that prunes a model, the student starts from what is left of it."""
    given = context.given(DistillSettings)
    wanted = {"teacher": "word_level" in given or "hidden" in given, "initial": given.get("initial_layers") == "spread"}
    own = str(context.teacher_checkpoint.absolute())
    defaults = {key: own for key, want in wanted.items() if want and context.trains_teacher}
    if context.prunes:
        defaults["initial"] = str(context.pruned_checkpoint.absolute())
    return context.section(DistillSettings, **defaults)


def student_job(context: Context) -> TrainingJob:
    """What trains the student of a recipe."""
    return _job(context, distill_settings(context), context.section(StudentShape), context.text)


def _teacher_model(context: Context) -> TrainingJob:
    if not context.trains_teacher:
        raise RecipeError(f"{context.recipe_name}: it has no [teacher_model], so no teacher is trained")
    settings = context.section(TeacherModelSettings)
    return _job(context, settings, settings.shape, context.pairs)


def _check_distill(context: Context, to_do: bool) -> str:
    settings = distill_settings(context)
    if to_do:
        _check_job(context, student_job(context), STAGE.name)
    kind = "teacher's text" if context.teacher_translates else "references"
    if settings.word_level:
        kind += f" and, by {settings.word_level:g}, its distributions"
    if settings.hidden:
        kind += f" and, by {settings.hidden:g}, its hidden states"
    if settings.quantization_aware:
        form = settings.quantization_aware
        kind += f", rounded as {context.pack_forms.quantization.form if form is True else form}"
    return f"{kind}, {_length(settings)}"


def _check_teacher_model(context: Context, to_do: bool) -> str:
    settings = context.section(TeacherModelSettings)
    if to_do:
        _check_job(context, _teacher_model(context), TEACHER_MODEL.name)
    parameters = count_parameters(settings.shape, context.section(VocabularySettings).size)
    return f"{parameters:,} parameters, {_length(settings)}"


TEACHER_MODEL = Stage(
    name="teacher_model",
    settings=TeacherModelSettings,
    run=lambda context, force: run(
        _teacher_model(context), context.folder("teacher_model"), name="teacher_model", force=force
    ),
    check=_check_teacher_model,
    help="Train the teacher of a recipe from its corpus.",
    example="steps=1000",
    wanted=lambda context: context.trains_teacher,
    needs=("accelerate", "matplotlib", "sacrebleu", "torch", "transformers"),
)
STAGE = Stage(
    name="distill",
    settings=DistillSettings,
    run=lambda context, force: run(student_job(context), context.folder("distill"), force=force),
    check=_check_distill,
    help="Train the student of a recipe on the teacher's text, or on the references if there is no teacher.\n\n"
    "On several processes: accelerate launch --num_processes 2 -m mobilenmt distill RECIPE",
    example="steps=1000",
    needs=("accelerate", "matplotlib", "sacrebleu", "torch", "transformers"),
)
