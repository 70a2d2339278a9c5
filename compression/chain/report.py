"""The report of a chain: what every stage did, what came out, and how good it is; for people and for programs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mobilenmt.compression.chain.chain import Chain
from mobilenmt.compression.core.settings import to_mapping
from mobilenmt.compression.core.stage import StageResult, write_json
from mobilenmt.compression.evaluate.evaluate import EvaluateSettings
from mobilenmt.compression.evaluate.evaluation import TABLE
from mobilenmt.runtime.atomic import atomic_path

MARKDOWN = "report.md"
JSON = "report.json"

_BEHIND = 200
"""A value longer than this is left to report.json."""


def write_report(chain: Chain, results: Mapping[str, StageResult]) -> None:
    """Write report.md and report.json into the work folder, of the stages that are done so far."""
    text = render(chain, results)
    with atomic_path(chain.work / MARKDOWN) as temporary:
        temporary.write_text(text, encoding="utf-8")
    recipe = chain.recipe
    write_json(
        chain.work / JSON,
        {
            "name": recipe.name,
            "source_language": recipe.source_language,
            "target_language": recipe.target_language,
            "seed": recipe.seed,
            "recipe": to_mapping(recipe.sections),
            "stages": {name: to_mapping(result.summary) for name, result in results.items()},
        },
    )


def render(chain: Chain, results: Mapping[str, StageResult]) -> str:
    """The report as Markdown."""
    recipe = chain.recipe
    lines = [f"# {recipe.name}: {recipe.source_language} to {recipe.target_language}", ""]
    if "export" in results:
        lines += [f"The pack is `{chain.pack}`. Try it:", "", f"    mobilenmt translate --pack {chain.pack} TEXT", ""]
    lines += ["| stage | what | figure |", "| --- | --- | --- |"]
    for name, result in results.items():
        rows = [(key, value) for key, value in _plain(result.summary).items() if len(value) <= _BEHIND]
        for index, (key, value) in enumerate(rows or [("done", "")]):
            lines.append(f"| {name if index == 0 else ''} | {key} | {value} |")
    if "evaluate" in results:
        lines += ["", "## Scores", "", (chain.folder("evaluate") / TABLE).read_text(encoding="utf-8").rstrip()]
        lost = results["evaluate"].summary.get("lost") or {}
        if lost:
            sets = "dev" if chain.section(EvaluateSettings).dev else "test"
            told = ", ".join(
                f"{value:+.2f} {metric}" for metric, value in (("BLEU", lost["bleu"]), ("chrF", lost["chrf"]))
            )
            lines += ["", f"Lost by the pack against the fp32 checkpoint, mean of the {sets} sets: {told}."]
    made = f"Made from `{recipe.path.name}` with seed {recipe.seed}."
    lines += [
        "",
        f"{made} The manifest.json of each stage has its settings, hashes of what went in and came out, and versions.",
    ]
    return "\n".join(lines) + "\n"


def _plain(summary: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Values that fit into a table, with dotted keys; scores have their own table."""
    found: dict[str, str] = {}
    for key, value in summary.items():
        if key in ("scores", "lost") and not prefix and isinstance(value, Mapping):
            continue
        if isinstance(value, Mapping):
            found.update(_plain(value, f"{prefix}{key}."))
        elif isinstance(value, bool) or value is None:
            continue
        elif isinstance(value, int):
            found[f"{prefix}{key}"] = f"{value:,}"
        elif isinstance(value, float):
            found[f"{prefix}{key}"] = f"{value:,.4g}"
        elif isinstance(value, str) and value:
            found[f"{prefix}{key}"] = value.replace("|", "/").replace("\n", " ")
    return found
