"""What a teacher is to the rest of this room: what it is opened from, and what it gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from mobilenmt.compression.teacher.settings import TeacherSettings


class Candidate(NamedTuple):
    """One translation of a source."""

    text: str
    tokens: int
    """Generated, the end token counted."""
    flaw: str = ""
    """``looped``, ``too_long`` (ran into its limit), ``source_too_long``, ``markers``; empty if there is none."""


class Teacher(Protocol):
    """What a family of teachers can do."""

    def translate(self, sources: Sequence[str]) -> list[list[Candidate]]:
        """Translate sources, best candidate first; each source's depend on it and the other sources alone."""
        ...


class Checked(NamedTuple):
    """What :func:`check_teacher` found."""

    family: str
    source_code: str
    target_code: str


@dataclass(frozen=True)
class TeacherSpec:
    """All that a worker needs to open the teacher, and to translate as any other worker would."""

    settings: TeacherSettings
    family: str
    source_code: str
    target_code: str
    target_language: str
    seed: int
    device: str
    dtype: str
    threads: int

    @classmethod
    def of(
        cls, settings: TeacherSettings, checked: Checked, target_language: str, seed: int, machine: Mapping[str, Any]
    ) -> TeacherSpec:
        """Join settings and what was found out."""
        return cls(settings, *checked, target_language, seed, machine["device"], machine["dtype"], machine["threads"])

    def described(self) -> dict[str, Any]:
        """What a summary says about it."""
        return {"family": self.family, "device": self.device, "dtype": self.dtype, "threads": self.threads}
