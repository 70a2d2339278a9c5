"""results.md from results.json: every figure in the Markdown comes from the JSON beside it.

tables.toml says what the tables show; here are their units and what is worked out for them.
"""

from __future__ import annotations

import string
import time
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tabulate import tabulate

from benchmarks.engines.base import SPECS
from benchmarks.report.stats import ratio, summarize

_TABLES = Path(__file__).with_suffix(".toml")
Row = dict[str, Any]


def label(engine: str) -> str:
    """How tables name an engine."""
    return SPECS[engine].label if engine in SPECS else engine


class _Template(string.Formatter):
    UNITS: Mapping[str, Callable[[Any], str]] = {
        "MB": lambda count: f"{count / 1e6:,.1f}",
        "ms": lambda seconds: f"{seconds * 1000:.3g}" if seconds < 1 else f"{seconds * 1000:,.0f}",
        "us": lambda seconds: f"{seconds * 1e6:,.{0 if seconds >= 1e-4 else 2}f}",
        "speeds": lambda speeds: ", ".join(f"{int(n) / 2**20:.0f} MiB: {v / 1e9:.1f} GB/s" for n, v in speeds.items()),
        "engine": label,
        "search": lambda beam: "greedy" if beam == 1 else f"beam {beam}",
        "threads": lambda count: f"{count} thread{'s' if count > 1 else ''}",
        "list": ", ".join,
        "together": lambda together: "together" if together else "by default",
        "forced": lambda forced: "output as long as the source" if forced else "the model ends the output",
    }

    def format_field(self, value: Any, format_spec: str) -> str:
        unit = self.UNITS.get(format_spec)
        return unit(value) if unit else str(super().format_field(value, format_spec))


def fill(template: str, row: Row) -> str:
    """A template with the values of a row."""
    timed = {"time": summarize(row["seconds"])} if isinstance(row.get("seconds"), list) else {}
    return _Template().vformat(template, (), row | timed)


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; empty if there are no rows."""
    cells = [[str(cell).replace("|", "\\|") for cell in row] for row in rows]
    return tabulate(cells, header, tablefmt="github", disable_numparse=True) + "\n" if cells else ""


def select(rows: Iterable[Row], **wanted: object) -> list[Row]:
    """The rows with these values."""
    return [row for row in rows if all(row[key] == value for key, value in wanted.items())]


def pick(rows: Iterable[Row], **wanted: object) -> Row:
    """The first row with these values; LookupError if there is none."""
    return select(rows, **wanted)[0]


def grouped(rows: Iterable[Row], *keys: str) -> dict[tuple[Any, ...], list[Row]]:
    """Rows by their values of the keys, in the order in which they come."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in keys), []).append(row)
    return groups


@dataclass(frozen=True)
class Section:
    """One section of the report, as tables.toml describes it."""

    part: str
    title: str
    text: str
    columns: Mapping[str, str]
    rows: str = ""
    by: tuple[str, ...] = ()
    caption: str = ""
    across: tuple[str, str] = ("", "")
    cells: Mapping[str, str] = field(default_factory=dict)

    def render(self, part: Row) -> str:
        """Markdown, empty where there is nothing to show."""
        tables = []
        shown: list[Row] = _ROWS[self.rows](part) if self.rows else part["rows"]
        for rows in grouped(shown, *self.by).values():
            caption = f"{fill(self.caption, rows[0])}:\n\n" if self.caption else ""
            found = [self._pivoted(rows, *cell) for cell in self.cells.items()]
            listed = [[fill(cell, row) for cell in self.columns.values()] for row in rows]
            tables.append(caption + ("\n".join(filter(None, found)) or table(list(self.columns), listed)))
        return "\n".join([f"\n## {self.title}\n", f"{fill(self.text, part)}\n", *tables]) if tables else ""

    def _pivoted(self, rows: Sequence[Row], title: str, cell: str) -> str:
        key, heading = self.across
        headings = {row[key]: fill(heading, row) for row in rows}
        lines: dict[tuple[str, ...], dict[Any, str]] = {}
        for row in rows:
            names = tuple(fill(name, row) for name in self.columns.values())
            lines.setdefault(names, {})[row[key]] = fill(cell, row)
        shown = [
            [*names, *(found.get(key, "") for key in headings)] for names, found in lines.items() if any(found.values())
        ]
        return table([title, *list(self.columns)[1:], *headings.values()], shown)


def _compared(part: Row) -> list[Row]:
    """Rows and how many times slower each is than our INT8 engine's with the same setting."""
    keys = [key for key in ("threads", "beam", "length") if any(key in row for row in part["rows"])]
    found = []
    for rows in grouped(part["rows"], *keys).values():
        ours = select(rows, engine="ours-int8")
        for row in rows:
            slower = ratio(row["seconds"], ours[0]["seconds"]) if ours and row is not ours[0] else ""
            found.append(row | {"slower": slower})
    return found


def speeds(part: Row) -> list[Row]:
    """Rows of the throughput part and their source words a second."""
    return [row | {"speed": part["words"] / summarize(row["seconds"]).median} for row in part["rows"]]


def _operators(part: Row) -> list[Row]:
    """Operators that count, and the sum of each phase."""
    found = []
    for rows in grouped(sorted(part["rows"], key=lambda row: (row["beam"], row["phase"])), "beam", "phase").values():
        total = {key: sum(row[key] for row in rows) for key in ("nodes", "microseconds", "share")}
        found += [row for row in rows if row["share"] >= 0.002] + [rows[0] | {"operator": "all"} | total]
    return found


def _scores(part: Row) -> list[Row]:
    return [*(mean | {"file": "mean"} for mean in part["means"]), *part["rows"]]


_ROWS = {"compared": _compared, "speeds": speeds, "operators": _operators, "scores": _scores}


def markdown(content: Row, budgets: str) -> str:
    """The report of a results.json's content, with the table of budgets in it."""
    parts = content["parts"]
    text = "# Results\n\nMade from `results.json` by `python -m benchmarks report`; that file has the raw samples.\n"
    text += f"\n{_provenance(content)}\n## Budgets\n\n{budgets}"
    for described in tomllib.loads(_TABLES.read_text(encoding="utf-8"))["section"]:
        section = Section(**described)
        body = section.render(parts[section.part]) if section.part in parts else ""
        text += f"{body}\n{_taken(parts[section.part]['taken'])}" if body else ""
    return text


def _provenance(content: Row) -> str:
    found = {key: ", ".join(value) if isinstance(value, list) else value for key, value in content["machine"].items()}
    packages = ", ".join(f"{name} {version}" for name, version in content["versions"].items())
    return table(["machine", ""], [*found.items(), ("packages", packages)])


def _taken(taken: Row) -> str:
    at = time.strftime("%Y-%m-%d %H:%M", time.gmtime(taken["at"]))
    loads = ", ".join(map(str, taken["load average"]))
    return f"Taken {at} UTC in {taken['seconds']:.0f} s; load average at the end {loads}.\n"
