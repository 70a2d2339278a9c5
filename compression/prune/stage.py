"""The stage between teacher and student: the teacher is pruned to the student's shape, which training starts from."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobilenmt.compression.core.context import Context, Stage
from mobilenmt.compression.core.errors import RecipeError
from mobilenmt.compression.core.pairs import read_pairs
from mobilenmt.compression.core.stage import StageResult, run_stage
from mobilenmt.compression.plan.command import shape_of_checkpoint
from mobilenmt.compression.prune.settings import PruneSettings
from mobilenmt.compression.teacher.stage import settings_of
from mobilenmt.compression.train.job import TrainingJob
from mobilenmt.compression.train.settings import TeacherModelSettings
from mobilenmt.compression.train.size import count_parameters
from mobilenmt.compression.train.stage import student_job
from mobilenmt.compression.train.student import TOKENIZER_FILES, StudentShape
from mobilenmt.compression.vocabulary.stage import VocabularySettings

if TYPE_CHECKING:
    from mobilenmt.compression.prune.report import PruneReport


def run(
    settings: PruneSettings,
    folder: Path,
    *,
    checkpoint: Path,
    shape: StudentShape,
    vocabulary: Path,
    pairs: Path,
    languages: tuple[str, str],
    seed: int = 1,
    force: bool = False,
    student: TrainingJob | None = None,
) -> StageResult:
    """Prune ``checkpoint`` to ``folder``/checkpoint.

    Killed at any moment, the stage begins again, or, in rounds, goes on with the one it was in. ``folder``/rounds may
    be deleted once it is done.

    Args:
        settings: importance, reconstruction, amounts of text, rounds.
        folder: the stage's folder.
        checkpoint: a Marian checkpoint folder.
        shape: the student's.
        vocabulary: folder of the recipe's tokenizer; if its pieces are others, the model moves to them.
        pairs: file of pairs to calibrate on.
        languages: codes of source and target.
        seed: of the sample of pairs.
        force: begin anew.
        student: how the student is trained that starts from what comes out; with ``rounds`` above 1 it is needed.

    Raises:
        CheckpointError: no Marian checkpoint, or a damaged one.
        PruneError: the shape is no part of the model, or the text will not do.
        TrainingError, EvaluationError: see :func:`mobilenmt.compression.train.stage.run`; in rounds only.
        StageError: see :func:`run_stage`.
    """
    how = settings.how()
    training = None
    if settings.rounds > 1:
        from mobilenmt.compression.prune.rounds import RoundTraining

        if student is None:
            raise ValueError("rounds are trained as a student is, and none is given")
        training = RoundTraining(student, settings.round_steps)
    tokenizer, *beside = (vocabulary / name for name in TOKENIZER_FILES)
    inputs: dict[str, Path | str] = {
        "checkpoint": checkpoint,
        "vocabulary": tokenizer,
        "pairs": pairs,
        "languages": "-".join(languages),
        "seed": str(seed),
    }
    inputs |= {path.name: path for path in beside if path.exists()}

    def work(stage: Path) -> Mapping[str, Any]:
        from mobilenmt.compression.prune.calibrate import sample_texts
        from mobilenmt.compression.prune.prune import prune
        from mobilenmt.compression.prune.vocabulary import same_pieces

        def once(model: Path, out: Path, wanted: StudentShape) -> PruneReport:
            moved = None if same_pieces(model, vocabulary) else vocabulary
            return prune(model, out, wanted, texts, how, vocabulary=moved, languages=languages, seed=seed)

        texts = sample_texts(((pair.source, pair.target) for pair in read_pairs(pairs)), how.sentences, seed=seed)
        model, told = checkpoint, {}
        if training is not None:
            from mobilenmt.compression.prune.rounds import prune_in_rounds

            model, rounds = prune_in_rounds(checkpoint, stage / "rounds", shape, settings, training, once)
            told = {"rounds": rounds}
        report = once(model, stage / "checkpoint", shape)
        return {
            **told,
            "parameters_before": report.before["parameters"],
            "parameters": report.after["parameters"],
            "loss_before": round(report.losses["before"], 4),
            "loss": round(report.losses["after"], 4),
            "pieces": report.pieces,
        }

    described: dict[str, Any] = {**dataclasses.asdict(how), "student": shape}
    if training is not None:  # else folders made before there were rounds are of the same settings
        job = training.of(checkpoint, shape)
        described |= {name: getattr(settings, name) for name in ("rounds", "round_steps", "round_schedule")}
        described["training"] = job.described()
        inputs |= {f"training {key}": value for key, value in job.inputs().items() if key != "initial"}
    return run_stage(
        folder, name=STAGE.name, settings=described, inputs=inputs, work=work, force=force, scratch=("rounds",)
    )


def shape_before(context: Context) -> StudentShape:
    """The shape of the model that a recipe prunes; a teacher that is trained there need not be there yet.

    Raises:
        RecipeError: there is nothing to prune.
        CheckpointError, PlanError: it is no checkpoint, or none that can be pruned.
    """
    checkpoint = _checkpoint(context)
    if checkpoint == context.teacher_checkpoint:
        return context.section(TeacherModelSettings).shape
    return shape_of_checkpoint(checkpoint)[0]


def _checkpoint(context: Context) -> Path:
    """The model to prune: the one that is named, the teacher that is trained, or the teacher's checkpoint folder."""
    named = context.section(PruneSettings).checkpoint
    if named is not None:
        return named
    if context.trains_teacher:
        return context.teacher_checkpoint
    if context.has_teacher:
        found = Path(settings_of(context).checkpoint)
        if (found / "config.json").is_file():
            return found
    raise RecipeError(
        f"{context.recipe_name}: prune.checkpoint: nothing to prune: name a Marian checkpoint folder, or train a "
        "teacher with [teacher_model]"
    )


def _check(context: Context, to_do: bool) -> str:
    checkpoint, settings = _checkpoint(context), context.section(PruneSettings)
    shape, vocabulary = context.section(StudentShape), context.section(VocabularySettings)
    if to_do and checkpoint != context.teacher_checkpoint:
        from mobilenmt.compression.core.errors import PruneError
        from mobilenmt.compression.prune.target import check_target
        from mobilenmt.export.checkpoint import MarianConfig, read_json

        raw = read_json(checkpoint / "config.json", f"{checkpoint} is no checkpoint: it has no config.json")
        try:
            check_target(shape, MarianConfig.from_dict(raw))
        except PruneError as error:
            raise RecipeError(f"{context.recipe_name}: student: {error}") from None
    elif to_do:
        _check_trained(context, shape)
    name = "the teacher trained here" if checkpoint == context.teacher_checkpoint else str(checkpoint)
    rounds = f", in {settings.rounds} rounds" if settings.rounds > 1 else ""
    return f"{name} to {count_parameters(shape, vocabulary.size):,} parameters by {settings.importance}{rounds}"


def _check_trained(context: Context, shape: StudentShape) -> None:
    """The teacher is not there yet, but its shape is known."""
    from mobilenmt.compression.core.errors import PruneError
    from mobilenmt.compression.prune.target import check_target

    try:
        check_target(shape, context.section(TeacherModelSettings).shape)
    except PruneError as error:
        raise RecipeError(f"{context.recipe_name}: student: {error}") from None


def _run(context: Context, force: bool) -> StageResult:
    if not context.prunes:
        raise RecipeError(f"{context.recipe_name}: it has no [prune], so the student starts from random weights")
    settings = context.section(PruneSettings)
    return run(
        settings,
        context.folder(STAGE.name),
        checkpoint=_checkpoint(context),
        shape=context.section(StudentShape),
        vocabulary=context.folder("vocabulary"),
        pairs=context.pairs,
        languages=context.languages,
        seed=context.seed,
        force=force,
        student=student_job(context) if settings.rounds > 1 else None,
    )


STAGE = Stage(
    name="prune",
    settings=PruneSettings,
    run=_run,
    check=_check,
    help="Prune the teacher of a recipe to the student's shape and vocabulary, for the student to start from.",
    example="importance=activation",
    wanted=lambda context: context.prunes,
    needs=("accelerate", "matplotlib", "onnx", "sacrebleu", "torch", "transformers"),
)
