"""The corpus stage: parallel text from many files, cleaned, deduplicated, held-out sentences left out.

One pass reads, judges and writes what is left to a scratch file, with a hash of each pair; a second one leaves out the
pairs that came before. Memory grows by a hash a pair (8 bytes, 24 while they are sorted) and by nothing else.

The folder: ``pairs.tsv.zst`` (:mod:`mobilenmt.compression.core.pairs`), ``report.json``, ``report.md``, and
``dropped.tsv``, a sample of what each rule dropped.
"""

from __future__ import annotations

import itertools
import json
import sys
import tempfile
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mobilenmt.compression.core.context import Context, Stage
from mobilenmt.compression.core.errors import CorpusError, RecipeError
from mobilenmt.compression.core.pairs import Pair, PairWriter, read_pairs
from mobilenmt.compression.core.settings import shown
from mobilenmt.compression.core.stage import StageResult, run_stage, write_json
from mobilenmt.compression.core.streams import Meter
from mobilenmt.compression.core.tag_weights import weight_of
from mobilenmt.compression.corpus.clean import RULES, Cleaner, CleanSettings, tidy
from mobilenmt.compression.corpus.held_out import hash_of, read_held_out
from mobilenmt.compression.corpus.language_id import LanguageCheck
from mobilenmt.compression.corpus.readers import MOST_WEIGHT, Malformed, Part, Row, Source, check, expand, parts_of
from mobilenmt.compression.corpus.report import Report

_LEARN_FROM = 40_000  # pairs of each file that the language check learns from
_PROGRESS_EVERY = 1024
_MOST_TAGS = 10_000  # each is counted and weighted: more are numbers of lines or documents, not corpora


@dataclass(frozen=True, kw_only=True)
class CorpusSettings(CleanSettings):
    """Where the text comes from, and how it is cleaned."""

    sources: tuple[Source, ...] = ()
    """Files of parallel text, in the order in which they count: of two equal pairs the first is kept."""
    held_out: tuple[Path, ...] = ()
    """Test sets (``source<TAB>target`` a line, or patterns of such files): their sentences are left out."""
    weights: dict[str, float] = field(default_factory=dict)
    """How often the pairs of a tag go into training: 3 for three times, 0.5 for half of them, 0 to leave them out. Keys
    are tags or patterns (``docs*``); the first that fits counts; where none does, the weight
    of the source, or 1."""
    min_pairs: int = 100
    """Fewer pairs left are an error."""
    examples: int = 20
    """Dropped pairs shown for each rule."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.sources:
            raise RecipeError("sources: expected at least one [[corpus.sources]]")
        if self.min_pairs < 1:
            raise RecipeError(f"min_pairs: expected at least 1, found {shown(self.min_pairs)}")
        if not 0 <= self.examples <= 10_000:
            raise RecipeError(f"examples: expected 0 to 10000, found {shown(self.examples)}")
        own: dict[str, float] = {}
        for source in self.sources:
            if source.tag is not None and own.setdefault(source.tag, source.weight) != source.weight:
                raise RecipeError(f"sources: two with the tag {source.tag!r} and different weights")
        for tag, weight in self.weights.items():
            if not 0 <= weight <= MOST_WEIGHT:
                raise RecipeError(f"weights: {tag!r}: expected 0 to {MOST_WEIGHT}, found {shown(weight)}")
        merged = {tag: weight for tag, weight in own.items() if weight != 1.0} | self.weights
        object.__setattr__(self, "weights", merged)  # one table for every reader of the settings


def run(
    settings: CorpusSettings,
    folder: Path,
    *,
    languages: tuple[str, str],
    seed: int = 1,
    force: bool = False,
) -> StageResult:
    """Make the corpus in a stage folder; see the head of this module for its files.

    Args:
        settings: sources and rules.
        folder: the stage's folder.
        languages: codes of source and target, such as ``en``; text that is plainly in others is refused.
        seed: of the samples of dropped pairs.
        force: begin anew.

    Raises:
        CorpusError: files are missing, damaged, empty, mostly malformed or do not belong together; a side is in
            another language; or fewer than `min_pairs` are left.
        StageError: the folder holds something else.
    """
    parts = parts_of_all(settings)
    held_out = [path for given in settings.held_out for path in expand(given)]
    inputs: dict[str, Path | str] = {"languages": "-".join(languages), "seed": str(seed)}
    for kind, paths in (("source", [path for part in parts for path in part.paths]), ("held out", held_out)):
        inputs |= {f"{kind} {number} {path.name}": path for number, path in enumerate(paths, 1)}

    def work(folder: Path) -> Mapping[str, Any]:
        return _Corpus(settings, parts, held_out, languages, seed).make(folder)

    # Weights are applied when the dataset is built; here they matter only where they leave a tag out.
    identity = {item.name: getattr(settings, item.name) for item in fields(settings) if item.name != "weights"}
    identity["sources"] = [
        {item.name: getattr(source, item.name) for item in fields(source) if item.name != "weight"}
        for source in settings.sources
    ]
    if 0.0 in settings.weights.values():
        identity["left out"] = {tag: weight == 0 for tag, weight in settings.weights.items()}
    result = run_stage(folder, name="corpus", settings=identity, inputs=inputs, work=work, force=force)
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    tags = (*report["tags"], *report.get("left_out", ()))
    for pattern in settings.weights:
        if all(weight_of(tag, {pattern: 0.0}) for tag in tags):
            told = ", ".join(tags[:20])
            print(f"warning: corpus.weights: no pair is left with a tag {pattern!r}; tags: {told}", file=sys.stderr)
    return result


class _Corpus:
    """One run of the stage."""

    def __init__(
        self, settings: CorpusSettings, parts: list[Part], held_out: list[Path], languages: tuple[str, str], seed: int
    ) -> None:
        self._settings = settings
        self._parts = parts
        self._left_out: dict[str, bool] = {}
        self._report = Report([part.name for part in parts], seed, settings.examples)
        for part in parts:
            check(part)
        language = None
        if settings.language:
            language = LanguageCheck(itertools.chain.from_iterable(map(_beginning, parts)), languages)
            language.verify()
        self._cleaner = Cleaner(settings, language, read_held_out(held_out))

    def make(self, folder: Path) -> Mapping[str, Any]:
        try:
            with tempfile.TemporaryDirectory(prefix="scratch.tmp-", dir=folder) as name:
                self._first_pass(Path(name))
                self._second_pass(Path(name), folder / "pairs.tsv.zst")
            summary = {**self._report.summary(), "left_out": [tag for tag, out in self._left_out.items() if out]}
            write_json(folder / "report.json", summary)
            self._report.write_text(folder, RULES)
        except OSError as error:
            raise CorpusError(f"{folder}: cannot be written: {error.strerror or error}") from error
        if summary["pairs"] < self._settings.min_pairs:
            (folder / "pairs.tsv.zst").unlink()
            dropped = ", ".join(f"{rule} {count}" for rule, count in summary["dropped"].items()) or "nothing"
            raise CorpusError(
                f"only {summary['pairs']} of {summary['read']} pairs are left, and corpus.min_pairs is "
                f"{self._settings.min_pairs}; dropped: {dropped} (see {folder / 'report.md'})"
            )
        return {key: summary[key] for key in ("pairs", "read", "malformed", "dropped", "words")}

    def _first_pass(self, scratch: Path) -> None:
        from tqdm import tqdm

        self._hashes = array("Q")
        left_out = self._left_out
        sizes = [part.size for part in self._parts]
        bar = tqdm(total=sum(sizes), desc="corpus", unit="B", unit_scale=True, mininterval=1.0, disable=None)
        with bar, PairWriter(scratch / "kept.tsv.zst", level=1) as writer:
            for index, part in enumerate(self._parts):
                meter = Meter()
                for item in part.read(meter):
                    if item.number % _PROGRESS_EVERY == 0:
                        bar.n = sum(sizes[:index]) + int(sizes[index] * meter.share)
                        bar.update(0)
                    if isinstance(item, Malformed):
                        self._report.malformed(index, item)
                        continue
                    pair = _tidied(item, part)
                    if pair.tag not in left_out:
                        left_out[pair.tag] = weight_of(pair.tag, self._settings.weights) == 0
                        if len(left_out) > _MOST_TAGS:
                            raise CorpusError(
                                f"{part.name}: more than {_MOST_TAGS:,} different tags, such as {pair.tag[:60]!r}; is "
                                "that column a tag? Set a tag for the source"
                            )
                    rule = "weight" if left_out[pair.tag] else self._cleaner.drops(pair.source, pair.target)
                    self._report.read(index)
                    if rule is not None:
                        self._report.dropped(rule, index, item.number, pair.source, pair.target)
                        continue
                    self._hashes.append(hash_of(f"{pair.source}\t{pair.target}"))
                    writer.write(pair._replace(tag=f"{index} {item.number} {pair.tag}"))
            bar.n = bar.total
            bar.update(0)

    def _second_pass(self, scratch: Path, out: Path) -> None:
        repeated = came_before(self._hashes)
        with PairWriter(out) as writer:
            for position, pair in enumerate(read_pairs(scratch / "kept.tsv.zst")):
                index, number, tag = pair.tag.split(" ", 2)
                if repeated[position]:
                    self._report.dropped("duplicate", int(index), int(number), pair.source, pair.target)
                else:
                    self._report.kept(int(index), tag, pair.source, pair.target)
                    writer.write(pair._replace(tag=tag))


def came_before(hashes: array[int]) -> npt.NDArray[np.bool_]:
    """Which of these 64-bit hashes have an equal one before them: bool [n].

    Two different pairs out of 100 million are taken for equal with a chance of 3 in 10,000.
    """
    found = np.ones(len(hashes), bool)
    found[np.unique(np.frombuffer(hashes, np.uint64), return_index=True)[1]] = False
    return found


def _tidied(row: Row, part: Part) -> Pair:
    tag = part.tag if part.fixed_tag else row.tag.strip() or part.tag
    return Pair(tidy(row.source), tidy(row.target), tag)


def _beginning(part: Part) -> Iterator[tuple[str, str]]:
    rows = (item for item in part.read() if isinstance(item, Row))
    for row in itertools.islice(rows, _LEARN_FROM):
        yield row.source, row.target


def parts_of_all(settings: CorpusSettings) -> list[Part]:
    """Files that belong together, of all sources. Raises CorpusError if one is missing."""
    return [part for source in settings.sources for part in parts_of(source)]


def _check(context: Context, to_do: bool) -> str:
    settings = context.section(CorpusSettings)
    parts = parts_of_all(settings)
    if to_do:
        for part in parts:
            check(part)
        read_held_out(path for given in settings.held_out for path in expand(given))
    size = sum(part.size for part in parts)
    return f"{len(parts)} files, {size / 1e6:,.1f} MB"


def _run(context: Context, force: bool) -> StageResult:
    return run(
        context.section(CorpusSettings),
        context.folder(STAGE.name),
        languages=context.languages,
        seed=context.seed,
        force=force,
    )


STAGE = Stage(
    name="corpus",
    settings=CorpusSettings,
    run=_run,
    check=_check,
    help="Read, clean and deduplicate the text of a recipe.",
    example="max_ratio=2.0",
)
