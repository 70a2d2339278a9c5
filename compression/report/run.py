"""A run as a report sees it: what lies in a work folder, read as far as it goes. Nothing heavy is imported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mobilenmt.compression.evaluate.evaluation import SystemResult

Rows = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class StageState:
    """What became of a stage, and what it cost."""

    name: str
    state: Literal["done", "begun", "not begun"]
    summary: Mapping[str, Any]
    seconds: float | None = None
    memory: int | None = None
    """Most bytes that its process held."""
    memory_is_a_bound: bool = False
    """A stage before it, in the same process, had held that much already."""
    updates: int | None = None
    tokens: int | None = None
    """Target tokens trained on, or written by a teacher."""


@dataclass(frozen=True)
class Curve:
    """How a training went."""

    stage: str
    loss: Rows
    """Updates and cross-entropy, nats a token."""
    dev_loss: Rows
    """The same of the dev sets' references, where the training measured it."""
    dev: Mapping[str, Mapping[str, Rows]]
    """Dev set -> ``bleu``, ``chrf`` -> updates and score."""


@dataclass(frozen=True)
class Part:
    """A sublayer of the model that was pruned."""

    place: str
    """As in ``encoder.0.ffn``."""
    told: str
    """How much of it stayed, in words."""
    share: float
    """The same as a share of its channels or neurons, 0 to 1; 0 if the layer is gone."""
    importance: float | None
    """Share of the summed importance that stayed."""


@dataclass(frozen=True)
class PrunedModel:
    """What pruning did."""

    before: Mapping[str, Any]
    """Dimensions, ``vocabulary`` and ``parameters``."""
    after: Mapping[str, Any]
    parts: Sequence[Part]
    loss: tuple[float, float] | None
    """Nats a token on the calibration text, before and after."""
    importance: str
    """What said how much a unit matters."""


@dataclass(frozen=True)
class Test:
    """A test set that was evaluated on."""

    name: str
    lines: int
    words: int
    """Of the sources; sets of one name and one size are taken for the same."""


@dataclass(frozen=True)
class Evaluated:
    """What the evaluate stage found."""

    folder: Path
    tests: tuple[Test, ...]
    dev: tuple[Test, ...]
    """Those of them that the recipe calls dev sets."""
    systems: tuple[SystemResult, ...]
    processor: str
    threads: int
    signatures: Mapping[str, str]

    def system(self, name: str) -> SystemResult | None:
        """The system of that name."""
        return next((system for system in self.systems if system.name == name), None)


@dataclass(frozen=True)
class Planned:
    """The plan that the student's shape comes from."""

    size: int
    """Bytes that were asked for."""
    machine: str
    candidates: Sequence[Mapping[str, Any]]
    """``bytes``, ``seconds`` and more of each, the chosen one first."""


@dataclass(frozen=True)
class Run:
    """A work folder of ``mobilenmt compress``."""

    folder: Path
    name: str
    languages: tuple[str, str] | None
    stages: tuple[StageState, ...]
    curves: tuple[Curve, ...]
    pruned: PrunedModel | None
    evaluated: Evaluated | None
    planned: Planned | None
    missing: tuple[str, ...]
    """What a whole run has and this one lacks, a sentence each."""

    def stage(self, name: str) -> StageState | None:
        """The stage of that name; None if the run has none, or has not begun it."""
        found = next((stage for stage in self.stages if stage.name == name), None)
        return None if found is None or found.state == "not begun" else found
