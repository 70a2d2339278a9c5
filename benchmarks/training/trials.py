"""What an update is worth: settings of the trainer compared at equal tokens, by the loss on the dev files.

    python -m benchmarks.training.trials RECIPE WORK --tokens 2000000 --set student.d_model=128 \\
        --try optimizer=adam learning_rate=1e-3,2e-3,4e-3 --try optimizer=muon learning_rate=2e-3,4e-3 --out trials.json

Each ``--try`` is a set of values of ``[distill]``, all combinations of which are trained from the same start on the
same text. The dev loss (cross-entropy in nats a token, of the moving average where there is one) is taken twelve times
on the way. The table has the loss at the end, and how many tokens the setting needs for the loss that the best of the
first ``--try`` ends with. A later call with the same ``--out`` adds to it.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tabulate import tabulate

from benchmarks.training.common import Setting, make_parser, tokens_of
from mobilenmt.compression.core.settings import Override, from_mapping, to_mapping
from mobilenmt.compression.dataset.batches import Batch, by_length
from mobilenmt.compression.train.averaging import swapped
from mobilenmt.compression.train.devset import read_dev_sets
from mobilenmt.compression.train.schedule import learning_rate
from mobilenmt.compression.train.update import DeviceBatch, Updater
from mobilenmt.runtime.atomic import atomic_path

_POINTS = 12
"""Evaluations of a run; the gaps between them grow, as a loss falls ever slower."""

Curve = list[tuple[int, float]]


def dev_batches(setting: Setting) -> list[Batch]:
    """The dev files of a recipe, tokenized, those of one length together."""
    vocabulary, pad = setting.vocabulary, setting.vocabulary.pad
    texts: tuple[list[str], list[str]] = ([], [])
    for dev in read_dev_sets(setting.settings.dev, setting.settings.dev_lines):
        texts[0].extend(dev.sources)
        texts[1].extend(dev.references)
    longest = setting.settings.max_tokens - 1
    source, target = ([[*ids[:longest], vocabulary.eos] for ids in vocabulary.encode_batch(side)] for side in texts)

    def padded(rows: list[list[int]]) -> Any:
        out = np.full((len(rows), max(map(len, rows))), pad, np.int64)
        for row, ids in zip(out, rows, strict=True):
            row[: len(ids)] = ids
        return out

    batches = []
    for indices in by_length(np.array([max(len(a), len(b)) for a, b in zip(source, target, strict=True)]), 4096):
        left, right = padded([source[i] for i in indices]), padded([target[i] for i in indices])
        before = np.concatenate([np.full_like(right[:, :1], pad), right[:, :-1]], axis=1)
        positions = np.flatnonzero(right.reshape(-1) != pad)
        batches.append(Batch(left, left != pad, before, positions, right.reshape(-1)[positions]))
    return batches


@torch.no_grad()
def dev_loss(updater: Updater, batches: list[Batch]) -> float:
    """Cross-entropy a token, of the moving average if there is one."""
    updater.student.train(False)
    total = 0.0
    with swapped(updater.parameters, None if updater.average is None else updater.average.values):
        for batch in batches:
            data = DeviceBatch(batch, updater.accelerator.device)
            _, sums = updater.module(
                data.source, data.source_mask, data.decoder_input, data.positions, data.labels, None
            )
            total += float(sums[0])
    updater.student.train(True)
    return total / sum(batch.tokens for batch in batches)


def run(setting: Setting, tokens: int, dev: list[Batch]) -> dict[str, Any]:
    """Train for so many target tokens; returns the curve of the dev loss and the time."""
    settings = setting.settings
    updater = setting.updater()
    total = max(1, round(tokens / (settings.batch_tokens * 0.998)))
    points = {max(1, round(total * (i / _POINTS) ** 1.5)) for i in range(1, _POINTS + 1)}
    seen, seconds, curve = 0, 0.0, Curve()
    for step, work in zip(range(1, total + 1), setting.batches(), strict=False):
        begin = time.process_time()
        count = tokens_of(work)
        updater.update(step, work, count, learning_rate(settings, step, total))
        seconds += time.process_time() - begin
        seen += count
        if step in points:
            curve.append((seen, dev_loss(updater, dev)))
    return {"updates": total, "tokens": seen, "seconds": round(seconds, 1), "curve": curve}


def tokens_to(curve: Curve, loss: float) -> float | None:
    """Tokens at which a curve first reaches a loss, interpolated; None if it never does."""
    if curve[0][1] <= loss:
        return float(curve[0][0])
    for (before, high), (after, low) in itertools.pairwise(curve):
        if low <= loss:
            return before + (after - before) * (high - loss) / (high - low)
    return None


def table(runs: list[dict[str, Any]]) -> str:
    """All runs, the best of each ``--try`` marked."""
    best = {kind: min(end(run) for run in runs if run["try"] == kind) for kind in {run["try"] for run in runs}}
    rows = []
    for item in runs:
        needed = tokens_to(item["curve"], best[0])
        rows.append(
            (
                ", ".join(f"{key} {value}" for key, value in item["values"].items()),
                item["updates"],
                f"{item['tokens'] / 1e6:.2f}",
                f"{end(item):.4f}" + (" *" if end(item) == best[item["try"]] else ""),
                "-" if needed is None else f"{needed / 1e6:.2f}",
                "-" if needed is None else f"{item['tokens'] / needed:.2f}",
                round(item["tokens"] / item["seconds"]),
            )
        )
    head = ("settings", "updates", "M tokens", "dev loss", "M tokens to the first's best", "times fewer", "tokens/s")
    return tabulate(rows, head, tablefmt="github", disable_numparse=True)


def end(item: dict[str, Any]) -> float:
    """Dev loss at the end of a run."""
    return float(item["curve"][-1][1])


def combinations(given: list[str]) -> list[dict[str, str]]:
    """``key=a,b`` and ``other=c`` to all combinations."""
    keys = [item.partition("=")[0] for item in given]
    values = [item.partition("=")[2].split(",") for item in given]
    return [dict(zip(keys, chosen, strict=True)) for chosen in itertools.product(*values)]


def main(arguments: list[str] | None = None) -> int:
    """The command."""
    parser = make_parser("trials", __doc__)
    parser.add_argument("--tokens", type=int, default=2_000_000, help="target tokens of a run")
    parser.add_argument("--try", action="append", nargs="+", required=True, metavar="KEY=A,B", dest="tries")
    parser.add_argument("--out", type=Path, required=True, help="JSON; what is in it already is not run again")
    options = parser.parse_args(arguments)
    base = Setting.of(options)
    dev = dev_batches(base)
    runs: list[dict[str, Any]] = json.loads(options.out.read_text()) if options.out.exists() else []
    described = {"set": options.set, "tokens": options.tokens}
    for number, given in enumerate(options.tries):
        for values in combinations(given):
            if any(item["values"] == values and item["described"] == described for item in runs):
                continue
            changed = {key: Override(value) for key, value in values.items()}
            kept = {item.name: getattr(base.settings, item.name) for item in dataclasses.fields(base.settings)}
            raw = {**to_mapping(kept), **changed}
            settings = from_mapping(type(base.settings), raw, "--try")
            found = run(dataclasses.replace(base, settings=settings), options.tokens, dev)
            runs.append({"try": number, "values": values, "described": described, **found})
            print(values, found["curve"][-1], found["seconds"], file=sys.stderr, flush=True)
            with atomic_path(options.out) as temporary:
                temporary.write_text(json.dumps(runs, indent=1) + "\n")
    print(table(runs))
    return 0


if __name__ == "__main__":
    sys.exit(main())
