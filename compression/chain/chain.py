"""The chain of stages that a recipe describes: where each one's results lie, and how one is run."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobilenmt.compression.chain.recipe import Recipe
from mobilenmt.compression.core.errors import RecipeError
from mobilenmt.compression.core.stage import StageResult

if TYPE_CHECKING:
    from mobilenmt.compression.teacher.stage import TeacherSettings

STAGES = ("corpus", "vocabulary", "teacher_model", "teacher", "distill", "export", "evaluate")


class Chain:
    """A recipe and the work folder its stages lie in, one folder each, named as the stage.

    Args:
        recipe: what is to be made.
        work: the work folder; made when the first stage runs.
    """

    def __init__(self, recipe: Recipe, work: Path) -> None:
        self.recipe = recipe
        self.work = work

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages this recipe has, in their order."""
        absent = {
            "teacher_model": not self.recipe.has("teacher_model"),
            "teacher": not self.teacher_translates,
            "evaluate": not self.recipe.section("evaluate").files,
        }
        return tuple(stage for stage in STAGES if not absent.get(stage))

    @property
    def has_teacher(self) -> bool:
        """Whether the recipe has a teacher, or trains one."""
        return self.recipe.has("teacher") or self.recipe.has("teacher_model")

    @property
    def teacher_translates(self) -> bool:
        """Whether the student learns from the teacher's text, and not from the references."""
        return self.has_teacher and bool(self.distill.text == "teacher")

    def folder(self, stage: str) -> Path:
        """Where a stage's results lie."""
        return self.work / stage

    @property
    def pairs(self) -> Path:
        """The cleaned corpus."""
        return self.folder("corpus") / "pairs.tsv.zst"

    @property
    def text(self) -> Path:
        """What the student is trained on."""
        return self.folder("teacher") / "text.tsv.zst" if self.teacher_translates else self.pairs

    @property
    def teacher_checkpoint(self) -> Path:
        """The teacher that is trained here."""
        return self.folder("teacher_model") / "checkpoint"

    @property
    def pack(self) -> Path:
        """The pack that comes out."""
        return self.folder("export") / self.recipe.name

    @cached_property
    def teacher(self) -> TeacherSettings:
        """Settings of the teacher step; without a checkpoint in the recipe it is the teacher trained here."""
        recipe = self.recipe
        if recipe.has("teacher_model") and "checkpoint" not in recipe.sections.get("teacher", {}):
            own = str(self.teacher_checkpoint.absolute())
            sections = {**recipe.sections, "teacher": {**recipe.sections.get("teacher", {}), "checkpoint": own}}
            recipe = replace(recipe, sections=sections)
        settings: TeacherSettings = recipe.section("teacher")
        if settings.quantize and Path(settings.checkpoint) != self.teacher_checkpoint.absolute():
            raise RecipeError(
                f"{self.recipe.path.name}: teacher.quantize: only for the teacher that [teacher_model] trains; export "
                "another one yourself and name its pack in teacher.checkpoint"
            )
        return settings

    @cached_property
    def distill(self) -> Any:
        """Settings of the student's training; by default its teacher is the one trained here."""
        raw = self.recipe.sections.get("distill", {})
        recipe = self.recipe
        if self.recipe.has("teacher_model"):
            own = str(self.teacher_checkpoint.absolute())
            wanted = {"teacher": "word_level" in raw, "initial": raw.get("initial_layers") == "spread"}
            filled = {key: own for key, want in wanted.items() if want and key not in raw}
            recipe = replace(recipe, sections={**recipe.sections, "distill": {**raw, **filled}})
        return recipe.section("distill")

    def run(self, stage: str, *, force: bool = False) -> StageResult:
        """Run one stage, or find it done. Raises the stage's errors; StageError if one before it was not run."""
        self.work.mkdir(parents=True, exist_ok=True)
        runner: Callable[..., StageResult] = getattr(self, f"_run_{stage}")
        return runner(force=force)

    def told(self, result: StageResult) -> str:
        """One line about what a stage did."""
        return describe(result)

    # -- the stages -----------------------------------------------------------------------------------------------

    @property
    def _languages(self) -> dict[str, str]:
        return {"source_language": self.recipe.source_language, "target_language": self.recipe.target_language}

    def _run_corpus(self, *, force: bool) -> StageResult:
        from mobilenmt.compression.corpus import stage as corpus

        settings = self.recipe.section("corpus")
        return corpus.run(settings, self.folder("corpus"), **self._languages, seed=self.recipe.seed, force=force)

    def _run_vocabulary(self, *, force: bool) -> StageResult:
        from mobilenmt.compression.vocabulary import vocabulary

        return vocabulary.run(
            self.recipe.section("vocabulary"),
            self.folder("vocabulary"),
            pairs=self.pairs,
            **self._languages,
            weights=self.weights,
            seed=self.recipe.seed,
            force=force,
        )

    def _run_teacher_model(self, *, force: bool) -> StageResult:
        from mobilenmt.compression.train import stage as distill

        if not self.recipe.has("teacher_model"):
            raise RecipeError(f"{self.recipe.path.name}: it has no [teacher_model], so no teacher is trained")
        return distill.run_teacher_model(
            self.recipe.section("teacher_model"),
            self.folder("teacher_model"),
            pairs=self.pairs,
            vocabulary=self.folder("vocabulary"),
            weights=self.weights,
            augment=self.augment,
            seed=self.recipe.seed,
            force=force,
        )

    def _run_teacher(self, *, force: bool) -> StageResult:
        from mobilenmt.compression.teacher import stage as teacher

        if not self.teacher_translates:
            raise RecipeError(
                f"{self.recipe.path.name}: it has no [teacher], or distill.text is 'references'; "
                "the student learns from the references"
            )
        return teacher.run(
            self._as_it_teaches(force=force),
            pairs=self.pairs,
            folder=self.folder("teacher"),
            **self._languages,
            seed=self.recipe.seed,
            force=force,
        )

    def _run_distill(self, *, force: bool) -> StageResult:
        from mobilenmt.compression.train import stage as distill

        return distill.run(
            self.distill,
            self.folder("distill"),
            shape=self.recipe.section("student"),
            pairs=self.text,
            vocabulary=self.folder("vocabulary"),
            weights=self.weights,
            augment=self.augment,
            seed=self.recipe.seed,
            force=force,
        )

    def _run_export(self, *, force: bool) -> StageResult:
        from mobilenmt.compression.pack import stage as export_stage

        return export_stage.run(
            self.recipe.section("export"),
            self.folder("export"),
            checkpoint=self.folder("distill") / "checkpoint",
            name=self.recipe.name,
            **self._languages,
            pairs=self.text,
            weights=self.weights,
            training_data=self._training_data(),
            force=force,
        )

    def _run_evaluate(self, *, force: bool) -> StageResult:
        from mobilenmt.compression.evaluate import stage as evaluate_stage

        return evaluate_stage.run(
            self.recipe.section("evaluate"),
            self.folder("evaluate"),
            checkpoint=self.folder("distill") / "checkpoint",
            pack=self.pack,
            teacher=self._as_it_teaches(force=force) if self.has_teacher else None,
            **self._languages,
            force=force,
        )

    def _as_it_teaches(self, *, force: bool) -> TeacherSettings:
        """Settings of the teacher step, with its pack, made here, if it is to be quantized."""
        from mobilenmt.compression.pack import stage as export_stage
        from mobilenmt.compression.pack.stage import ExportSettings

        settings = self.teacher
        if not settings.quantize:
            return settings
        made = export_stage.run(
            ExportSettings(),
            self.folder("teacher_pack"),
            checkpoint=self.teacher_checkpoint,
            name=self.recipe.name,
            source_language=self.recipe.source_language,
            target_language=self.recipe.target_language,
            force=force,
        )
        return replace(settings, checkpoint=str(made.folder.absolute() / self.recipe.name), quantize=False)

    # -- settings that several stages share -----------------------------------------------------------------------

    @property
    def weights(self) -> Mapping[str, float]:
        """Weight of each corpus, by its tag."""
        found: Mapping[str, float] = self.recipe.section("corpus").weights
        return found

    @property
    def augment(self) -> Any:
        """Augmentation of the training text; None if the recipe has none."""
        return self.recipe.section("augment") if self.recipe.has("augment") else None

    def _training_data(self) -> dict[str, int]:
        """Corpus -> pairs kept, from the corpus's report."""
        try:
            report = json.loads((self.folder("corpus") / "report.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        tags = report.get("tags", {})
        return {str(tag): count for tag, count in tags.items() if isinstance(count, int)}


def describe(result: StageResult) -> str:
    """One line about what a stage did: its name, whether it was done before, and its summary's plain values."""
    figures = [
        f"{key.replace('_', ' ')} {value:,}"
        if isinstance(value, int) and not isinstance(value, bool)
        else f"{key} {value}"
        for key, value in result.summary.items()
        if isinstance(value, int | float | str) and not isinstance(value, bool) and value != ""
    ]
    when = "done before" if result.skipped else f"{result.seconds:.1f} s"
    return f"{result.name} ({when}): {', '.join(figures) or result.folder}"
