"""Markdown tables of speed: latency and throughput."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from benchmarks.engines.base import SPECS
from benchmarks.report.stats import Ratio, ratio, summarize

Row = dict[str, Any]


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; empty if there are no rows."""
    body = ["| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in rows]
    if not body:
        return ""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header), *body]
    return "\n".join(lines) + "\n"


def label(engine: str) -> str:
    """How tables name an engine."""
    return SPECS[engine].label if engine in SPECS else engine


def milliseconds(seconds: float) -> str:
    """A time in milliseconds, to three digits."""
    return f"{seconds * 1000:.3g}" if seconds < 1 else f"{seconds * 1000:,.0f}"


def times(value: Ratio) -> str:
    """A ratio with its interval."""
    return f"{value.value:.2f} ({value.low:.2f}-{value.high:.2f})"


def values(rows: Sequence[Row], key: str) -> list[Any]:
    """The different values of a key in the order in which they come."""
    return list(dict.fromkeys(row[key] for row in rows))


def pick(rows: Sequence[Row], **wanted: object) -> Row | None:
    """The row with these values, if there is one."""
    return next((row for row in rows if all(row[key] == value for key, value in wanted.items())), None)


def latency(part: Row) -> str:
    """Median and 95th percentile by length; and how many times longer than our INT8 engine each takes."""
    rows = part["rows"]
    text = ""
    for threads in values(rows, "threads"):
        for beam in values(rows, "beam"):
            chosen = [row for row in rows if row["threads"] == threads and row["beam"] == beam]
            lengths = values(chosen, "length")
            header = ["engine", *(f"{length} tokens" for length in lengths)]
            cells, ratios = [], []
            for engine in values(chosen, "engine"):
                found = [pick(chosen, engine=engine, length=length) for length in lengths]
                sums = [summarize(row["seconds"]) if row else None for row in found]
                shown = [f"{milliseconds(s.median)} / {milliseconds(s.p95)}" if s else "" for s in sums]
                cells.append([label(engine), *shown])
                ours = [pick(chosen, engine="ours-int8", length=length) for length in lengths]
                if engine != "ours-int8" and all(ours):
                    pairs = zip(found, ours, strict=True)
                    compared = [times(ratio(a["seconds"], b["seconds"])) if a and b else "" for a, b in pairs]
                    ratios.append([label(engine), *compared])
            text += f"\n{_setting(threads, beam)}, median / 95th percentile in ms:\n\n{table(header, cells)}"
            if ratios:
                header[0] = "times slower than mobilenmt INT8 (95 % interval)"
                text += f"\n{table(header, ratios)}"
    return text


def throughput(part: Row) -> str:
    """Source words a second by batch."""
    rows, words = part["rows"], part["words"]
    text = f"\n{part['sentences']} sentences, {words} words, {part['tokens']} tokens; source words a second.\n"
    for threads in values(rows, "threads"):
        for beam in values(rows, "beam"):
            for forced in values(rows, "forced"):
                chosen = [
                    row for row in rows if (row["threads"], row["beam"], row["forced"]) == (threads, beam, forced)
                ]
                batches = values(chosen, "batch")
                cells = []
                for engine in values(chosen, "engine"):
                    found = [pick(chosen, engine=engine, batch=batch) for batch in batches]
                    cells.append(
                        [
                            label(engine),
                            *(f"{words / summarize(row['seconds']).median:,.0f}" if row else "" for row in found),
                        ]
                    )
                kind = "output as long as the source" if forced else "the model ends the output"
                header = ["engine", *(f"batch {batch}" for batch in batches)]
                text += f"\n{_setting(threads, beam)}, {kind}:\n\n{table(header, cells)}"
    return text


def _setting(threads: int, beam: int) -> str:
    return f"{threads} thread{'s' if threads > 1 else ''}, " + ("greedy" if beam == 1 else f"beam {beam}")
