"""Test sets and the outputs of peers; what scores them is the scorer of the core."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mobilenmt.compression.core.errors import EvaluationError
from mobilenmt.compression.core.streams import READ_ERRORS, open_bytes


@dataclass(frozen=True)
class TestSet:
    """Sentences and their references."""

    __test__ = False  # pytest: this is no test

    name: str
    sources: tuple[str, ...]
    references: tuple[str, ...]
    total: int
    """Lines of the file; more than there are sources if only the first ones are taken."""

    @property
    def words(self) -> int:
        """Words of all sources, as white space parts them."""
        return sum(len(source.split()) for source in self.sources)


def read_test_sets(paths: Sequence[Path], *, lines: int | None = None, reverse: bool = False) -> list[TestSet]:
    """Read TSV files: source, tab, reference, and further columns that are not looked at; one pair a line.

    Args:
        paths: plain, or compressed (gzip, xz, bzip2, zstd). A set is named by what precedes the first point
            of its file's name; where two would be the same by the whole name, and where these are the same by the
            folder's name and the former: ``dev-flores``, ``test-flores``.
        lines: take this many lines of each, the first ones.
        reverse: the reference stands in the first column, the source in the second.

    Raises:
        EvaluationError: a file is missing, empty, not UTF-8, or has a line without a tab or with an empty side.
    """
    counts = Counter(name for path in paths for name in _names(path))
    found: list[TestSet] = []
    for path in paths:
        name = next((name for name in _names(path) if counts[name] == 1), path.name)
        if any(name == other.name for other in found):
            raise EvaluationError(f"{path}: a test set of this name is given twice")
        rows = []
        for number, line in enumerate(read_lines(path), 1):
            fields = line.rstrip("\r").split("\t")
            if len(fields) < 2 or not fields[0].strip() or not fields[1].strip():
                raise EvaluationError(f"{path}: line {number}: expected a source, a tab and a reference")
            rows.append((fields[1], fields[0]) if reverse else (fields[0], fields[1]))
        if not rows:
            raise EvaluationError(f"{path}: no lines in it")
        taken = rows[:lines]
        sources, references = zip(*taken, strict=True)
        found.append(TestSet(name, sources, references, len(rows)))
    return found


def _names(path: Path) -> list[str]:
    """What a test set could be called, best first."""
    stem = path.name.partition(".")[0]
    names = [stem, path.name, f"{path.absolute().parent.name}-{stem or path.name}"]
    return list(dict.fromkeys(name for name in names if name))


def read_lines(path: Path) -> list[str]:
    """The lines of a text file, which end at line feeds alone; decompressed if need be.

    Raises EvaluationError if it cannot be read or is not UTF-8.
    """
    try:
        with open_bytes(path) as stream:
            content = stream.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise EvaluationError(f"{path}: not UTF-8 ({error.reason} at byte {error.start})") from None
    except READ_ERRORS as error:
        raise EvaluationError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    lines = content.split("\n")
    if lines[-1] == "":
        lines.pop()
    return lines


def assign_peers(
    peers: Mapping[str, Sequence[Path]], tests: Sequence[TestSet]
) -> dict[str, dict[str, tuple[str, ...]]]:
    """Read peers' outputs, one line a sentence, and find the test set that each file belongs to.

    A file belongs to the test set of as many lines; if there are several, to the one whose name its own begins with.

    Returns:
        peer -> test set -> its lines, as many as the test set has sources.

    Raises:
        EvaluationError: a file cannot be read, or fits no test set, or more than one.
    """
    found: dict[str, dict[str, tuple[str, ...]]] = {}
    for peer, paths in peers.items():
        for path in paths:
            lines = read_lines(path)
            fitting = [test for test in tests if test.total == len(lines)]
            if len(fitting) > 1:
                fitting = [test for test in fitting if path.name.startswith(f"{test.name}.")]
            if len(fitting) != 1:
                sizes = ", ".join(f"{test.name} {test.total}" for test in tests)
                raise EvaluationError(f"{path}: {len(lines)} lines fit no one test set alone ({sizes})")
            test = fitting[0]
            if test.name in found.setdefault(peer, {}):
                raise EvaluationError(f"{path}: {peer} has an output for {test.name} already")
            found[peer][test.name] = tuple(lines[: len(test.sources)])
    return found
