"""The whole chain: every stage of a recipe that is not done yet, one after the other, and a report of all."""

from __future__ import annotations

import sys
from collections.abc import Callable

from mobilenmt.compression.chain.chain import Chain
from mobilenmt.compression.chain.precheck import Plan, check_chain
from mobilenmt.compression.chain.report import write_report
from mobilenmt.compression.core.errors import RecipeError, StageError
from mobilenmt.compression.core.stage import StageResult


def plan(chain: Chain, *, until: str | None = None) -> Plan:
    """Check all that can be checked in seconds, and say what :func:`compress` would do.

    Raises the errors of :func:`check_chain`; RecipeError if the recipe has no stage ``until``.
    """
    return check_chain(chain, _chosen(chain, until))


def compress(
    chain: Chain,
    *,
    until: str | None = None,
    force: bool = False,
    report: Callable[[str], None] = lambda line: print(line, file=sys.stderr),
) -> dict[str, StageResult]:
    """Run the stages of a chain that are not done, and write ``report.html``, ``.md`` and ``.json`` in its work folder.

    Killed at any moment, the next call goes on where this one was: a stage that has finished is skipped, one that was
    begun resumes.

    Args:
        chain: recipe and work folder.
        until: end behind this stage.
        force: make a stage again whose settings or inputs changed since it was made, or whose results are damaged;
            without it that is an error. Stages that nothing changed for are kept.
        report: receives a line when a stage begins and one when it ends.

    Returns:
        Stage -> its result; first the plan, where the recipe gives the student a size.

    Raises:
        MobileNMTError: from the checks before the start, or from a stage; what is finished stays.
    """
    stages = _chosen(chain, until)
    for warning in check_chain(chain, stages).warnings:
        report(f"warning: {warning}")
    results: dict[str, StageResult] = {}
    planned = chain.keep_plan(force=force)
    if planned is not None:
        results["plan"] = planned
        report(chain.told(planned))
    for stage in stages:
        report(f"{stage} …")
        results[stage] = _run(chain, stage, force, report)
        report(chain.told(results[stage]))
        if stage == "export" and (larger := _larger(chain, results[stage])):
            report(f"warning: {larger}")
        write_report(chain, results)
    return results


def _larger(chain: Chain, exported: StageResult) -> str:
    """What to say if the pack takes more than it may; a plan knows its tokenizer only by what others took."""
    found, most = int(exported.summary["bytes"]), chain.most_bytes
    if most is None or found <= most:
        return ""
    return (
        f"{chain.pack}: the pack takes {found:,} bytes, {found - most:,} more than the {most:,} it may; make the "
        "student smaller, or ask for a size that is smaller by so much"
    )


def _run(chain: Chain, stage: str, force: bool, report: Callable[[str], None]) -> StageResult:
    try:
        return chain.run(stage)
    except StageError as error:
        if not force:
            raise
        report(f"{stage}: made again: {error}")
        return chain.run(stage, force=True)


def _chosen(chain: Chain, until: str | None) -> tuple[str, ...]:
    stages = chain.stages
    if until is None:
        return stages
    if until not in stages:
        told = ", ".join(stages)
        raise RecipeError(f"{chain.recipe.path.name}: it has no stage {until!r}; its stages are {told}")
    return stages[: stages.index(until) + 1]
