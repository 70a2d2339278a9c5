"""The same words on every processor? Outputs of one pack here and on emulated ones, and what differs.

python -m benchmarks.pack.arm outputs --pack en-de --lines 100 > here.json
qemu-x86_64 -cpu Haswell python -m benchmarks.pack.arm outputs ... > haswell.json
python -m benchmarks.pack.arm compare here.json haswell.json [--test FILE.tsv] [--out DIR]

``script/arm`` does it all. ``outputs`` needs the runtime's three packages only.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.engines.textual import natural_limit
from benchmarks.harness.machine import cpu_flags, cpuinfo
from benchmarks.harness.text import compare, read_lines
from mobilenmt.runtime.engine import Engine
from mobilenmt.runtime.errors import MobileNMTError
from mobilenmt.runtime.pack import Pack
from mobilenmt.runtime.tokenizer import Tokenizer

_DOT_PRODUCTS = {"avx512_vnni", "avx_vnni", "asimddp"}
Outputs = dict[str, Any]


def outputs(pack: str, sentences: Path, lines: int, beams: Sequence[int] = (1, 4)) -> Outputs:
    """Ids, words and scores of the first lines of a file (or of a TSV file's first column), greedy and beam."""
    opened = Pack.open(pack)
    manifest = opened.manifest
    tokenizer = Tokenizer(opened.file("tokenizer.json"), manifest.tokens, manifest.model.source_vocab_size)
    engine = Engine(opened)
    sources = [tokenizer.encode(line.split("\t")[0]) for line in read_lines(sentences)[:lines]]
    searches = {}
    for beam in beams:
        limits = [natural_limit(len(source) + 1) for source in sources]
        found = [
            engine.generate([source], max_lengths=[limit], beam_size=beam)[0][0]
            for source, limit in zip(sources, limits, strict=True)
        ]
        searches[str(beam)] = {
            "ids": [list(item.ids) for item in found],
            "texts": [tokenizer.decode(item.ids) for item in found],
            "scores": [item.score for item in found],
        }
    name = cpuinfo().get("model name") or cpuinfo().get("CPU part") or ""
    core = " ".join([name, *sorted(_DOT_PRODUCTS & cpu_flags())]).strip()
    return {"machine": platform.machine(), "core": core, "sources": sources, "beams": searches}


def differences(runs: dict[str, Outputs], references: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Each run against the first: sources, ids and words that are the same, and how far scores lie apart."""
    first = next(iter(runs.values()))
    rows = []
    for name, run in runs.items():
        for beam, search in run["beams"].items():
            wanted = first["beams"][beam]
            ids = compare(search["ids"], wanted["ids"])
            apart = [abs(a - b) for a, b in zip(search["scores"], wanted["scores"], strict=True)]
            same = [a == b for a, b in zip(search["ids"], wanted["ids"], strict=True)]
            row = {
                "run": name,
                "beam": int(beam),
                "lines": ids["of"],
                "same source ids": compare(run["sources"], first["sources"])["same"],
                "same ids": ids["same"],
                "same words": compare(search["texts"], wanted["texts"])["same"],
                "tokens before they part": ids["tokens before they part"],
                "largest distance of scores": max(apart),
                "largest distance of scores, same ids": max(
                    (distance for distance, equal in zip(apart, same, strict=True) if equal), default=0.0
                ),
            }
            if references is not None:
                import sacrebleu

                row["BLEU"] = sacrebleu.corpus_bleu(search["texts"], [list(references[: ids["of"]])]).score
            rows.append(row)
    return rows


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """The comparison as a table."""
    from benchmarks.report.tables import table

    keys = [key for key in rows[0] if key != "largest distance of scores"]
    return table(
        keys, [[f"{row[key]:.3g}" if isinstance(row[key], float) else row[key] for key in keys] for row in rows]
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.pack.arm", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    making = commands.add_parser("outputs", help="translate here and print JSON")
    making.set_defaults(function=_outputs)
    making.add_argument("--pack", default="en-de", help="name or path of a pack")
    making.add_argument("--sentences", type=Path, default=Path(__file__).parents[1] / "sentences.en.txt")
    making.add_argument("--lines", type=int, default=100)
    comparing = commands.add_parser("compare", help="compare what several processors printed with the first")
    comparing.set_defaults(function=_compare)
    comparing.add_argument("files", type=Path, nargs="+")
    comparing.add_argument("--test", type=Path, help="source, tab, reference of the lines translated, for BLEU")
    comparing.add_argument("--out", type=Path, help="folder for processors.json and processors.md")
    options = parser.parse_args(arguments)
    try:
        options.function(options)
    except (MobileNMTError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _outputs(options: argparse.Namespace) -> None:
    print(json.dumps(outputs(options.pack, options.sentences, options.lines), ensure_ascii=False))


def _compare(options: argparse.Namespace) -> None:
    from benchmarks.harness.results import write, write_json

    runs = {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in options.files}
    rows = differences(runs, [line.split("\t")[1] for line in read_lines(options.test)] if options.test else None)
    if options.out:
        known = {name: {key: run[key] for key in ("machine", "core")} for name, run in runs.items()}
        write_json(options.out / "processors.json", {"runs": known, "rows": rows})
        write(options.out / "processors.md", f"# The same words on every processor\n\n{markdown(rows)}")
    print(markdown(rows))


if __name__ == "__main__":
    sys.exit(main())
