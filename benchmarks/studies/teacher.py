"""Speed of teachers: sentences a second by number type, batch size and search.

    python benchmarks/studies/teacher.py CHECKPOINT... --pairs work/corpus/pairs.tsv.zst --lines 400

CHECKPOINT is a folder that transformers loads, or a pack. Loading is not counted. Lines are taken evenly from the file.
"""

from __future__ import annotations

import argparse
import itertools
import os
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

from mobilenmt.compression.core.pairs import read_pairs
from mobilenmt.compression.teacher.check import check_teacher
from mobilenmt.compression.teacher.machine import find_machine
from mobilenmt.compression.teacher.open import open_teacher
from mobilenmt.compression.teacher.settings import TeacherSettings
from mobilenmt.compression.teacher.shards import Item
from mobilenmt.compression.teacher.spec import TeacherSpec
from mobilenmt.compression.teacher.text import translate_shard


def main() -> None:
    """Measure each combination once, after a short warm-up, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", nargs="+")
    parser.add_argument("--pairs", type=Path, required=True)
    parser.add_argument("--lines", type=int, default=400)
    parser.add_argument("--languages", nargs=2, default=("en", "de"), metavar=("SOURCE", "TARGET"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--batch-tokens", nargs="+", type=int, default=[4096])
    parser.add_argument("--searches", nargs="+", default=["greedy", "beam"])
    arguments = parser.parse_args()
    total = sum(1 for _ in read_pairs(arguments.pairs))
    step = max(1, total // arguments.lines)
    lines = itertools.islice(read_pairs(arguments.pairs), 0, step * arguments.lines, step)
    items = [Item(pair.source, ((pair.target, pair.tag),)) for pair in lines]
    print("| checkpoint | type | batch tokens | search | sentences/s | tokens/s |\n|---|---|---|---|---|---|")
    for checkpoint in arguments.checkpoints:
        base = TeacherSettings(str(Path(checkpoint).absolute()), threads=arguments.threads)
        checked = check_teacher(base, *arguments.languages)
        dtypes = ["float32"] if checked.family == "pack" else arguments.dtypes
        for dtype, tokens, search in itertools.product(dtypes, arguments.batch_tokens, arguments.searches):
            settings = replace(base, dtype=dtype, batch_tokens=tokens, search=search)
            spec = TeacherSpec.of(settings, checked, arguments.languages[1], 1, find_machine(settings))
            teacher = open_teacher(spec)
            translate_shard(teacher, 0, items[:8], spec)
            found = translate_shard(teacher, 0, items, spec)
            print(
                f"| {Path(checkpoint).name} ({checked.family}) | {spec.dtype} | {tokens} | {search} "
                f"| {len(items) / found.seconds:.1f} | {found.counts['tokens'] / found.seconds:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
