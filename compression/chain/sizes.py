"""Packs of several sizes from one recipe and one teacher: stages up to the teacher run once, the others for each."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from mobilenmt.compression.chain.chain import Chain
from mobilenmt.compression.chain.compress import compress, plan
from mobilenmt.compression.chain.recipe import load_recipe
from mobilenmt.compression.core.errors import PlanError, RecipeError
from mobilenmt.compression.plan.units import parse_bytes
from mobilenmt.compression.report.read import read_run
from mobilenmt.compression.report.report import HTML, MARKDOWN, write


def chains_of_sizes(recipe: Path, work: Path, sizes: Sequence[str], overrides: Sequence[str] = ()) -> list[Chain]:
    """A chain for each size, in ``work``/SIZE; what they have in common lies in ``work``.

    Args:
        recipe: the TOML file.
        work: the work folder of all.
        sizes: of the packs, as in ``10MB``; each stands in place of ``student.size``, and of ``export.max_bytes``.
        overrides: as for :func:`load_recipe`.

    Raises:
        RecipeError: the recipe will not do, a size is none or is given twice, or each would have its own vocabulary.
    """
    chains: dict[int, Chain] = {}
    for size in sizes:
        try:
            most = parse_bytes(size, "--size")
        except PlanError as error:
            raise RecipeError(str(error)) from None
        if most in chains:
            raise RecipeError(f"--size: {size} is given twice")
        loaded = load_recipe(recipe, [*overrides, f"student.size={size}", f"export.max_bytes={most}"])
        if not {"size", "initial"} & set(loaded.sections.get("vocabulary", {})):
            raise RecipeError(
                f"{recipe.name}: --size: all packs have the vocabulary of their teacher; say how large it is in "
                "vocabulary.size"
            )
        chains[most] = Chain(loaded, work / "".join(size.split()), common=work)
    return list(chains.values())


def plan_all(chains: Sequence[Chain], *, until: str | None = None) -> str:
    """Check all of them, and say what :func:`compress_all` would do. Raises what :func:`plan` does."""
    return "\n\n".join(plan(chain, until=until).text(chain) for chain in chains)


def compress_all(
    chains: Sequence[Chain],
    *,
    until: str | None = None,
    force: bool = False,
    report: Callable[[str], None] = lambda line: print(line, file=sys.stderr),
) -> tuple[Path, Path]:
    """Run one chain after the other, each as :func:`compress` does, and write a report on all of them side by side.

    Nothing is begun before all are checked. Killed at any moment, the next call goes on where this one was.

    Returns:
        The report as a page and as Markdown, in the common work folder.

    Raises:
        MobileNMTError: see :func:`compress`.
    """
    plan_all(chains, until=until)
    done = []
    for chain in chains:
        report(f"{chain.work} …")
        results = compress(chain, until=until, force=force, report=report)
        done.append(read_run(chain.work, sure=tuple(results)))
    common = chains[0].work.parent
    write(done, common / HTML, common / MARKDOWN)
    return common / HTML, common / MARKDOWN
