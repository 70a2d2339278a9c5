"""What a stage of the chain is, and what it sees of the chain it belongs to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from mobilenmt.compression.core.pack_forms import PackForms
from mobilenmt.compression.core.stage import StageResult

S = TypeVar("S")


class Context(Protocol):
    """The chain, as its stages see it: the recipe's facts, its sections, and where results lie.

    A room does not import the rooms that come after it, so what one stage leaves for another is named here.
    """

    @property
    def name(self) -> str:
        """Of the pack that comes out."""

    @property
    def languages(self) -> tuple[str, str]:
        """Codes of source and target language."""

    @property
    def seed(self) -> int:
        """Everything random is derived from it."""

    @property
    def recipe_name(self) -> str:
        """File name of the recipe, for messages."""

    def has(self, settings: type[Any]) -> bool:
        """Whether the recipe has the section of this settings class."""

    def given(self, settings: type[Any]) -> Mapping[str, Any]:
        """The keys of that section as they stand in the recipe."""

    def section(self, settings: type[S], **defaults: Any) -> S:
        """That section, checked; ``defaults`` stand in for keys that the recipe lacks. Raises RecipeError."""

    def folder(self, stage: str) -> Path:
        """Where a stage's results lie."""

    @property
    def pairs(self) -> Path:
        """The cleaned corpus."""

    @property
    def text(self) -> Path:
        """What the student is trained on: the teacher's text, or the corpus."""

    @property
    def weights(self) -> Mapping[str, float]:
        """Weight of each corpus, by its tag."""

    @property
    def teacher_checkpoint(self) -> Path:
        """The teacher that is trained in this chain, if one is."""

    @property
    def trains_teacher(self) -> bool:
        """Whether the recipe trains a teacher."""

    @property
    def has_teacher(self) -> bool:
        """Whether the recipe names a teacher, or trains one."""

    @property
    def prunes(self) -> bool:
        """Whether the student starts from a pruned model."""

    @property
    def pruned_checkpoint(self) -> Path:
        """That model, if the recipe has one."""

    @property
    def teacher_translates(self) -> bool:
        """Whether the student learns from the teacher's text."""

    def quantized_teacher(self, *, force: bool) -> Path:
        """An INT8 pack of the teacher that was trained here, made if need be."""

    @property
    def pack(self) -> Path:
        """The pack that comes out."""

    @property
    def pack_forms(self) -> PackForms:
        """How it will store its matrices."""


EVERY_STAGE_NEEDS = ("filelock", "tqdm", "xopen", "zstandard")
"""Modules that reading text and writing a stage's folder take."""


def always(context: Context) -> bool:
    """A stage that every recipe has."""
    return True


@dataclass(frozen=True)
class Stage(Generic[S]):
    """One stage of the chain. A room's ``stage.py`` makes one, ``chain/table.py`` names it, and nothing else is needed:
    the recipe's section, the command, ``--until``, the dry run and the settings page come from it."""

    name: str
    """Of its section in a recipe, of its folder, and of its command."""
    settings: type[S]
    """The section's dataclass."""
    run: Callable[[Context, bool], StageResult]
    """Makes the results, or finds them made; the flag begins anew."""
    check: Callable[[Context, bool], str]
    """Finds out in seconds what would stop the stage, if it is still to do (the flag); returns a few words for the dry
    run."""
    help: str
    """What its command does, one sentence and, behind a blank line, more."""
    example: str = ""
    """A setting of its section, for the help of ``--set``, as in ``max_ratio=2.0``."""
    wanted: Callable[[Context], bool] = always
    """Whether a recipe has this stage."""
    needs: tuple[str, ...] = ()
    """Modules of the extra ``compress`` that it imports besides ``EVERY_STAGE_NEEDS``: its command names those that are
    missing before it begins."""
