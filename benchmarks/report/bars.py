"""The bars that the project set itself, each with the figure reached."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.report.stats import ratio, summarize
from benchmarks.report.tables import Row, pick, table, values

Parts = dict[str, Any]


@dataclass(frozen=True)
class Bar:
    """One bar: what it asks, and how the parts of a run answer it."""

    name: str
    wanted: str
    measure: Callable[[Parts], tuple[float, str] | None]
    """Figure and how it is shown; None where its part was not run."""
    limit: float
    at_least: bool

    def judge(self, parts: Parts) -> tuple[str, str]:
        """The figure reached, and whether that is enough."""
        try:
            found = self.measure(parts)
        except KeyError:  # a part that was not run
            found = None
        if found is None:
            return "", "not measured"
        value, shown = found
        met = value >= self.limit if self.at_least else value <= self.limit
        return shown, "met" if met else "not met"


def _latency(parts: Parts, engine: str, beam: int = 1, length: int = 30) -> Row | None:
    return pick(parts["latency"]["rows"], engine=engine, threads=1, beam=beam, length=length)


def _faster_than(engine: str, beam: int = 1) -> Callable[[Parts], tuple[float, str] | None]:
    def measure(parts: Parts) -> tuple[float, str] | None:
        theirs, ours = _latency(parts, engine, beam), _latency(parts, "ours-int8", beam)
        if theirs is None or ours is None:
            return None
        found = ratio(theirs["seconds"], ours["seconds"])
        return found.value, f"{found.value:.2f} times ({found.low:.2f}-{found.high:.2f})"

    return measure


def _median(parts: Parts) -> tuple[float, str] | None:
    row = _latency(parts, "ours-int8")
    if row is None:
        return None
    found = summarize(row["seconds"]).median * 1000
    return found, f"{found:.2f} ms"


def _throughput(threads: int) -> Callable[[Parts], tuple[float, str] | None]:
    """The lower of forced and natural lengths, so that neither hides the other."""

    def measure(parts: Parts) -> tuple[float, str] | None:
        rows = parts["throughput"]["rows"]
        found = []
        for forced in values(rows, "forced"):
            setting = {"threads": threads, "beam": 1, "batch": 32, "forced": forced}
            theirs, ours = pick(rows, engine="ctranslate2-int8", **setting), pick(rows, engine="ours-int8", **setting)
            if theirs is None or ours is None:
                return None
            found.append(ratio(theirs["seconds"], ours["seconds"]).value)
        return min(found), " and ".join(f"{value:.2f}" for value in found) + " times (forced and natural lengths)"

    return measure


def _quality(parts: Parts) -> tuple[float, str] | None:
    means = parts["quality"]["means"]
    ours, theirs = (pick(means, engine=name, beam=1) for name in ("ours-int8", "ctranslate2-int8"))
    if ours is None or theirs is None:
        return None
    lost = theirs["BLEU"] - ours["BLEU"]
    return lost, f"{ours['BLEU']:.2f} against {theirs['BLEU']:.2f} BLEU"


def _less_memory(key: str) -> Callable[[Parts], tuple[float, str] | None]:
    def measure(parts: Parts) -> tuple[float, str] | None:
        rows = parts["memory"]["rows"]
        ours, big = pick(rows, engine="ours-int8"), pick(rows, engine="big-optimum-fp32")
        if ours is None or big is None:
            return None
        share = 100 * (1 - ours[key] / big[key])
        return share, f"{share:.2f} % ({ours[key] / 1e6:.1f} of {big[key] / 1e6:,.0f} MB)"

    return measure


def _memory(parts: Parts) -> tuple[float, str] | None:
    found = parts["memory"]
    row = found.get("bpe") or pick(found["rows"], engine="ours-int8")
    if row is None:
        return None
    kind = "BPE tokenizer of the same size" if found.get("bpe") else "the pack's own tokenizer"
    return row["steady"] / 1e6, f"{row['steady'] / 1e6:.1f} MB steady, {row['peak'] / 1e6:.1f} MB peak ({kind})"


def _cold(parts: Parts) -> tuple[float, str] | None:
    row = pick(parts["cold"]["rows"], engine="ours-int8")
    if row is None:
        return None
    found = summarize(row["seconds"])
    return found.median, f"{found.median:.3f} s median, {found.best:.3f} s best"


def _growth(parts: Parts) -> tuple[float, str] | None:
    short, long = (_latency(parts, "ours-int8", length=length) for length in (25, 100))
    if short is None or long is None:
        return None
    found = ratio(long["seconds"], short["seconds"])
    return found.value, f"{found.value:.2f} times ({found.low:.2f}-{found.high:.2f})"


BARS = (
    Bar("greedy, 30 tokens, against CTranslate2 INT8", ">= 2 times", _faster_than("ctranslate2-int8"), 2, True),
    Bar("BLEU lost against CTranslate2 INT8, dev sets, greedy", "<= 0.2", _quality, 0.2, False),
    Bar("beam 4, 30 tokens, against CTranslate2 INT8", ">= 1.5 times", _faster_than("ctranslate2-int8", 4), 1.5, True),
    Bar("batch 32, 1 thread, against CTranslate2 INT8", ">= 1 times", _throughput(1), 1, True),
    Bar("batch 32, 2 threads, against CTranslate2 INT8", ">= 1 times", _throughput(2), 1, True),
    Bar("greedy, 30 tokens, against optimum INT8", ">= 10 times", _faster_than("optimum-int8"), 10, True),
    Bar("greedy, 30 tokens, against Transformer-big", ">= 47 times", _faster_than("big-optimum-fp32"), 47, True),
    Bar("peak memory, less than Transformer-big", ">= 99 %", _less_memory("peak"), 99, True),
    Bar("steady memory, less than Transformer-big", ">= 98.5 %", _less_memory("steady"), 98.5, True),
    Bar("latency, 30 tokens, greedy", "<= 10 ms", _median, 10, False),
    Bar("memory added", "<= 15 MB", _memory, 15, False),
    Bar("cold start", "<= 0.25 s", _cold, 0.25, False),
    Bar("100 tokens against 25 tokens", "<= 4.4 times", _growth, 4.4, False),
)


def bars(parts: Parts) -> str:
    """Table of the bars, met or not."""
    return table(
        ["bar (one thread, batch 1 unless said)", "wanted", "reached", ""],
        [[bar.name, bar.wanted, *bar.judge(parts)] for bar in BARS],
    )
