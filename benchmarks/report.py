"""results.md from results.json: every figure in the Markdown comes from the JSON beside it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from benchmarks import tables

_SECTIONS: dict[str, tuple[str, Callable[[dict[str, Any]], str]]] = {
    "latency": ("Latency of one sentence", tables.latency),
    "throughput": ("Words a second by batch", tables.throughput),
}


def markdown(content: dict[str, Any]) -> str:
    """The report of a results.json's content."""
    text = "# Results\n\nMade from `results.json` by `python -m benchmarks report`; that file has the raw samples.\n"
    text += _provenance(content)
    for name, (title, render) in _SECTIONS.items():
        part = content["parts"].get(name)
        if part is not None:
            text += f"\n## {title}\n{render(part)}{_taken(part['taken'])}"
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
