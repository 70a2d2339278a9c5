"""The project's budgets (budgets.toml), each with the figure reached: in every results.md, and side by side."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.harness.errors import expect
from benchmarks.harness.results import read
from benchmarks.parts.words import LOOPS, TOO_LONG
from benchmarks.report.stats import ratio, summarize
from benchmarks.report.tables import fill, pick, table

Parts = Mapping[str, Any]
Found = tuple[float, str]
"""A figure, and how it is shown."""

_BARS: dict[str, Any] = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
_ASKED = {"onnx": ("ours-int8", ""), "core": ("ours-native", "C core: "), "both": ("ours-int8", "")}
"""Our engine that is asked, and what the names of its budgets begin with."""
RECORDED: dict[str, dict[str, list[str]]] = _BARS["recorded"]
"""By who is asked: columns of the side-by-side table, and the folders of results that they come from."""
BPE = "mobilenmt INT8, BPE tokenizer of the same size"
"""A row of the memory part that an earlier study measured."""
MARKS = "<!-- made by python -m benchmarks budgets -->\n", "<!-- end of the budgets -->\n"


@dataclass(frozen=True)
class Budget:
    """One budget: what it asks, and how the parts of a run answer it."""

    name: str
    ours: str
    """Our engine that is asked."""
    limit: float
    described: Mapping[str, Any]
    """As budgets.toml describes it."""

    @property
    def wanted(self) -> str:
        """The limit in words."""
        return f"{self.described['asks']} {self.limit:,.10g} {self.described['unit']}"

    def judge(self, parts: Parts) -> tuple[str, str]:
        """The figure reached, and whether that is enough."""
        try:
            value, shown = _MEASURES[self.described["measure"]](parts, self.ours, **self.described.get("with", {}))
        except LookupError:
            return "", "not measured"
        enough = value >= self.limit if self.described["asks"] == ">=" else value <= self.limit
        return shown, "met" if enough else "not met"


def _row(parts: Parts, part: str, **wanted: object) -> dict[str, Any]:
    return pick(parts[part]["rows"], **wanted)


def _latency(parts: Parts, engine: str, beam: int = 1, length: int = 30) -> list[list[float]]:
    found: list[list[float]] = _row(parts, "latency", engine=engine, threads=1, beam=beam, length=length)["seconds"]
    return found


def _times(parts: Parts, ours: str, engine: str = "", beam: int = 1, length: int = 30, our_length: int = 30) -> Found:
    """How many times longer than ours an engine takes; without one, ours for two lengths."""
    found = ratio(_latency(parts, engine or ours, beam, length), _latency(parts, ours, beam, our_length))
    return found.value, f"{found}"


def _median(parts: Parts, ours: str) -> Found:
    found = summarize(_latency(parts, ours)).median * 1000
    return found, f"{found:.2f} ms"


def _throughput(parts: Parts, ours: str, threads: int) -> Found:
    """The lower of forced and natural lengths, so that neither hides the other."""
    found = []
    for forced in (True, False):
        setting = {"threads": threads, "beam": 1, "batch": 32, "forced": forced}
        pair = (_row(parts, "throughput", engine=name, **setting) for name in ("ctranslate2-int8", ours))
        found.append(ratio(*(row["seconds"] for row in pair)).value)
    return min(found), "{:.2f} and {:.2f} (forced and natural lengths)".format(*found)


def _lost(parts: Parts, ours: str, reference: str, metric: str = "BLEU") -> Found:
    means = parts["quality"]["means"]
    reached, theirs = (pick(means, engine=name, beam=1)[metric] for name in (ours, reference))
    return theirs - reached, f"{reached:.2f} against {theirs:.2f}"


def _less_memory(parts: Parts, ours: str, key: str) -> Found:
    small, big = (_row(parts, "memory", engine=name)[key] for name in (ours, "big-optimum-fp32"))
    share = 100 * (1 - small / big)
    return share, f"{share:.2f} % ({small / 1e6:.1f} of {big / 1e6:,.0f} MB)"


def _value(parts: Parts, ours: str, part: str, key: str, shown: str, per: float = 1) -> Found:
    """A figure as it stands in the row of our engine."""
    row = _row(parts, part, engine=ours)
    return row[key] / per, fill(shown, row)


def _memory(parts: Parts, ours: str) -> Found:
    """With a BPE tokenizer of the same size where that was measured: the budget is for one."""
    rows = {row["engine"]: row for row in parts["memory"]["rows"]}
    row = rows.get(BPE) or rows[ours]
    kind = ", BPE tokenizer" if BPE in rows else ""
    return row["steady"] / 1e6, fill("{steady:MB} MB, {peak:MB} at the peak", row) + kind


def _cold(parts: Parts, ours: str) -> Found:
    row = _row(parts, "cold", engine=ours)
    return summarize(row["seconds"]).median, fill("{time.median:.3f} s, {time.best:.3f} at best", row)


def _instructions(parts: Parts, ours: str) -> Found:
    found = parts["instructions"]["rows"][0]["instructions"] / 1e6
    return found, f"{found:.1f} million"


def _batch(parts: Parts, ours: str) -> Found:
    row = _row(parts, "batch", together=False)
    return 100 * row["same"] / row["of"], f"{row['same']} of {row['of']}"


def _words(parts: Parts, ours: str) -> Found:
    bad = [row["word"] for row in parts["words"]["rows"] if {LOOPS, TOO_LONG} & {*row["found"]}]
    return len(bad), ", ".join(bad) or "none"


_CHOSEN = (_median, _times, _throughput, _lost, _less_memory, _value, _memory, _cold, _instructions)
_MEASURES: dict[str, Callable[..., Found]] = {call.__name__[1:]: call for call in (*_CHOSEN, _batch, _words)}
_WHEEL = sum(limit for part, limit in _BARS["installed-bytes"].items() if part not in ("pipeline", "about"))
BUDGETS = tuple(
    Budget(start + item["name"], ours, _WHEEL if item[asked] == "installed-bytes" else item[asked], item)
    for asked, (ours, start) in _ASKED.items()
    for item in _BARS["budget"]
    if asked in item
)
_HEADER = ("budget (one thread, batch 1 unless said)", "wanted")


def one(parts: Parts) -> str:
    """Table of the budgets for one run."""
    return table([*_HEADER, "reached", ""], [[budget.name, budget.wanted, *budget.judge(parts)] for budget in BUDGETS])


def side_by_side(results: Path) -> str:
    """Tables of the budgets for all that is recorded below ``results``: ONNX Runtime's, then the C core's."""
    tables = []
    for asked, columns in RECORDED.items():
        runs = {
            column: [read(results / folder / "results.json")["parts"] for folder in folders]
            for column, folders in columns.items()
        }
        chosen = [item for item in BUDGETS if (item.ours == "ours-native") == (asked == "core")]
        rows = [[item.name, item.wanted, *(_first(item, found) for found in runs.values())] for item in chosen]
        tables.append(table([*_HEADER, *runs], rows))
    return "\n".join(tables)


def _first(budget: Budget, runs: Sequence[Parts]) -> str:
    """What the first run that has it says of a budget."""
    for shown, verdict in map(budget.judge, runs):
        if shown:
            return f"{shown}: **not met**" if verdict == "not met" else shown
    return "not measured"


def insert(page: str, made: str) -> str:
    """A page with the table between its marks; BenchmarkError if it has none."""
    text, count = re.subn(f"(?s)(?<={MARKS[0]}).*(?={MARKS[1]})", lambda _: f"\n{made}\n", page)
    expect(count == 1, f"the page needs each of these lines once: {MARKS}")
    return text
