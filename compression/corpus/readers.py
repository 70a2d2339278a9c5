"""Readers of parallel text: TSV, Moses file pairs, JSON lines, and Hugging Face datasets on the disk; all streaming.

A reader yields a :class:`Row` for each pair and a :class:`Malformed` for each line that is none, with its number.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from mobilenmt.compression.core.errors import CorpusError, RecipeError
from mobilenmt.compression.core.streams import READ_ERRORS, Meter, count_lines, numbered_lines

Format = Literal["auto", "tsv", "moses", "jsonl", "datasets"]

MOST_WEIGHT = 1000
"""Of a tag: the text is written out as often."""
_COMPRESSED = (".gz", ".xz", ".zst", ".bz2")
_ENDINGS: Mapping[str, Format] = {
    ".tsv": "tsv",
    ".tab": "tsv",
    ".txt": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
}
_BATCH = 1000  # rows of a dataset fetched at once


class Row(NamedTuple):
    """A pair as it stands in a file."""

    number: int
    """Line, or row of a dataset, from 1."""
    source: str
    target: str
    tag: str
    """"" where the file names none."""


class Malformed(NamedTuple):
    """A line that is no pair."""

    number: int
    reason: str
    text: str
    """What can be shown of it."""


@dataclass(frozen=True)
class Source:
    """Where parallel text lies."""

    paths: tuple[Path, ...]
    """Files, patterns such as ``data/*.tsv.xz``, or dataset folders; for `moses` the source and the target file."""
    format: Format = "auto"
    """`auto`: a folder is a dataset; .jsonl, .tsv and .txt speak for themselves; ``x.en``, ``x.de`` are Moses files."""
    tag: str | None = None
    """Tag of all pairs; without it that of the third column (or of `tag_key`), else the file's name."""
    weight: float = 1.0
    """How often its pairs go into training; needs a `tag`. ``corpus.weights`` weights the tags of third columns."""
    source_key: str = "source"
    """Key (jsonl) or column (datasets) of the source text; ``translation.en`` reaches into a table."""
    target_key: str = "target"
    """The same of the target text."""
    tag_key: str = "tag"
    """The same of the tag; may be missing."""
    split: str = ""
    """Split of a dataset that has several; without it, the only one or `train`."""

    def __post_init__(self) -> None:
        if not self.paths:
            raise RecipeError("paths: expected at least one path")
        if self.format == "moses" and len(self.paths) != 2:
            raise RecipeError(
                f"paths: format 'moses' takes the source file and the target file, found {len(self.paths)}"
            )
        if self.tag is not None and (not self.tag or any(mark in self.tag for mark in "\t\n\r")):
            raise RecipeError("tag: expected a text without tabs and line ends")
        if not 0 <= self.weight <= MOST_WEIGHT:
            raise RecipeError(f"weight: expected 0 to {MOST_WEIGHT}, found {self.weight}")
        if self.weight != 1.0 and self.tag is None:
            raise RecipeError("weight: needs a tag; corpus.weights weights the tags that stand in a file")


@dataclass(frozen=True)
class Part:
    """One file (or pair of files, or dataset) of a source."""

    name: str
    """For reports."""
    paths: tuple[Path, ...]
    tag: str
    """Tag of pairs whose line names none."""
    fixed_tag: bool
    """`tag` counts for all pairs."""
    rows: Callable[[Meter], Iterator[Row | Malformed]]
    """Opens it."""

    def read(self, meter: Meter | None = None) -> Iterator[Row | Malformed]:
        """Yield what it holds.

        :raises CorpusError: it cannot be read, or it is damaged.
        """
        number = 0
        try:
            for item in self.rows(meter or Meter()):
                number = item.number
                yield item
        except FileNotFoundError as error:
            raise CorpusError(f"{error.filename or self.name}: no such file") from None
        except READ_ERRORS as error:
            reason = getattr(error, "strerror", None) or error
            raise CorpusError(f"{self.name}: cannot be read behind line {number}: {reason}; fetch it again") from error

    @property
    def size(self) -> int:
        """Bytes on the disk."""
        files = [file for path in self.paths for file in ([path] if path.is_file() else path.rglob("*"))]
        return sum(file.stat().st_size for file in files if file.is_file())


def parts_of(source: Source) -> list[Part]:
    """The files of a source, in the order given; a pattern's matches sorted by name.

    :raises CorpusError: a file is not there, a pattern matches nothing, or the format cannot be told.
    """
    kind = source.format
    if kind == "auto" and _are_moses(source.paths):
        kind = "moses"
    if kind == "moses":
        for path in source.paths:
            if not path.is_file():
                raise CorpusError(f"{path}: no such file")
        first, second = source.paths
        return [
            _part(source, f"{first.name} | {second.name}", source.paths, lambda meter: _moses(first, second, meter))
        ]
    return [_single(source, path, kind) for given in source.paths for path in expand(given)]


def expand(path: Path) -> list[Path]:
    """The paths that a pattern matches, sorted; a path without ``*``, ``?`` and ``[`` is itself.

    :raises CorpusError: nothing is there.
    """
    if path.exists():
        return [path]
    text = str(path)
    if any(mark in text for mark in "*?["):
        anchor = Path(path.anchor)
        found = sorted(anchor.glob(str(path.relative_to(anchor))))
        if found:
            return found
        raise CorpusError(f"{path}: no file matches")
    raise CorpusError(f"{path}: no such file")


def check(part: Part, *, lines: int = 1000, share: float = 0.2) -> None:
    """Read the beginning of a part, so that a wrong file is known before hours are spent.

    :raises CorpusError: it is empty, more than `share` of its first `lines` are no pairs, or Moses files differ in
        their number of lines.
    """
    head = list(itertools.islice(part.read(), lines))
    malformed = [item for item in head if isinstance(item, Malformed)]
    if not head:
        raise CorpusError(f"{part.name}: empty")
    if len(malformed) > share * len(head):
        first = malformed[0]
        raise CorpusError(
            f"{part.name}: {len(malformed)} of the first {len(head)} lines are no pairs (line {first.number}: "
            f"{first.reason}: {first.text[:60]!r}); is the format right?"
        )
    if " | " in part.name and len(part.paths) == 2:
        counts = [count_lines(path) for path in part.paths]
        if counts[0] != counts[1]:
            raise CorpusError(
                f"{part.paths[0]} has {counts[0]} lines and {part.paths[1]} has {counts[1]}; "
                "Moses files need one line for each other's"
            )


def _single(source: Source, path: Path, kind: Format) -> Part:
    if kind == "auto":
        kind = "datasets" if path.is_dir() else _ENDINGS.get(_plain_name(path).suffix.lower(), "auto")
        if kind == "auto":
            raise CorpusError(f"{path}: its name does not tell its format; say format = 'tsv', 'jsonl' or 'moses'")
    if kind == "datasets":
        return _part(source, path.name, (path,), lambda meter: _dataset(path, source, meter))
    if path.is_dir():
        raise CorpusError(f"{path}: a folder, not a {kind} file")
    if kind == "jsonl":
        return _part(source, path.name, (path,), lambda meter: _json_lines(path, source, meter))
    return _part(source, path.name, (path,), lambda meter: _tsv(path, meter))


def _part(
    source: Source, name: str, paths: tuple[Path, ...], rows: Callable[[Meter], Iterator[Row | Malformed]]
) -> Part:
    default = _plain_name(paths[0]).stem or name
    return Part(name, paths, default if source.tag is None else source.tag, source.tag is not None, rows)


def _plain_name(path: Path) -> Path:
    return Path(path.name).with_suffix("") if path.suffix.lower() in _COMPRESSED else Path(path.name)


def _are_moses(paths: tuple[Path, ...]) -> bool:
    """Whether two files are called like ``corpus.en`` and ``corpus.de``."""
    if len(paths) != 2 or any(path.is_dir() for path in paths):
        return False
    first, second = (_plain_name(path) for path in paths)
    ends = {first.suffix, second.suffix}
    return first.stem == second.stem and len(ends) == 2 and "" not in ends and not ends & set(_ENDINGS)


def _tsv(path: Path, meter: Meter) -> Iterator[Row | Malformed]:
    for number, line in numbered_lines(path, meter):
        try:
            fields = line.decode("utf-8").split("\t")
        except UnicodeDecodeError:
            yield Malformed(number, "not UTF-8", _shown(line))
            continue
        if len(fields) == 3:
            yield Row(number, fields[0], fields[1], fields[2])
        elif len(fields) == 2:
            yield Row(number, fields[0], fields[1], "")
        else:
            reason = "no tab" if len(fields) == 1 else f"{len(fields)} columns; expected source, target and tag"
            yield Malformed(number, reason, _shown(line))


def _moses(first: Path, second: Path, meter: Meter) -> Iterator[Row | Malformed]:
    lines = zip(numbered_lines(first, meter), numbered_lines(second, meter), strict=True)
    try:
        for (number, source), (_, target) in lines:
            try:
                yield Row(number, source.decode("utf-8"), target.decode("utf-8"), "")
            except UnicodeDecodeError:
                yield Malformed(number, "not UTF-8", f"{_shown(source)} | {_shown(target)}")
    except ValueError:
        raise CorpusError(f"{first} and {second} have different numbers of lines; Moses files need the same") from None


def _json_lines(path: Path, source: Source, meter: Meter) -> Iterator[Row | Malformed]:
    keys = [key.split(".") for key in (source.source_key, source.target_key, source.tag_key)]
    for number, line in numbered_lines(path, meter):
        if not line.strip():
            continue
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):  # UnicodeDecodeError is a ValueError
            yield Malformed(number, "not JSON", _shown(line))
            continue
        yield _row_of(number, [_reach(found, key) for key in keys], source)


def _dataset(path: Path, source: Source, meter: Meter) -> Iterator[Row | Malformed]:
    dataset = _open_dataset(path, source.split)
    keys = [key.split(".") for key in (source.source_key, source.target_key, source.tag_key)]
    columns = dataset.column_names
    for key in keys[:2]:
        if key[0] not in columns:
            raise CorpusError(
                f"{path}: has no column {key[0]!r} but {', '.join(columns)}; set source_key and target_key"
            )
    wanted = [column for column in columns if column in {key[0] for key in keys}]
    dataset = dataset.select_columns(wanted)
    number = 0
    for batch in dataset.iter(batch_size=_BATCH):
        size = len(batch[wanted[0]])
        for index in range(size):
            number += 1
            row = {column: batch[column][index] for column in wanted}
            yield _row_of(number, [_reach(row, key) for key in keys], source)
        meter.set(path, number / max(1, len(dataset)))


def _open_dataset(path: Path, split: str) -> Any:
    try:
        import datasets
    except ImportError as error:
        raise CorpusError(
            f"{path}: reading a dataset folder needs the package datasets: pip install datasets"
        ) from error
    try:
        found = datasets.load_from_disk(str(path))
    except Exception as error:  # whatever its versions raise
        raise CorpusError(f"{path}: not a dataset saved with save_to_disk: {error}") from error
    if isinstance(found, datasets.DatasetDict):
        chosen = split or (next(iter(found)) if len(found) == 1 else "train")
        if chosen not in found:
            raise CorpusError(f"{path}: has no split {chosen!r}; set split to one of {', '.join(found)}")
        return found[chosen]
    return found


def _row_of(number: int, values: list[Any], source: Source) -> Row | Malformed:
    first, second, tag = values
    for key, value in ((source.source_key, first), (source.target_key, second)):
        if not isinstance(value, str):
            return Malformed(number, f"no text under {key!r}", str(value)[:200])
    texts = [" ".join(text.split("\n")) if "\n" in text else text for text in (first, second)]
    return Row(number, texts[0], texts[1], tag if isinstance(tag, str) else "")


def _reach(value: Any, keys: list[str]) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _shown(line: bytes) -> str:
    return line[:400].decode("utf-8", "replace").replace("\t", " ⇥ ")
