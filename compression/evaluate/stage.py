"""The evaluate stage of a chain: the student's checkpoint in fp32, its pack, its teacher and peers, side by side."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobilenmt.compression.core.context import Context, Stage
from mobilenmt.compression.core.stage import StageResult, run_stage
from mobilenmt.compression.evaluate.evaluate import EvaluateSettings, evaluate
from mobilenmt.compression.evaluate.evaluation import Evaluation

if TYPE_CHECKING:
    from mobilenmt.compression.teacher.settings import TeacherSettings

STUDENT = "student fp32"
PACK = "pack"
TEACHER = "teacher"
PRUNED = "pruned"


def run(
    settings: EvaluateSettings,
    folder: Path,
    *,
    checkpoint: Path,
    pack: Path,
    teacher: TeacherSettings | None,
    pruned: Path | None = None,
    languages: tuple[str, str],
    force: bool = False,
) -> StageResult:
    """Write scores.json, scores.md, scores.png, outputs/ and tests/ into ``folder``.

    Args:
        settings: test sets and peers.
        folder: the stage's folder.
        checkpoint: the student.
        pack: what it was exported to.
        teacher: evaluated as it teaches, if the settings want it; n-best and sampling become a beam.
        pruned: the checkpoint that the student started from; evaluated too if the settings want the teacher.
        languages: codes of source and target, as in the recipe.
        force: begin anew.

    Returns:
        The stage's result. Its summary: ``scores`` (system -> test set -> bleu, chrf) and ``lost``: what the pack loses
        against the checkpoint in the mean of the dev sets (of the test sets, if there are none), BLEU and chrF.
    """
    models: dict[str, str | Path | TeacherSettings] = {STUDENT: checkpoint, PACK: pack}
    inputs: dict[str, Path | str] = {"checkpoint": checkpoint, "pack": pack}
    if teacher is not None and settings.teacher:
        from mobilenmt.compression.teacher.fingerprint import fingerprint

        models[TEACHER] = as_evaluated(teacher)
        inputs["teacher"] = fingerprint(teacher.checkpoint)
    if pruned is not None and settings.teacher:
        models[PRUNED], inputs["pruned"] = pruned, pruned
    inputs |= {f"test set {path.parent.name}/{path.name}": path for path in settings.files}
    inputs |= {f"{peer} {path.name}": path for peer, paths in settings.peers.items() for path in paths}

    def work(stage: Path) -> Mapping[str, Any]:
        found = evaluate(models, settings, source_language=languages[0], target_language=languages[1])
        found.write(stage)
        return {
            "scores": {system.name: dataclasses.asdict(system)["scores"] for system in found.systems},
            "lost": lost(found, settings),
        }

    return run_stage(folder, name="evaluate", settings=settings, inputs=inputs, work=work, force=force)


def as_evaluated(teacher: TeacherSettings) -> TeacherSettings:
    """A teacher that gives one translation of a sentence, on this machine, whatever the reference is."""
    search = teacher.search if teacher.search in ("greedy", "beam") else "beam"
    return dataclasses.replace(teacher, search=search, n_best=1, engine="local", address="", workers=0)


def lost(found: Evaluation, settings: EvaluateSettings) -> dict[str, float]:
    """Mean BLEU and chrF that the pack loses against the checkpoint."""
    systems = {system.name: system for system in found.systems}
    if STUDENT not in systems or PACK not in systems:
        return {}
    chosen = found.tests[: len(settings.dev)] if settings.dev else found.tests
    differences = {
        metric: [
            getattr(systems[STUDENT].scores[test.name], metric) - getattr(systems[PACK].scores[test.name], metric)
            for test in chosen
        ]
        for metric in ("bleu", "chrf")
    }
    return {metric: round(sum(values) / len(values), 4) for metric, values in differences.items()}


def _check(context: Context, to_do: bool) -> str:
    from mobilenmt.compression.core.scoring import Scorer
    from mobilenmt.compression.evaluate.scoring import assign_peers, read_test_sets

    settings = context.section(EvaluateSettings)
    if to_do:
        tests = read_test_sets(settings.files, lines=settings.lines, reverse=settings.reverse)
        assign_peers(settings.peers, tests)
        Scorer(context.languages[1])
    return f"{len(settings.dev)} dev and {len(settings.test)} test sets, {len(settings.peers)} peers"


def _run(context: Context, force: bool) -> StageResult:
    from mobilenmt.compression.teacher.stage import as_it_teaches

    return run(
        context.section(EvaluateSettings),
        context.folder(STAGE.name),
        checkpoint=context.folder("distill") / "checkpoint",
        pack=context.pack,
        teacher=as_it_teaches(context, force=force) if context.has_teacher else None,
        pruned=context.pruned_checkpoint if context.prunes else None,
        languages=context.languages,
        force=force,
    )


STAGE = Stage(
    name="evaluate",
    settings=EvaluateSettings,
    run=_run,
    check=_check,
    help="Score the student of a recipe, its pack, its teacher, the pruned model and peers on the recipe's test sets.",
    example="lines=200",
    wanted=lambda context: bool(context.section(EvaluateSettings).files),
    needs=("matplotlib", "onnx", "sacrebleu", "torch", "transformers"),
)
