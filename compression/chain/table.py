"""The stages of a chain, in their order, and the sections of a recipe that are no stage of their own.

A new stage is a line here. The objects are looked up when they are asked for: reading a recipe imports no stage.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mobilenmt.compression.core.context import Stage

STAGES: dict[str, str] = {
    "corpus": "mobilenmt.compression.corpus.stage:STAGE",
    "vocabulary": "mobilenmt.compression.vocabulary.stage:STAGE",
    "teacher_model": "mobilenmt.compression.train.stage:TEACHER_MODEL",
    "teacher": "mobilenmt.compression.teacher.stage:STAGE",
    "prune": "mobilenmt.compression.prune.stage:STAGE",
    "distill": "mobilenmt.compression.train.stage:STAGE",
    "export": "mobilenmt.compression.pack.stage:STAGE",
    "evaluate": "mobilenmt.compression.evaluate.stage:STAGE",
}
"""Name -> where its :class:`~mobilenmt.compression.core.context.Stage` stands."""

SHARED_SECTIONS: dict[str, str] = {
    "augment": "mobilenmt.compression.dataset.augment:AugmentSettings",
    "student": "mobilenmt.compression.plan.settings:StudentSettings",
}
"""Sections that several stages read -> where their class stands."""


def sections() -> tuple[str, ...]:
    """Names of all sections a recipe may have."""
    return (*STAGES, *SHARED_SECTIONS)


def find_stage(name: str) -> Stage[Any]:
    """The stage of that name."""
    found: Stage[Any] = _load(STAGES[name])
    return found


def settings_class(section: str) -> type[Any]:
    """The dataclass of a section."""
    found: type[Any] = find_stage(section).settings if section in STAGES else _load(SHARED_SECTIONS[section])
    return found


def section_of(settings: type[Any]) -> str:
    """The section that a settings class describes."""
    return next(name for name in sections() if settings_class(name) is settings)


def _load(where: str) -> Any:
    module, _, attribute = where.partition(":")
    return getattr(import_module(module), attribute)
