"""What can be known before a chain starts: mistakes that would show after hours, and how much room it takes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mobilenmt.compression.chain.chain import Chain
from mobilenmt.compression.chain.table import find_stage
from mobilenmt.compression.core.errors import StageError
from mobilenmt.compression.core.stage import is_finished
from mobilenmt.compression.corpus.stage import CorpusSettings, parts_of_all
from mobilenmt.compression.pack.estimate import estimate_pack_bytes
from mobilenmt.compression.pack.stage import ExportSettings
from mobilenmt.compression.plan.search import describe
from mobilenmt.compression.plan.settings import StudentSettings
from mobilenmt.compression.teacher.stage import settings_of
from mobilenmt.compression.train.settings import TeacherModelSettings
from mobilenmt.compression.train.size import count_parameters
from mobilenmt.compression.train.student import StudentShape
from mobilenmt.compression.vocabulary.stage import VocabularySettings

_STATES = 9
"""A run folder holds up to this many times the bytes of the weights: two generations of weights, two moments and an
average each, and the checkpoints."""
_EXPANSION = {".gz": 3.0, ".xz": 4.5, ".zst": 4.0, ".bz2": 4.5}
_PER_BYTE = {"corpus": 1.1, "teacher": 1.0, "dataset": 1.2}
"""Bytes a stage writes for each byte of plain text, its temporary files included."""


@dataclass(frozen=True)
class Plan:
    """What a chain is going to do."""

    stages: tuple[str, ...]
    done: tuple[str, ...]
    """Stages that have finished in this work folder, if nothing they depend on has changed."""
    notes: dict[str, str]
    """Stage -> a few words on it."""
    parameters: int
    pack_bytes: int
    disk_bytes: int
    """A rough estimate of what the stages that are not done will write."""
    free_bytes: int
    warnings: tuple[str, ...]
    planned: str = ""
    """What a size of the student became, in a few words."""

    def text(self, chain: Chain) -> str:
        """The plan for a person."""
        recipe = chain.recipe
        width = max(map(len, self.stages))
        lines = [
            f"{recipe.name}: {recipe.source_language} to {recipe.target_language}, seed {recipe.seed}, in {chain.work}",
            *(f"  {stage:<{width}}  {self._state(stage):<6} {self.notes[stage]}" for stage in self.stages),
            *([f"plan: {self.planned}"] if self.planned else []),
            f"student: {self.parameters:,} parameters; pack: about {self.pack_bytes:,} bytes",
            f"disk: about {self.disk_bytes / 1e9:.2f} GB to write, {self.free_bytes / 1e9:.1f} GB free",
        ]
        return "\n".join((*lines, *(f"warning: {warning}" for warning in self.warnings)))

    def _state(self, stage: str) -> str:
        return "done" if stage in self.done else "to do"


def check_chain(chain: Chain, stages: Sequence[str]) -> Plan:
    """Check all that takes seconds, for these stages.

    Raises:
        RecipeError: a setting is wrong, or two settings do not fit together.
        CorpusError, TeacherError, TrainingError, EvaluationError: a file or a model is missing or will not do.
        StageError: the disk is too small, or the work folder cannot be made.
    """
    recipe = chain.recipe
    for section in recipe.sections:
        if section not in ("teacher", "distill"):  # their stages complete these
            recipe.check(section)
    shape, vocabulary = chain.section(StudentShape), chain.section(VocabularySettings)
    export = recipe.section(ExportSettings)
    done = tuple(stage for stage in stages if is_finished(chain.folder(stage)))
    to_do = [stage for stage in stages if stage not in done]
    notes: dict[str, str] = {}
    for stage in stages:
        notes[stage] = find_stage(stage).check(chain, stage in to_do)
    parameters = count_parameters(shape, vocabulary.size)
    tokenizer = chain.folder("vocabulary") / "tokenizer.json"
    pack_bytes = estimate_pack_bytes(
        shape,
        vocabulary.size,
        export.precision,
        shortlist=export.shortlist_for(vocabulary.size),
        tokenizer_bytes=tokenizer.stat().st_size if tokenizer.is_file() else None,
        quantization=export.quantization,
    )
    warnings = []
    if export.max_bytes is not None and pack_bytes > export.max_bytes:
        warnings.append(
            f"the pack will take about {pack_bytes:,} bytes, export.max_bytes is {export.max_bytes:,}: make the "
            "student narrower or shallower, or its vocabulary smaller"
        )
    disk = _disk(chain, to_do, parameters, pack_bytes)
    free = _free(chain.work)
    if free < disk:
        raise StageError(
            f"{chain.work}: the chain needs about {disk / 1e9:.2f} GB of room, the disk has {free / 1e9:.2f} GB; "
            "make room, or take another work folder"
        )
    planned = _planned(chain, shape)
    return Plan(tuple(stages), done, notes, parameters, pack_bytes, disk, free, tuple(warnings), planned)


def _planned(chain: Chain, shape: StudentShape) -> str:
    student = chain.recipe.section(StudentSettings)
    if student.size is None:
        return ""
    limits = [f"{value}" for value in (student.size, student.latency, student.memory) if value is not None]
    return f"{describe(shape, chain.section(VocabularySettings).size)}, for {', '.join(limits)}"


def _disk(chain: Chain, to_do: Sequence[str], parameters: int, pack_bytes: int) -> int:
    text = sum(
        path.stat().st_size * _EXPANSION.get(path.suffix, 1.0)
        for part in parts_of_all(chain.section(CorpusSettings))
        for path in part.paths
        if path.is_file()
    )
    needed = 0.0
    if "corpus" in to_do:
        needed += _PER_BYTE["corpus"] * text
    if "teacher" in to_do:
        needed += _PER_BYTE["teacher"] * text * settings_of(chain).n_best
    for stage in ("teacher_model", "distill"):
        if stage in to_do:
            own = parameters
            if stage == "teacher_model":
                shape = chain.section(TeacherModelSettings).shape
                own = count_parameters(shape, chain.section(VocabularySettings).size)
            needed += _PER_BYTE["dataset"] * text + _STATES * 4 * own
    if "prune" in to_do:
        needed += 2 * 4 * parameters
    if "export" in to_do:
        needed += 2 * pack_bytes
    return int(needed)


def _free(folder: Path) -> int:
    """Free bytes of the disk that a folder, made or not, is on; StageError if it cannot be made."""
    there = folder.absolute()
    while not os.path.lexists(there):
        there = there.parent
    if not there.is_dir():
        raise StageError(f"{folder}: no work folder can be here: {there} is no folder; take another one")
    return shutil.disk_usage(there).free
