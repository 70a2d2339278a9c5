"""The command line of the benchmarks; ``script/bench`` calls ``run``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.engines.base import SPECS
from benchmarks.harness.settings import BUILD, RESULTS, SENTENCES, SHIPPED, Settings
from benchmarks.pack import figures
from benchmarks.pack.restore import restored
from mobilenmt.runtime.errors import MobileNMTError

_QUICK: dict[str, Any] = {
    "lengths": (5, 30, 60),
    "beams": (1, 4),
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
    report = commands.add_parser("report", help="write results.md and the plots again from a results.json")
    report.set_defaults(function=_report)
    report.add_argument("results", type=Path, nargs="?", default=RESULTS / "results.json")
    for name, function in figures.COMMANDS.items():
        described = (function.__doc__ or "").split("\n")[0]
        command = commands.add_parser(name, help=described[0].lower() + described[1:])
        command.set_defaults(function=_figures, figures=function)
        figures.add_options(command, name)
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
    from benchmarks.run import PARTS

    parser.set_defaults(function=_run)
    parser.add_argument("--quick", action="store_true", help="few turns, lengths and batches, to see that all works")
    parser.add_argument(
        "--checkpoint", type=Path, metavar="DIR", help="Marian checkpoint for all; default: the weights of the pack"
    )
    parser.add_argument(
        "--pack",
        type=Path,
        metavar="DIR",
        help="our pack; default: the checkpoint is exported, or else the shipped pack",
    )
    parser.add_argument("--sentences", type=Path, default=SENTENCES, metavar="FILE", help="one sentence a line")
    parser.add_argument("--dev", type=Path, nargs="+", default=[], metavar="FILE", help="source, tab, reference")
    parser.add_argument("--only", nargs="+", default=[], metavar="PART", help=f"some of: {', '.join(PARTS)}")
    parser.add_argument("--engines", nargs="+", metavar="NAME", help=f"some of: {', '.join(SPECS)}")
    parser.add_argument("--resume", action="store_true", help="go on with a run that was stopped")
    parser.add_argument("--turns", type=int, help="turns of each engine in each setting")
    parser.add_argument("--lengths", type=int, nargs="+", help="source and target tokens")
    parser.add_argument("--beams", type=int, nargs="+")
    parser.add_argument("--batches", type=int, nargs="+")
    parser.add_argument("--threads", type=int, nargs="+")
    parser.add_argument("--build", type=Path, default=BUILD, metavar="DIR", help="folder for converted models")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="default: benchmarks/results for a whole run, else build/bench/out"
    )


def _run(options: argparse.Namespace) -> None:
    from benchmarks.run import run

    values: dict[str, Any] = dict(_QUICK) if options.quick else {}
    for name in ("engines", "lengths", "beams", "batches", "threads", "dev"):
        if getattr(options, name):
            values[name] = tuple(getattr(options, name))
    if options.turns is not None:
        values["turns"] = options.turns
    partial = options.quick or options.only or options.engines
    pack = options.pack or (None if options.checkpoint else SHIPPED)
    settings = Settings(
        checkpoint=(options.checkpoint or restored(pack, options.build)).resolve(),
        pack=pack.resolve() if pack else None,
        sentences=options.sentences,
        build=options.build.resolve(),
        out=(options.out or (BUILD / "out" if partial else RESULTS)).resolve(),
        **values,
    )
    results = run(settings, options.only, options.resume)
    print(results.path.with_suffix(".md").read_text(encoding="utf-8"))


def _figures(options: argparse.Namespace) -> None:
    print(json.dumps(options.figures(options), ensure_ascii=False, indent=1))


def _report(options: argparse.Namespace) -> None:
    from benchmarks.harness.results import read, write_atomically
    from benchmarks.report.report import markdown
    from benchmarks.run import draw

    content = read(options.results)
    write_atomically(options.results.with_suffix(".md"), markdown(content))
    draw(content, options.results.parent)


if __name__ == "__main__":
    sys.exit(main())
