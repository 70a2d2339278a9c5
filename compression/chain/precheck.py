"""What can be known before a chain starts: mistakes that would show after hours, and how much room it takes."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mobilenmt.compression.chain.chain import Chain
from mobilenmt.compression.chain.estimate import count_parameters, estimate_pack_bytes
from mobilenmt.compression.core.errors import RecipeError, StageError
from mobilenmt.compression.core.stage import is_finished

if TYPE_CHECKING:
    from mobilenmt.compression.corpus.readers import Part

_STATES = 9
"""A run folder holds up to this many times the bytes of the weights: two generations of weights, two moments and an
average each, and the checkpoints."""
_EXPANSION = {".gz": 3.0, ".xz": 4.5, ".zst": 4.0, ".bz2": 4.5}
_PER_BYTE = {"corpus": 1.1, "teacher": 1.0, "dataset": 0.6}
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

    def text(self, chain: Chain) -> str:
        """The plan for a person."""
        recipe = chain.recipe
        width = max(map(len, self.stages))
        lines = [
            f"{recipe.name}: {recipe.source_language} to {recipe.target_language}, seed {recipe.seed}, in {chain.work}",
            *(f"  {stage:<{width}}  {self._state(stage):<6} {self.notes[stage]}" for stage in self.stages),
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
        StageError: the disk is too small.
    """
    recipe = chain.recipe
    for section in recipe.sections:
        if section not in ("teacher", "distill"):  # the chain completes these
            recipe.section(section)
    shape, vocabulary, export = recipe.section("student"), recipe.section("vocabulary"), recipe.section("export")
    done = tuple(stage for stage in stages if is_finished(chain.folder(stage)))
    to_do = [stage for stage in stages if stage not in done]
    notes: dict[str, str] = {}
    for stage in stages:
        notes[stage] = _CHECKS[stage](chain, stage in to_do)
    parameters = count_parameters(shape, vocabulary.size)
    tokenizer = chain.folder("vocabulary") / "tokenizer.json"
    pack_bytes = estimate_pack_bytes(
        shape,
        vocabulary.size,
        export.precision,
        shortlist=export.shortlist_for(vocabulary.size),
        tokenizer_bytes=tokenizer.stat().st_size if tokenizer.is_file() else None,
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
    return Plan(tuple(stages), done, notes, parameters, pack_bytes, disk, free, tuple(warnings))


def _check_corpus(chain: Chain, to_do: bool) -> str:
    from mobilenmt.compression.corpus.readers import check, expand

    settings = chain.recipe.section("corpus")
    parts = _parts(chain)
    if to_do:
        for part in parts:
            check(part)
        for path in settings.held_out:
            expand(path)
    size = sum(part.size for part in parts)
    return f"{len(parts)} files, {size / 1e6:,.1f} MB"


def _parts(chain: Chain) -> list[Part]:
    from mobilenmt.compression.corpus.readers import parts_of

    return [part for source in chain.recipe.section("corpus").sources for part in parts_of(source)]


def _check_vocabulary(chain: Chain, to_do: bool) -> str:
    settings = chain.recipe.section("vocabulary")
    return f"{settings.model}, {settings.size:,} pieces"


def _check_teacher_model(chain: Chain, to_do: bool) -> str:
    settings = chain.recipe.section("teacher_model")
    if to_do:
        _check_training(chain, "teacher_model")
    parameters = count_parameters(settings.shape, chain.recipe.section("vocabulary").size)
    return f"{parameters:,} parameters, {_length(settings)}"


def _check_teacher(chain: Chain, to_do: bool) -> str:
    settings = chain.teacher
    own = Path(settings.checkpoint) == chain.teacher_checkpoint.absolute()
    if to_do and not own:
        from mobilenmt.compression.teacher.open import check_teacher

        check_teacher(settings, chain.recipe.source_language, chain.recipe.target_language)
    name = f"the teacher trained here{', INT8' * settings.quantize}" if own else settings.checkpoint
    return f"{name}, {settings.search}{f' {settings.beams}' if settings.beams > 1 else ''}, engine {settings.engine}"


def _check_distill(chain: Chain, to_do: bool) -> str:
    settings = chain.distill
    if to_do:
        _check_training(chain, "distill")
    kind = "teacher's text" if chain.teacher_translates else "references"
    if settings.word_level:
        kind += f" and, by {settings.word_level:g}, its distributions"
    return f"{kind}, {_length(settings)}"


def _check_training(chain: Chain, stage: str) -> None:
    from mobilenmt.compression.train.devset import read_dev_sets
    from mobilenmt.compression.train.train import check_lengths

    settings = chain.distill if stage == "distill" else chain.recipe.section("teacher_model")
    shape = chain.recipe.section("student") if stage == "distill" else settings.shape
    check_lengths(settings, shape)
    read_dev_sets(settings.dev, settings.dev_lines)
    for key in ("initial", "teacher"):
        path = getattr(settings, key, None)
        if path is not None and path != chain.teacher_checkpoint.absolute() and not (path / "config.json").is_file():
            raise RecipeError(f"{chain.recipe.path.name}: {stage}.{key}: {path} is no checkpoint folder")


def _check_export(chain: Chain, to_do: bool) -> str:
    from mobilenmt.compression.pack.stage import read_card

    settings = chain.recipe.section("export")
    if to_do:
        read_card(settings.card)
    return f"{settings.precision}, {chain.pack}"


def _check_evaluate(chain: Chain, to_do: bool) -> str:
    from mobilenmt.compression.evaluate.scoring import Scorer, assign_peers, read_test_sets

    settings = chain.recipe.section("evaluate")
    if to_do:
        tests = read_test_sets(settings.files, lines=settings.lines, reverse=settings.reverse)
        assign_peers(settings.peers, tests)
        Scorer(chain.recipe.target_language)
    return f"{len(settings.dev)} dev and {len(settings.test)} test sets, {len(settings.peers)} peers"


_CHECKS = {
    "corpus": _check_corpus,
    "vocabulary": _check_vocabulary,
    "teacher_model": _check_teacher_model,
    "teacher": _check_teacher,
    "distill": _check_distill,
    "export": _check_export,
    "evaluate": _check_evaluate,
}


def _length(settings: object) -> str:
    steps, epochs = getattr(settings, "steps", None), getattr(settings, "epochs", None)
    told = [f"{value:,} {name}" for value, name in ((steps, "updates"), (epochs, "epochs")) if value]
    return f"at most {' or '.join(told)}" if told else "20 epochs"


def _disk(chain: Chain, to_do: Sequence[str], parameters: int, pack_bytes: int) -> int:
    text = sum(
        path.stat().st_size * _EXPANSION.get(path.suffix, 1.0)
        for part in _parts(chain)
        for path in part.paths
        if path.is_file()
    )
    needed = 0.0
    if "corpus" in to_do:
        needed += _PER_BYTE["corpus"] * text
    if "teacher" in to_do:
        needed += _PER_BYTE["teacher"] * text * chain.teacher.n_best
    for stage in ("teacher_model", "distill"):
        if stage in to_do:
            own = parameters
            if stage == "teacher_model":
                shape = chain.recipe.section("teacher_model").shape
                own = count_parameters(shape, chain.recipe.section("vocabulary").size)
            needed += _PER_BYTE["dataset"] * text + _STATES * 4 * own
    if "export" in to_do:
        needed += 2 * pack_bytes
    return int(needed)


def _free(folder: Path) -> int:
    """Free bytes of the disk that a folder, made or not, is on."""
    there = folder.absolute()
    while not there.exists():
        there = there.parent
    return shutil.disk_usage(there).free
