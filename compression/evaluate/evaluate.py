"""Evaluate packs and checkpoints: BLEU and chrF on test sets, speed, size and memory, with peers' outputs scored along.

A pack is translated by the runtime, in a process of its own. A Marian checkpoint is exported to an fp32 pack first: on
one processor thread that is as fast as ``generate`` in torch on batches sorted by length, and the length limits and the
guard against loops are those of the INT8 pack, so that the difference of the two is the quantization's alone. Any other
checkpoint goes through the teacher's reader, in torch.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from mobilenmt.compression.core.errors import EvaluationError, RecipeError
from mobilenmt.compression.core.scoring import Scorer
from mobilenmt.compression.evaluate.evaluation import Evaluation, SystemResult
from mobilenmt.compression.evaluate.scoring import TestSet, assign_peers, read_test_sets
from mobilenmt.compression.evaluate.worker import translate_lines

if TYPE_CHECKING:
    from mobilenmt.compression.teacher.settings import TeacherSettings
    from mobilenmt.runtime.pack import Pack


@dataclass(frozen=True)
class EvaluateSettings:
    """What is evaluated on, and how."""

    dev: tuple[Path, ...] = ()
    """TSV files that may be looked at while tuning: source, tab, reference."""
    test: tuple[Path, ...] = ()
    """TSV files for final scores alone."""
    reverse: bool = False
    """The files have the reference first."""
    lines: int | None = None
    """Take this many lines of each file, the first ones."""
    beam: int | None = None
    """Hypotheses kept by beam search, 1 for greedy; by default what the pack says."""
    threads: int = 1
    """Sentences translated at once, 0 for one a core."""
    teacher: bool = True
    """In a chain, evaluate the teacher too, and what pruning left of it before the student was trained."""
    peers: dict[str, tuple[Path, ...]] = field(default_factory=dict)
    """Other systems' outputs, one line a sentence: name -> one file for each test set."""

    def __post_init__(self) -> None:
        if self.lines is not None and self.lines < 1:
            raise RecipeError(f"lines: expected at least 1, found {self.lines}")
        if self.beam is not None and self.beam < 1:
            raise RecipeError(f"beam: expected at least 1, found {self.beam}")
        if self.threads < 0:
            raise RecipeError(f"threads: expected 0 or more, found {self.threads}")

    @property
    def files(self) -> tuple[Path, ...]:
        """Dev and test files."""
        return (*self.dev, *self.test)


def evaluate(
    models: Mapping[str, str | Path | TeacherSettings],
    settings: EvaluateSettings,
    *,
    source_language: str | None = None,
    target_language: str | None = None,
) -> Evaluation:
    """Translate every test set with every model, and score it, peers' outputs too.

    Args:
        models: name to show -> a pack (path or name), a checkpoint folder, or a teacher, which runs as it teaches.
        settings: test sets, beam, threads, peers.
        source_language: for a checkpoint that must be told; by default what the first pack says.
        target_language: likewise; it also chooses sacrebleu's tokenizer.

    Raises:
        EvaluationError: a test set or a peer's output cannot be used, or a model cannot translate.
        PackError, CheckpointError: a model is damaged or missing.
    """
    tests = read_test_sets(settings.files, lines=settings.lines, reverse=settings.reverse)
    if not tests:
        raise EvaluationError("no test sets were given")
    peers = assign_peers(settings.peers, tests)
    for name in peers:
        if name in models:
            raise EvaluationError(f"{name}: a peer and a model are called so; rename one")
    opened = {
        name: find_model(model) if isinstance(model, str | Path) else Model(Path(model.checkpoint), None, model)
        for name, model in models.items()
    }
    languages = _languages(opened, source_language, target_language)
    scorer = Scorer(languages[1])
    systems: list[SystemResult] = []
    outputs: dict[str, dict[str, Sequence[str]]] = {}
    for name, model in opened.items():
        result, found = _run_model(name, model, tests, settings, languages, scorer)
        systems.append(result)
        outputs[name] = found
    for name, found_by_test in peers.items():
        scores = {
            test.name: scorer.score(found_by_test[test.name], test.references)
            for test in tests
            if test.name in found_by_test
        }
        systems.append(SystemResult(name=name, kind="peer", scores=scores))
    return Evaluation(tuple(tests), tuple(systems), scorer.signatures(), outputs, settings.beam, settings.threads)


@dataclass(frozen=True)
class Model:
    """A model found on the disk."""

    path: Path
    pack: Pack | None
    """The opened pack; None if it is a checkpoint."""
    teacher: TeacherSettings | None = None
    """How to run it, if it is to be run as a teacher."""

    @property
    def needs_torch(self) -> bool:
        """Whether it takes more than the runtime to evaluate it."""
        return self.pack is None


def find_model(model: str | Path) -> Model:
    """Tell a checkpoint folder from a pack, and open a pack.

    Raises PackError (PackNotFoundError if there is neither).
    """
    from mobilenmt.runtime.pack import Pack

    path = Path(model)
    if (path / "config.json").is_file() and not (path / "pack.json").is_file():
        return Model(path, None)
    pack = Pack.open(model, verify=True)
    return Model(pack.path, pack)


def files_bytes(path: Path) -> int | None:
    """Bytes of a file, or of all files of a folder; None if it is neither."""
    if path.is_file():
        return path.stat().st_size
    return sum(item.stat().st_size for item in path.rglob("*") if item.is_file()) if path.is_dir() else None


def _run_model(
    name: str,
    model: Model,
    tests: Sequence[TestSet],
    settings: EvaluateSettings,
    languages: tuple[str | None, str | None],
    scorer: Scorer,
) -> tuple[SystemResult, dict[str, Sequence[str]]]:
    texts = {test.name: test.sources for test in tests}
    sentences = sum(map(len, texts.values()))
    pack = model.pack
    runner: Path | TeacherSettings | None = model.teacher
    with tempfile.TemporaryDirectory(prefix="mobilenmt-") as folder, _Progress(name, sentences) as progress:
        if runner is None and pack is None:
            if _is_marian(model.path):
                pack = _export_fp32(model.path, Path(folder) / "fp32")
            else:
                runner = _as_teacher(model.path, settings, languages)
        found = translate_lines(
            runner or cast("Pack", pack).path,
            texts,
            beam=settings.beam,
            threads=settings.threads,
            languages=(languages[0] or "", languages[1] or ""),
            progress=progress.update,
        )
    seconds = sum(found.seconds.values())
    manifest = None if pack is None else pack.manifest
    result = SystemResult(
        name=name,
        kind="teacher" if model.teacher else "checkpoint" if model.pack is None else "pack",
        scores={test.name: scorer.score(found.outputs[test.name], test.references) for test in tests},
        path=str(model.path),
        precision=None if manifest is None else manifest.precision,
        parameters=None if manifest is None else manifest.model.parameters,
        bytes=files_bytes(model.path),
        sentences_per_second=round(sentences / seconds, 2),
        words_per_second=round(sum(test.words for test in tests) / seconds, 1),
        load_seconds=round(found.load_seconds, 3),
        peak_memory_bytes=found.peak_bytes,
        added_memory_bytes=found.added_bytes,
    )
    return result, dict(found.outputs)


def _as_teacher(
    checkpoint: Path, settings: EvaluateSettings, languages: tuple[str | None, str | None]
) -> TeacherSettings:
    """How a checkpoint of another architecture than Marian is run."""
    from mobilenmt.compression.teacher.settings import TeacherSettings
    from mobilenmt.export.checkpoint import read_json

    if None in languages:
        raise EvaluationError(f"{checkpoint}: say what it translates: --source-language and --target-language")
    file = checkpoint / "generation_config.json"
    beams = settings.beam or (read_json(file, "").get("num_beams") if file.is_file() else None) or 1
    return TeacherSettings(
        checkpoint=str(checkpoint),
        search="beam" if beams > 1 else "greedy",
        beam_size=beams,
        threads=settings.threads,
    )


def _export_fp32(checkpoint: Path, out: Path) -> Pack:
    from mobilenmt.export.export import export

    return export(checkpoint, out, precision="fp32")


def _is_marian(checkpoint: Path) -> bool:
    from mobilenmt.export.checkpoint import read_json

    return bool(read_json(checkpoint / "config.json", "").get("model_type") == "marian")


def _languages(models: Mapping[str, Model], source: str | None, target: str | None) -> tuple[str | None, str | None]:
    for model in models.values():
        if model.pack is not None:
            source = source or model.pack.manifest.source_language
            target = target or model.pack.manifest.target_language
    return source, target


class _Progress:
    """A bar of sentences on stderr, if a person looks at it."""

    def __init__(self, name: str, total: int) -> None:
        from tqdm import tqdm

        self._bar: Any = tqdm(total=total, desc=name, unit="sentence", disable=not sys.stderr.isatty(), leave=False)

    def __enter__(self) -> Any:
        return self._bar

    def __exit__(self, *error: object) -> None:
        self._bar.close()
