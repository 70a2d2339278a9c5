"""The section [student] of a recipe: dimensions, or a budget that they are planned for. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from mobilenmt.compression.core.errors import PlanError, RecipeError
from mobilenmt.compression.core.settings import PATH_IF_THERE
from mobilenmt.compression.plan.units import parse_bytes, parse_seconds
from mobilenmt.compression.train.student import StudentShape


@dataclass(frozen=True)
class StudentSettings(StudentShape):
    """Dimensions of a Transformer (names as in transformers' ``MarianConfig``; embeddings are tied, all three), or a
    ``size`` that they are planned for: those that are given then stay, and the others are chosen."""

    size: str | int | None = None
    """Most bytes of the pack, all files, as in "10MB": dimensions that are not given are planned for it, and so is
    ``vocabulary.size``. The plan is made once and kept in the work folder."""
    latency: str | None = None
    """With ``size``: most time of a sentence of 30 tokens, greedy, one thread of the C core, as in "20ms"."""
    memory: str | int | None = None
    """With ``size``: most memory added to a process while it translates, as in "15MB"."""
    fit: str | None = field(default=None, metadata={PATH_IF_THERE: True})
    """With ``size``: prices of the machine that latency and memory are for: the JSON of ``mobilenmt plan --measure``,
    or the name of one that comes along."""

    def __post_init__(self) -> None:
        for name in ("latency", "memory", "fit"):
            if self.size is None and getattr(self, name) is not None:
                raise RecipeError(f'{name}: give a size, too, as in size = "10MB"')
        try:
            if self.size is not None:
                parse_bytes(str(self.size), "size")
            if self.latency is not None:
                parse_seconds(self.latency, "latency")
            if self.memory is not None:
                parse_bytes(str(self.memory), "memory")
        except PlanError as error:
            raise RecipeError(str(error)) from None
        if self.size is None:
            super().__post_init__()  # with a size, widths and heads that fit together are yet to be found

    def shape(self) -> StudentShape:
        """The dimensions, where there is nothing to plan."""
        return StudentShape(**{item.name: getattr(self, item.name) for item in fields(StudentShape)})

    def fixed(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The dimensions that stand in the recipe, ``given`` its keys; the others may be chosen."""
        found = {item.name: getattr(self, item.name) for item in fields(StudentShape) if item.name in given}
        for name, value in found.items():
            if isinstance(value, int) and value < 1:
                raise RecipeError(f"{name}: must be at least 1, found {value}")
        return found
