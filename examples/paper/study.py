"""Settings of the study: paper.toml and a file for each configuration."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from mobilenmt.compression.core.errors import RecipeError
from mobilenmt.compression.core.settings import from_mapping
from mobilenmt.compression.corpus.stage import CorpusSettings
from mobilenmt.compression.teacher.settings import TeacherSettings
from mobilenmt.compression.train.settings import TrainSettings
from mobilenmt.compression.train.student import StudentShape
from variants import Variant, count

HERE = Path(__file__).resolve().parent
SAME_BYTES = 0.02
"""Configurations that are compared may differ in bytes by this share."""


@dataclass(frozen=True)
class Configuration:
    """One kind of model, trained once for each seed."""

    title: str
    """In tables."""
    vocabulary: int
    """Pieces."""
    shape: StudentShape
    variant: Variant = field(default_factory=Variant)
    """What is unlike the student's model."""
    text: Literal["references", "teacher"] = "references"
    """What it learns to write."""
    dropout: float = 0.0

    @property
    def parameters(self) -> int:
        """Trained weights, which are its bytes in INT8."""
        return count(self.shape, self.vocabulary, self.variant)


@dataclass(frozen=True)
class Comparison:
    """A finding of the paper: one configuration is better than another one."""

    principle: int
    """Of the paper, 1 to 4."""
    finding: str
    """In its words."""
    better: str
    """Name of the configuration that the paper would have ahead."""
    worse: str


@dataclass(frozen=True)
class Study:
    """The whole of it."""

    corpus: CorpusSettings
    share: dict[str, float]
    """Share of the pairs that are taken, by tag."""
    teacher: TeacherSettings
    training: TrainSettings
    dev: tuple[Path, ...]
    comparisons: tuple[Comparison, ...]
    counted_in: int
    """Pieces of the vocabulary whose tokens ``training.batch_tokens`` counts. Updates of other vocabularies, and of the
    teacher's text, are so long that they hold as many sentences: a large vocabulary would read more text otherwise."""
    languages: tuple[str, str] = ("en", "de")
    configurations: dict[str, Configuration] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.training.steps is None:
            raise RecipeError("training: steps is missing; all configurations are compared after as many updates")
        for item in self.comparisons:
            for name in (item.better, item.worse):
                if name not in self.configurations:
                    known = ", ".join(self.configurations)
                    raise RecipeError(f"comparisons: no configuration is called {name!r}; known: {known}")
            one, other = (self.configurations[name].parameters for name in (item.better, item.worse))
            if abs(one - other) > SAME_BYTES * max(one, other):
                raise RecipeError(
                    f"comparisons: {item.better} has {one:,} bytes, {item.worse} {other:,}: more than "
                    f"{SAME_BYTES:.0%} apart, so neither's shape would be what is compared"
                )


def load_study(data: Path, *, file: Path = HERE / "paper.toml", changes: Mapping[str, Any] | None = None) -> Study:
    """Read paper.toml and the configurations beside it.

    Args:
        data: folder of the text, which the paths in the file start from.
        file: the study; its configurations lie in ``configurations`` beside it.
        changes: settings of training that are other than in the file.

    Raises RecipeError if a file is missing or a setting is wrong.
    """
    raw = _read(file)
    raw["training"] = {**raw.get("training", {}), **(changes or {})}
    raw["configurations"] = {path.stem: _read(path) for path in sorted((file.parent / "configurations").glob("*.toml"))}
    teacher = raw.get("teacher", {})
    if isinstance(teacher, dict) and isinstance(teacher.get("checkpoint"), str):
        teacher["checkpoint"] = str(file.parent / teacher["checkpoint"])
    return from_mapping(Study, raw, f"{file.name}:", base=data.absolute())


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        raise RecipeError(f"{path}: no TOML: {error}") from None
