"""The command line of the benchmarks; ``script/bench`` calls ``run``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from benchmarks import ROOT
from benchmarks.harness.errors import BenchmarkError
from benchmarks.harness.restore import restored
from benchmarks.harness.results import read, write
from benchmarks.harness.settings import BUILD, RESULTS, SHIPPED, Settings
from benchmarks.report import budgets
from benchmarks.run import PARTS, report, run
from mobilenmt.runtime.errors import MobileNMTError

_PAGE = ROOT / "benchmarks" / "README.md"
_QUICK: dict[str, Any] = {
    "lengths": (5, 30, 60),
    "batches": (1, 8, 32),
    "threads": (1,),
    "turns": 3,
    "turn_seconds": 0.0,
    "dev_lines": 30,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure mobilenmt beside other engines.")
    commands = parser.add_subparsers(dest="command", required=True)
    _run_parser(commands.add_parser("run", help="measure all engines and write results.json, results.md and plots"))
    again = commands.add_parser("report", help="write results.md and the plots again from a results.json")
    again.set_defaults(function=lambda options: report(options.results, read(options.results)))
    again.add_argument("results", type=Path, nargs="?", default=RESULTS / "results.json")
    table = commands.add_parser("budgets", help="write the table of budgets in benchmarks/README.md from all results")
    table.set_defaults(function=_budgets)
    table.add_argument("--check", action="store_true", help="only say whether it is up to date")
    options = parser.parse_args(arguments)
    try:
        options.function(options)
    except (MobileNMTError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def _run_parser(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(function=_run)
    parser.add_argument("--quick", action="store_true", help="few turns, lengths and batches, to see that all works")
    parser.add_argument("--resume", action="store_true", help="go on with a run that was stopped")
    parser.add_argument("--only", nargs="+", default=[], metavar="PART", help=f"some of: {', '.join(PARTS)}")
    kinds: dict[str, Callable[[str], Any]]
    kinds = {"Path": lambda text: Path(text).resolve(), "int": int, "float": float, "str": str}
    for item in fields(Settings):
        if item.metadata:
            kind = next(kind for name, kind in kinds.items() if name in str(item.type))
            several: dict[str, Any] = {"nargs": "+"} if isinstance(item.default, tuple) else {}
            name = f"--{item.name.replace('_', '-')}"
            parser.add_argument(name, type=kind, default=argparse.SUPPRESS, **several, **item.metadata)


def _run(options: argparse.Namespace) -> None:
    values = dict(_QUICK) if options.quick else {}
    for name in {item.name for item in fields(Settings)} & vars(options).keys():
        value = getattr(options, name)
        values[name] = tuple(value) if isinstance(value, list) else value
    build = values.setdefault("build", BUILD)
    if "checkpoint" not in values:
        values["pack"] = values.get("pack", SHIPPED)
        values["checkpoint"] = restored(values["pack"], build)
    if options.quick or options.only or "engines" in values:
        values.setdefault("out", BUILD / "out")
    results = run(Settings(**values), options.only, options.resume)
    print(results.path.with_suffix(".md").read_text(encoding="utf-8"))


def _budgets(options: argparse.Namespace) -> None:
    page = _PAGE.read_text(encoding="utf-8")
    wanted = budgets.insert(page, budgets.side_by_side(RESULTS))
    if options.check and page != wanted:
        raise BenchmarkError(f"the budgets in {_PAGE} are not what the results say: python -m benchmarks budgets")
    if not options.check:
        write(_PAGE, wanted)


if __name__ == "__main__":
    sys.exit(main())
