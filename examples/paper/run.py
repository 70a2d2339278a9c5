"""The paper's principles again, on real text, small: trains every configuration with every seed, and says what held.

    python examples/paper/run.py --data FOLDER [--only NAME|N …] [--seeds 2] [--updates U] [--work FOLDER] [--report]

Can be killed at any moment: the same command goes on where it was, and skips what is done.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from mobilenmt.compression.core.errors import RecipeError, StoppedError
from mobilenmt.runtime.errors import MobileNMTError
from study import HERE, Study, load_study


def main(arguments: Sequence[str] | None = None) -> int:
    """Return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, default=HERE / "data", help="folder of the text (train/, eval/)")
    parser.add_argument("--work", type=Path, default=HERE / "work", help="folder of what is made")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="configurations, or numbers of principles")
    parser.add_argument("--seeds", type=int, default=2, help="how many of each (2)")
    parser.add_argument("--updates", type=int, help="of each training, if not as in paper.toml")
    parser.add_argument("--study", type=Path, default=HERE / "paper.toml", help="another study than paper.toml")
    parser.add_argument("--report", action="store_true", help="write the tables of what is done, and train nothing")
    given = parser.parse_args(arguments)
    try:
        if given.seeds < 1:
            raise RecipeError(f"--seeds: expected at least 1, found {given.seeds}")
        changes = {} if given.updates is None else {"steps": given.updates}
        study = load_study(given.data, file=given.study, changes=changes)
        return _run(study, chosen(study, given.only), given.seeds, given.work, report=given.report)
    except StoppedError as error:
        print(f"paper: {error}", file=sys.stderr)
        return error.exit_code
    except MobileNMTError as error:
        print(f"paper: error: {error}", file=sys.stderr)
        return 1


def chosen(study: Study, only: Sequence[str] | None) -> list[str]:
    """Names of the configurations to train, in the order of the comparisons.

    Raises RecipeError for a name that is none, nor the number of a principle.
    """
    named = [name for item in study.comparisons for name in (item.better, item.worse)]
    every = list(dict.fromkeys([*named, *study.configurations]))
    if only is None:
        return every
    wanted: set[str] = set()
    for text in only:
        of = {n for item in study.comparisons if str(item.principle) == text for n in (item.better, item.worse)}
        if not of and text not in every:
            raise RecipeError(f"--only: {text!r} is neither a principle nor one of {', '.join(every)}")
        wanted |= of or {text}
    return [name for name in every if name in wanted]


def _run(study: Study, names: Sequence[str], seeds: int, work: Path, *, report: bool) -> int:
    from outcome import collect, write_outcome
    from trial import Trials

    trials = Trials(study, work, lambda line: print(f"  {line}", flush=True))
    if not report:
        work.mkdir(parents=True, exist_ok=True)
        todo = [(name, seed) for seed in range(1, seeds + 1) for name in names]
        for number, (name, seed) in enumerate(todo, 1):
            begin = time.monotonic()
            print(f"{number} of {len(todo)}: {name}, seed {seed}", flush=True)
            found = trials.run(name, seed)
            shown = ", ".join(f"{dev} {score['bleu']:.1f} BLEU" for dev, score in found["scores"].items())
            print(f"  {shown} ({time.monotonic() - begin:.0f} s)", flush=True)
            write_outcome(study, collect(study, trials.folder), work)
    table = write_outcome(study, collect(study, trials.folder), work)
    print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
