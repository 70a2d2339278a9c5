"""The report of a chain, in its work folder: a page and Markdown for people, JSON for programs."""

from __future__ import annotations

import os
from collections.abc import Mapping

from mobilenmt.compression.chain.chain import Chain
from mobilenmt.compression.core.settings import to_mapping
from mobilenmt.compression.core.stage import StageResult, write_json
from mobilenmt.compression.report.read import REPORT, read_run
from mobilenmt.compression.report.report import HTML, MARKDOWN, write


def write_report(chain: Chain, results: Mapping[str, StageResult]) -> None:
    """Write report.html, report.md and report.json into the work folder, of the stages that are done so far.

    Raises ReportError if what a stage left is damaged.
    """
    recipe = chain.recipe
    write_json(
        chain.work / REPORT,
        {
            "name": recipe.name,
            "source_language": recipe.source_language,
            "target_language": recipe.target_language,
            "seed": recipe.seed,
            "chain": chain.stages,
            "elsewhere": _elsewhere(chain),
            "recipe": to_mapping(recipe.sections),
            "stages": {name: to_mapping(result.summary) for name, result in results.items()},
        },
    )
    write([read_run(chain.work, sure=tuple(results))], chain.work / HTML, chain.work / MARKDOWN)


def _elsewhere(chain: Chain) -> dict[str, str]:
    """Stages whose folder is in another work folder -> where, from this one."""
    folders = {name: chain.folder(name) for name in chain.stages}
    return {name: os.path.relpath(at, chain.work) for name, at in folders.items() if at.parent != chain.work}
