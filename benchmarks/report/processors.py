"""The same words on every processor? What ``mobilenmt translate --json`` printed on several, compared.

python -m benchmarks.report.processors PROCESSOR.SEARCH.jsonl...; ``script/arm`` makes such files by emulation.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness.errors import BenchmarkError, expect
from benchmarks.harness.results import write, write_json
from benchmarks.harness.settings import RESULTS
from benchmarks.harness.text import compare, read_lines
from benchmarks.report.tables import table

_SHARE, _DISTANCE = "tokens before they part", "largest distance of scores, same words"


def differences(files: Sequence[Path]) -> list[dict[str, Any]]:
    """Each file PROCESSOR.SEARCH.jsonl against the first of that search: what is the same, how far scores lie apart.

    Raises:
        BenchmarkError: a file is not such a translation, or of other lines than the first.
    """
    first: dict[str, list[dict[str, Any]]] = {}
    rows = []
    for file in files:
        name, _, search = file.stem.partition(".")
        try:
            found = [json.loads(line) for line in read_lines(file)]
            tokens, sources = [line["tokens"] for line in found], [line["source"] for line in found]
        except (ValueError, TypeError, KeyError):
            raise BenchmarkError(f"{file}: not the lines of mobilenmt translate --json") from None
        wanted = first.setdefault(search, found)
        expect(sources == [line["source"] for line in wanted], f"{file} has other lines than the first of its kind")
        same = [(a, b) for a, b in zip(found, wanted, strict=True) if a["tokens"] == b["tokens"]]
        compared = compare(tokens, [line["tokens"] for line in wanted])
        row = {"run": name, "search": search, "lines": compared["of"], "same words": compared["same"]}
        apart = max((abs(a["score"] - b["score"]) for a, b in same), default=0.0)
        rows.append(row | {_SHARE: compared[_SHARE], _DISTANCE: apart})
    return rows


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """The comparison as a table."""
    shown = [[f"{value:.3g}" if isinstance(value, float) else value for value in row.values()] for row in rows]
    return f"# The same words on every processor\n\n{table(list(rows[0]), shown)}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write processors.json and processors.md, and print the latter; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report.processors", description=__doc__)
    parser.add_argument("files", type=Path, nargs="+", metavar="PROCESSOR.SEARCH.jsonl")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    try:
        rows = differences(options.files)
        write_json(options.out / "processors.json", {"rows": rows})
        write(options.out / "processors.md", markdown(rows))
    except (BenchmarkError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(markdown(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
