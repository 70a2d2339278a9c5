"""The teacher step: a large model's translations of the source side become the text the student learns from.

Sequence-level knowledge distillation (Kim & Rush 2016, section 3.2): the student is trained on what the teacher says
(``beam``, ``greedy``), or on that of the teacher's best entries which is nearest the reference (section 3.3:
sequence-level interpolation; ``nearest``). Works through shards: see :mod:`mobilenmt.compression.teacher.shards`.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mobilenmt.compression.core.context import Context, Stage
from mobilenmt.compression.core.errors import RecipeError, TeacherError
from mobilenmt.compression.core.stage import StageResult, check_stage, run_stage, write_json
from mobilenmt.compression.teacher.settings import TeacherSettings
from mobilenmt.compression.teacher.shards import INDEX, ShardStore, plan_shards

TEXT = "text.tsv.zst"
"""What the stage writes: pairs whose target is the teacher's."""

_MACHINE = "machine.json"


def run(
    settings: TeacherSettings,
    *,
    pairs: Path,
    folder: Path,
    languages: tuple[str, str],
    seed: int = 1,
    force: bool = False,
) -> StageResult:
    """Translate the source side of ``pairs`` and write ``text.tsv.zst`` in ``folder``; resumes what was interrupted.

    Args:
        settings: the teacher and the search.
        pairs: file of :func:`~mobilenmt.compression.core.pairs.read_pairs`; equal sources are translated once, and
            come out once for each tag they have.
        folder: the stage's folder. ``shards/`` in it may be deleted when the stage is done.
        languages: the recipe's codes of source and target, as in ``en``.
        seed: of sampling; each source's samples depend on it and the source alone.
        force: begin anew.

    Returns:
        The stage's result. Its summary: ``sources``, ``pairs``, ``tokens``, ``seconds`` (of translation, over all
        workers), ``empty``, ``looped``, ``too_long`` (translations refused for it), ``source_too_long``, ``markers``
        (sources that do not fit the model, or spell one of its special tokens), ``reference`` and ``dropped`` (sources
        left without a translation), ``kept`` (sources of corpora that are not translated).

    Raises:
        TeacherError: the checkpoint, its tokenizer or a language code does not do, or the disk is too small or full.
        StageError: the folder belongs to something else, or the configuration changed since it was begun.
    """
    from mobilenmt.compression.teacher.fingerprint import fingerprint

    same = settings.same_text()
    inputs: dict[str, Path | str] = {
        "pairs": pairs,
        "checkpoint": fingerprint(settings.checkpoint),
        "languages": "-".join(languages),
        "seed": str(seed if settings.search == "sample" else 0),
    }
    done = False if force else check_stage(folder, name="teacher", settings=same, inputs=inputs)
    if not done and pairs.exists():
        # Before the folder remembers these settings: a mistake in them can then be mended without --force.
        from mobilenmt.compression.teacher.check import check_teacher

        check_teacher(settings, *languages)

    def work(stage: Path) -> Mapping[str, Any]:
        return _work(settings, pairs, stage, languages, seed)

    return run_stage(
        folder,
        name="teacher",
        settings=same,
        inputs=inputs,
        work=work,
        force=force,
        scratch=("shards", _MACHINE),
    )


def _work(
    settings: TeacherSettings, pairs: Path, folder: Path, languages: tuple[str, str], seed: int
) -> dict[str, Any]:
    from mobilenmt.compression.teacher.check import check_teacher
    from mobilenmt.compression.teacher.spec import TeacherSpec

    spec = TeacherSpec.of(settings, check_teacher(settings, *languages), languages[1], seed, _machine(settings, folder))
    every = settings.search == "nearest" or settings.tags != ("*",)
    plan = plan_shards(pairs, settings.shard_size, all_targets=every)
    if not plan.sources:
        raise TeacherError(f"{pairs}: no sentences in it; see the report of the corpus stage for what dropped them")
    store = ShardStore(folder / "shards", plan)
    pending = store.pending()
    if pending:
        _check_disk(pairs, folder, settings, len(pending) / plan.shards)
        if settings.engine == "ray":
            from mobilenmt.compression.teacher.ray_engine import translate_on_ray as translate
        else:
            from mobilenmt.compression.teacher.open import translate_here as translate
        store.fill(translate(spec, plan, pending), pending)
    return {**store.merge(folder / TEXT), **spec.described()}


def _machine(settings: TeacherSettings, folder: Path) -> dict[str, Any]:
    """Device, type and threads: found once, then kept, since rounding (so, rarely, a word) depends on them."""
    from mobilenmt.compression.core.stage import read_json_object
    from mobilenmt.compression.teacher.machine import find_machine

    path = folder / _MACHINE
    if path.exists() and (folder / "shards" / INDEX).exists():
        return read_json_object(path)
    found = find_machine(settings)
    write_json(path, found)
    return found


def _check_disk(pairs: Path, folder: Path, settings: TeacherSettings, share: float) -> None:
    """Refuse to begin what the disk cannot hold: shards and merged text are each about as large as the pairs."""
    entries = settings.n_best if settings.search in ("sample", "n_best") else 1
    needed = int(pairs.stat().st_size * (1 + entries) / 2 * (1 + share))
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise TeacherError(
            f"{folder}: the translations need about {needed / 1e6:,.0f} MB, the disk has {free / 1e6:,.0f} MB free; "
            "make room or take another work folder"
        )


def settings_of(context: Context) -> TeacherSettings:
    """Settings of the teacher step; without a checkpoint in the recipe it is the teacher trained there.

    Raises RecipeError if another one is to be quantized.
    """
    own = str(context.teacher_checkpoint.absolute())
    settings = context.section(TeacherSettings, **({"checkpoint": own} if context.trains_teacher else {}))
    if settings.quantize and settings.checkpoint != own:
        raise RecipeError(
            f"{context.recipe_name}: teacher.quantize: only for the teacher that [teacher_model] trains; export "
            "another one yourself and name its pack in teacher.checkpoint"
        )
    return settings


def as_it_teaches(context: Context, *, force: bool) -> TeacherSettings:
    """Those settings with the pack in place of the checkpoint, made now, if the teacher is to be quantized."""
    settings = settings_of(context)
    if not settings.quantize:
        return settings
    pack = context.quantized_teacher(force=force)
    return replace(settings, checkpoint=str(pack.absolute()), quantize=False)


def _check(context: Context, to_do: bool) -> str:
    settings = settings_of(context)
    own = settings.checkpoint == str(context.teacher_checkpoint.absolute())
    if to_do and not own:
        from mobilenmt.compression.teacher.check import check_teacher

        check_teacher(settings, *context.languages)
    name = f"the teacher trained here{', INT8' * settings.quantize}" if own else settings.checkpoint
    return f"{name}, {settings.search}{f' {settings.beams}' if settings.beams > 1 else ''}, engine {settings.engine}"


def _run(context: Context, force: bool) -> StageResult:
    if not context.teacher_translates:
        raise RecipeError(
            f"{context.recipe_name}: it has no [teacher], or distill.text is 'references'; "
            "the student learns from the references"
        )
    return run(
        as_it_teaches(context, force=force),
        pairs=context.pairs,
        folder=context.folder(STAGE.name),
        languages=context.languages,
        seed=context.seed,
        force=force,
    )


STAGE = Stage(
    name="teacher",
    settings=TeacherSettings,
    run=_run,
    check=_check,
    help="Translate the corpus with the teacher of a recipe, for the student to learn from.",
    example="beam_size=4",
    wanted=lambda context: context.teacher_translates,
    needs=("onnx", "sacrebleu", "torch", "transformers"),
)
