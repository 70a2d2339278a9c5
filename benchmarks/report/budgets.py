"""The budgets that the project set itself, each with the figure reached: in every results.md, and side by side."""

from __future__ import annotations

import re
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

CORE = "C core: "
"""What the names of the C core's budgets begin with."""
RECORDED: dict[str, dict[str, tuple[str, ...]]] = {
    CORE: {
        "shipped": ("core/far", "core/big", "core/memory", "core/quality", "core/instructions", "core"),
        "8.6 million parameters": (
            "core-8m/shortlist",
            "core-8m/batches",
            "core-8m/memory",
            "core-8m/quality",
            "core-8m",
        ),
        "OPUS-MT's shape": ("core-opus", "core-opus/memory"),
    },
    "": {
        "shipped": ("", "batches", "outputs"),
        "9.0 million parameters": ("nine-million",),
        "an earlier engine, EPYC": ("epyc",),
    },
}
"""By whose budgets they are: columns of the side-by-side table, and the folders of results that they come from."""
BPE = "mobilenmt INT8, BPE tokenizer of the same size"
"""A row of the memory part that an earlier study measured."""
MARKS = "<!-- made by python -m benchmarks budgets -->\n", "<!-- end of the budgets -->\n"


@dataclass(frozen=True)
class Budget:
    """One budget: what it asks, and how the parts of a run answer it."""

    name: str
    asks: str
    """``<=`` or ``>=``."""
    limit: float
    unit: str
    measure: Callable[..., Found]
    """Called with the parts and the arguments; LookupError where they do not have it."""
    arguments: tuple[object, ...] = ()

    @property
    def wanted(self) -> str:
        """The limit in words."""
        return f"{self.asks} {self.limit:,.10g} {self.unit}"

    def judge(self, parts: Parts) -> tuple[str, str]:
        """The figure reached, and whether that is enough."""
        try:
            value, shown = self.measure(parts, *self.arguments)
        except LookupError:
            return "", "not measured"
        return shown, "met" if (value >= self.limit if self.asks == ">=" else value <= self.limit) else "not met"


def _row(parts: Parts, part: str, **wanted: object) -> dict[str, Any]:
    return pick(parts[part]["rows"], **wanted)


def _latency(parts: Parts, engine: str, beam: int = 1, length: int = 30) -> list[list[float]]:
    found: list[list[float]] = _row(parts, "latency", engine=engine, threads=1, beam=beam, length=length)["seconds"]
    return found


def _times(parts: Parts, ours: str, engine: str, beam: int = 1, length: int = 30, our_length: int = 30) -> Found:
    """How many times longer than one of ours an engine takes."""
    found = ratio(_latency(parts, engine, beam, length), _latency(parts, ours, beam, our_length))
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


def _less_memory(parts: Parts, key: str) -> Found:
    ours, big = (_row(parts, "memory", engine=name)[key] for name in ("ours-int8", "big-optimum-fp32"))
    share = 100 * (1 - ours / big)
    return share, f"{share:.2f} % ({ours / 1e6:.1f} of {big / 1e6:,.0f} MB)"


def _added(parts: Parts, ours: str, key: str) -> Found:
    found = _row(parts, "memory", engine=ours)[key] / 1e6
    return found, f"{found:.1f} MB"


def _memory(parts: Parts) -> Found:
    """With a BPE tokenizer of the same size where that was measured: the budget is for one."""
    rows = {row["engine"]: row for row in parts["memory"]["rows"]}
    row = rows.get(BPE) or rows["ours-int8"]
    kind = ", BPE tokenizer" if BPE in rows else ""
    return row["steady"] / 1e6, fill("{steady:MB} MB, {peak:MB} at the peak", row) + kind


def _cold(parts: Parts, ours: str) -> Found:
    row = _row(parts, "cold", engine=ours)
    return summarize(row["seconds"]).median, fill("{time.median:.3f} s, {time.best:.3f} at best", row)


def _bytes(parts: Parts, key: str) -> Found:
    found = _row(parts, "size", engine="ours-int8")[key]
    return found, f"{found:,}"


def _instructions(parts: Parts) -> Found:
    found = parts["instructions"]["rows"][0]["instructions"] / 1e6
    return found, f"{found:.1f} million"


def _batch(parts: Parts) -> Found:
    row = _row(parts, "batch", together=False)
    return 100 * row["same"] / row["of"], f"{row['same']} of {row['of']}"


def _words(parts: Parts) -> Found:
    bad = [row["word"] for row in parts["words"]["rows"] if {LOOPS, TOO_LONG} & {*row["found"]}]
    return len(bad), ", ".join(bad) or "none"


_ONNX, _CORE, _PEER = "ours-int8", "ours-native", "ctranslate2-int8"
_BIG = "big-optimum-fp32"
BUDGETS = (
    Budget("latency, 30 tokens, greedy", "<=", 10, "ms", _median, (_ONNX,)),
    Budget("greedy, 30 tokens, against CTranslate2 INT8", ">=", 2, "times", _times, (_ONNX, _PEER)),
    Budget("beam 4, 30 tokens, against CTranslate2 INT8", ">=", 1.5, "times", _times, (_ONNX, _PEER, 4)),
    Budget("greedy, 30 tokens, against optimum INT8", ">=", 10, "times", _times, (_ONNX, "optimum-int8")),
    Budget("greedy, 30 tokens, against Transformer-big", ">=", 47, "times", _times, (_ONNX, _BIG)),
    Budget("100 tokens against 25 tokens", "<=", 4.4, "times", _times, (_ONNX, _ONNX, 1, 100, 25)),
    Budget("batch 32, 1 thread, against CTranslate2 INT8", ">=", 1, "times", _throughput, (_ONNX, 1)),
    Budget("batch 32, 2 threads, against CTranslate2 INT8", ">=", 1, "times", _throughput, (_ONNX, 2)),
    Budget("memory added, steady", "<=", 15, "MB", _memory),
    Budget("steady memory, less than Transformer-big", ">=", 98.5, "%", _less_memory, ("steady",)),
    Budget("peak memory, less than Transformer-big", ">=", 99, "%", _less_memory, ("peak",)),
    Budget("cold start, process start to translation", "<=", 0.25, "s", _cold, (_ONNX,)),
    Budget("lost against CTranslate2 INT8, dev sets, greedy", "<=", 0.2, "BLEU", _lost, (_ONNX, _PEER)),
    Budget("lost against fp32, dev sets, greedy", "<=", 0.3, "BLEU", _lost, (_ONNX, "ours-fp32")),
    Budget("C core: latency, 30 tokens (asked of the shipped pack)", "<=", 3, "ms", _median, (_CORE,)),
    Budget("C core: greedy, 30 tokens, against CTranslate2 INT8", ">=", 3.5, "times", _times, (_CORE, _PEER)),
    Budget("C core: beam 4, 30 tokens, against CTranslate2 INT8", ">=", 2.5, "times", _times, (_CORE, _PEER, 4)),
    Budget("C core: greedy, 30 tokens, against optimum INT8", ">=", 20, "times", _times, (_CORE, "optimum-int8")),
    Budget("C core: greedy, 30 tokens, against Transformer-big", ">=", 400, "times", _times, (_CORE, _BIG)),
    Budget("C core: 100 tokens against 25 tokens", "<=", 4.4, "times", _times, (_CORE, _CORE, 1, 100, 25)),
    Budget("C core: batch 32, 1 thread, against CTranslate2 INT8", ">=", 1.5, "times", _throughput, (_CORE, 1)),
    Budget("C core: batch 32, 2 threads, against CTranslate2 INT8", ">=", 1.5, "times", _throughput, (_CORE, 2)),
    Budget("C core: memory added, steady (likewise)", "<=", 9, "MB", _added, (_CORE, "steady")),
    Budget("C core: memory added, at the peak (likewise)", "<=", 10, "MB", _added, (_CORE, "peak")),
    Budget("C core: cold start, process start to translation", "<=", 0.1, "s", _cold, (_CORE,)),
    Budget("C core: lost against INT8 by ONNX, dev sets, greedy", "<=", 0.1, "BLEU", _lost, (_CORE, _ONNX)),
    Budget("C core: the same in chrF", "<=", 0.1, "chrF", _lost, (_CORE, _ONNX, "chrF")),
    Budget("C core: lost against fp32, dev sets, greedy", "<=", 0.3, "BLEU", _lost, (_CORE, "ours-fp32")),
    Budget("C core: instructions of a sentence of 17 words, AVX2", "<=", 15, "million", _instructions),
    Budget("lines on which a batch gives the words of single sentences", ">=", 98, "%", _batch),
    Budget("single words that loop or run on", "<=", 0, "of 200", _words),
    Budget("pack, all files", "<=", 10_000_000, "bytes", _bytes, ("model bytes",)),
    Budget("our wheel, installed, without the pipeline", "<=", 200_000, "bytes", _bytes, ("our bytes",)),
)


def one(parts: Parts) -> str:
    """Table of the budgets for one run."""
    header = ["budget (one thread, batch 1 unless said)", "wanted", "reached", ""]
    return table(header, [[budget.name, budget.wanted, *budget.judge(parts)] for budget in BUDGETS])


def side_by_side(results: Path) -> str:
    """Tables of the budgets for all that is recorded below ``results``: ONNX Runtime's, then the C core's."""
    return "\n".join(_recorded(results, whose) for whose in ("", CORE))


def _recorded(results: Path, whose: str) -> str:
    runs = {
        column: [read(results / folder / "results.json")["parts"] for folder in folders]
        for column, folders in RECORDED[whose].items()
    }
    chosen = [budget for budget in BUDGETS if budget.name.startswith(CORE) == bool(whose)]
    rows = [[budget.name, budget.wanted, *(_first(budget, found) for found in runs.values())] for budget in chosen]
    return table(["budget (one thread, batch 1 unless said)", "wanted", *runs], rows)


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
