"""The chain of stages that a recipe describes: where each one's results lie, and how one is run."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar, cast

from mobilenmt.compression.chain.recipe import Recipe
from mobilenmt.compression.chain.table import STAGES, find_stage, section_of
from mobilenmt.compression.core.pack_forms import PackForms
from mobilenmt.compression.core.stage import StageResult
from mobilenmt.compression.pack.stage import ExportSettings
from mobilenmt.compression.plan.resolve import Planned, RecipePlan
from mobilenmt.compression.plan.settings import StudentSettings
from mobilenmt.compression.plan.units import parse_bytes
from mobilenmt.compression.prune.stage import shape_before
from mobilenmt.compression.train.student import StudentShape
from mobilenmt.compression.vocabulary.stage import VocabularySettings
from mobilenmt.export.quantize.settings import Quantization

S = TypeVar("S")
UP_TO_THE_TEACHER = ("corpus", "vocabulary", "teacher_model", "teacher", "teacher_pack")
"""Folders that students of several sizes can have in common."""


class Chain:
    """A recipe and the work folder its stages lie in, one folder each, named as the stage.

    It is the :class:`~mobilenmt.compression.core.context.Context` of its stages.

    Args:
        recipe: what is to be made.
        work: the work folder; made when the first stage runs.
        common: a work folder that stages up to the teacher lie in; by default they lie in ``work`` as all others.
    """

    def __init__(self, recipe: Recipe, work: Path, common: Path | None = None) -> None:
        self.recipe = recipe
        self.work = work
        self.common = common

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages this recipe has, in their order."""
        return tuple(name for name in STAGES if find_stage(name).wanted(self))

    def run(self, stage: str, *, force: bool = False) -> StageResult:
        """Run one stage, or find it done. Raises the stage's errors; StageError if one before it was not run."""
        self.work.mkdir(parents=True, exist_ok=True)
        self.keep_plan(force=force)
        return find_stage(stage).run(self, force)

    def keep_plan(self, *, force: bool = False) -> StageResult | None:
        """Plan the student, or find it planned, if the recipe gives it a size; None if not.

        Raises PlanError if no shape fits, StageError if the plan is one of other settings, and not ``force``.
        """
        if self._plan is None:
            return None
        kept = self._plan.keep(self.work, force=force)
        self.__dict__.pop("_planned", None)
        return kept

    def told(self, result: StageResult) -> str:
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

    # -- the recipe, as stages see it -----------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """Of the pack that comes out."""
        return self.recipe.name

    @property
    def languages(self) -> tuple[str, str]:
        """Codes of source and target language."""
        return self.recipe.source_language, self.recipe.target_language

    @property
    def seed(self) -> int:
        """The recipe's."""
        return self.recipe.seed

    @property
    def recipe_name(self) -> str:
        """File name of the recipe, for messages."""
        return self.recipe.path.name

    def has(self, settings: type[Any]) -> bool:
        """Whether the recipe has the section of this settings class."""
        return self.recipe.has(section_of(settings))

    def given(self, settings: type[Any]) -> Mapping[str, Any]:
        """The keys of that section as they stand in the recipe."""
        return self.recipe.sections.get(section_of(settings), {})

    def section(self, settings: type[S], **defaults: Any) -> S:
        """That section, checked; ``defaults`` stand in for keys that the recipe lacks. Raises RecipeError.

        ``StudentShape`` is the student's, planned if the recipe gives it a size; the vocabulary is as large as planned
        if the recipe does not say.
        """
        if settings is StudentShape:
            planned = self._planned
            return cast(S, planned.shape if planned else self.recipe.section(StudentSettings).shape())
        if settings is VocabularySettings and self._plan is not None and self._plan.vocabulary is None:
            defaults = {"size": self._planned.vocabulary if self._planned else None, **defaults}
        return self.recipe.section(settings, **defaults)

    @property
    def most_bytes(self) -> int | None:
        """What the pack may take: ``export.max_bytes``, or the size of the student; None where neither is given."""
        most, size = self.recipe.section(ExportSettings).max_bytes, self.recipe.section(StudentSettings).size
        return parse_bytes(str(size)) if most is None and size is not None else most

    @cached_property
    def _plan(self) -> RecipePlan | None:
        """What is to be planned; None where the recipe gives dimensions."""
        student = self.recipe.section(StudentSettings)
        if student.size is None:
            return None
        vocabulary = self.recipe.sections.get("vocabulary", {})
        told = self.recipe.section(VocabularySettings).size if {"size", "initial"} & set(vocabulary) else None
        given = self.recipe.sections.get("student", {})
        inside = shape_before(self) if self.prunes else None
        return RecipePlan(student, given, self.recipe.section(ExportSettings), told, inside)

    @cached_property
    def _planned(self) -> Planned | None:
        return None if self._plan is None else self._plan.find(self.work)

    @property
    def trains_teacher(self) -> bool:
        """Whether the recipe trains a teacher."""
        return self.recipe.has("teacher_model")

    @property
    def has_teacher(self) -> bool:
        """Whether the recipe has a teacher, or trains one."""
        return self.recipe.has("teacher") or self.trains_teacher

    @property
    def prunes(self) -> bool:
        """Whether the student starts from a pruned model."""
        return self.recipe.has("prune")

    @property
    def teacher_translates(self) -> bool:
        """Whether the student learns from the teacher's text, and not from the references."""
        from mobilenmt.compression.train.stage import distill_settings

        return self.has_teacher and distill_settings(self).text == "teacher"

    @property
    def weights(self) -> Mapping[str, float]:
        """Weight of each corpus, by its tag."""
        from mobilenmt.compression.corpus.stage import CorpusSettings

        return self.section(CorpusSettings).weights

    # -- what stages leave for one another ------------------------------------------------------------------------

    def folder(self, stage: str) -> Path:
        """Where a stage's results lie."""
        if self.common is not None and stage in UP_TO_THE_TEACHER:
            return self.common / stage
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
    def pruned_checkpoint(self) -> Path:
        """The pruned model that the student starts from."""
        return self.folder("prune") / "checkpoint"

    @property
    def pack(self) -> Path:
        """The pack that comes out."""
        return self.folder("export") / self.name

    @property
    def pack_forms(self) -> PackForms:
        """How it will store its matrices."""
        export = self.section(ExportSettings)
        quantization = export.quantization if export.precision == "int8" else Quantization(form="fp32")
        return PackForms(quantization, export.shortlist_for(self.section(VocabularySettings).size) is not None)

    def quantized_teacher(self, *, force: bool) -> Path:
        """An INT8 pack of the teacher that was trained here, made if need be."""
        from mobilenmt.compression.pack import stage as pack

        made = pack.run(
            pack.ExportSettings(),
            self.folder("teacher_pack"),
            checkpoint=self.teacher_checkpoint,
            name=self.name,
            languages=self.languages,
            force=force,
        )
        return made.folder / self.name
