"""results.md from results.json: every figure in the Markdown comes from the JSON beside it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from benchmarks.report import more_tables, tables
from benchmarks.report.bars import bars

_SECTIONS: tuple[tuple[str, str, Callable[[dict[str, Any]], str]], ...] = (
    ("latency", "Latency of one sentence", tables.latency),
    ("latency", "Growth with length", more_tables.grows),
    ("throughput", "Words a second by batch", tables.throughput),
    ("endtoend", "Text to text", more_tables.endtoend),
    ("cold", "Cold start", more_tables.cold),
    ("memory", "Memory", more_tables.memory),
    ("size", "Bytes", more_tables.size),
    ("breakdown", "Where the time goes", more_tables.breakdown),
    ("roofline", "The floor", more_tables.roofline),
    ("agreement", "The same words", more_tables.agreement),
    ("quality", "Quality", more_tables.quality),
)


def markdown(content: dict[str, Any]) -> str:
    """The report of a results.json's content."""
    parts = content["parts"]
    text = "# Results\n\nMade from `results.json` by `python -m benchmarks report`; that file has the raw samples.\n"
    text += f"{_provenance(content)}\n## Bars\n\n{bars(parts)}"
    for name, title, render in _SECTIONS:
        body = render(parts[name]) if name in parts else ""
        if body:
            text += f"\n## {title}\n{body}{_taken(parts[name]['taken'])}"
    return text


def _provenance(content: dict[str, Any]) -> str:
    found = content["machine"]
    rows = [[key, ", ".join(value) if isinstance(value, list) else value] for key, value in found.items()]
    packages = ", ".join(f"{name} {version}" for name, version in content["versions"].items())
    return "\n" + tables.table(["machine", ""], [*rows, ["packages", packages]])


def _taken(taken: dict[str, Any]) -> str:
    at = time.strftime("%Y-%m-%d %H:%M", time.gmtime(taken["at"]))
    loads = ", ".join(map(str, taken["load average"]))
    return f"\nTaken {at} UTC in {taken['seconds']:.0f} s; load average at the end {loads}.\n"
