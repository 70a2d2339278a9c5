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
from benchmarks.harness.text import common_prefix, read_lines
from mobilenmt.runtime.errors import MobileNMTError

Outputs = dict[str, Any]


def outputs(pack: str, sentences: Path, lines: int, beams: Sequence[int] = (1, 4)) -> Outputs:
    """Ids, words and scores of the first lines of a file (or of a TSV file's first column), greedy and beam."""
    from mobilenmt.runtime.engine import Engine
    from mobilenmt.runtime.pack import Pack
    from mobilenmt.runtime.tokenizer import Tokenizer

    opened = Pack.open(pack)
    manifest = opened.manifest
    tokenizer = Tokenizer(opened.file("tokenizer.json"), manifest.tokens, manifest.model.source_vocab_size)
    engine = Engine(opened)
    sources = [tokenizer.encode(line.split("\t")[0]) for line in read_lines(sentences)[:lines]]
    searches = {}
    for beam in beams:
        found = [
            engine.generate([source], max_lengths=[natural_limit(len(source) + 1)], beam_size=beam)[0][0]
            for source in sources
        ]
        searches[str(beam)] = {
            "ids": [list(item.ids) for item in found],
            "texts": [tokenizer.decode(item.ids) for item in found],
            "scores": [item.score for item in found],
        }
    return {"machine": platform.machine(), "core": _core(), "sources": sources, "beams": searches}


def _core() -> str:
    """What /proc/cpuinfo says of the first processor: its part number and whether it has dot products."""
    file = Path("/proc/cpuinfo")
    known: dict[str, str] = {}
    for line in file.read_text().split("\n") if file.exists() else ():
        name, _, value = line.partition(":")
        known.setdefault(name.strip(), value.strip())
    flags = (known.get("flags") or known.get("Features") or "").split()
    dots = [flag for flag in ("avx512_vnni", "avx_vnni", "asimddp") if flag in flags]
    return f"{known.get('model name') or known.get('CPU part') or ''} {' '.join(dots)}".strip()


def compare(runs: dict[str, Outputs], references: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Each run against the first: sources, ids and words that are the same, and how far scores lie apart."""
    first = next(iter(runs.values()))
    rows = []
    for name, run in runs.items():
        sources = sum(a == b for a, b in zip(run["sources"], first["sources"], strict=True))
        for beam, search in run["beams"].items():
            wanted = first["beams"][beam]
            pairs = list(zip(search["ids"], wanted["ids"], strict=True))
            same = [a == b for a, b in pairs]
            distances = [abs(a - b) for a, b in zip(search["scores"], wanted["scores"], strict=True)]
            row = {
                "run": name,
                "beam": int(beam),
                "lines": len(same),
                "same source ids": sources,
                "same ids": sum(same),
                "same words": sum(a == b for a, b in zip(search["texts"], wanted["texts"], strict=True)),
                "tokens before they part": sum(common_prefix(a, b) for a, b in pairs)
                / max(1, sum(max(len(a), len(b)) for a, b in pairs)),
                "largest distance of scores": max(distances),
                "largest distance of scores, same ids": max(
                    (value for value, equal in zip(distances, same, strict=True) if equal), default=0.0
                ),
            }
            if references is not None:
                import sacrebleu

                row["BLEU"] = sacrebleu.corpus_bleu(search["texts"], [list(references[: len(same)])]).score
            rows.append(row)
    return rows


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """The comparison as a table."""
    keys = [key for key in rows[0] if key != "largest distance of scores"]
    lines = ["| " + " | ".join(keys) + " |", "|" + "---|" * len(keys)]
    for row in rows:
        cells = [f"{row[key]:.3g}" if isinstance(row[key], float) else str(row[key]) for key in keys]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.pack.arm", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("outputs", help="translate here and print JSON")
    making.add_argument("--pack", default="en-de", help="name or path of a pack")
    making.add_argument("--sentences", type=Path, default=Path(__file__).parents[1] / "sentences.en.txt")
    making.add_argument("--lines", type=int, default=100)
    comparing = commands.add_parser("compare", help="compare what several processors printed with the first")
    comparing.add_argument("files", type=Path, nargs="+")
    comparing.add_argument("--test", type=Path, help="source, tab, reference of the lines translated, for BLEU")
    comparing.add_argument("--out", type=Path, help="folder for processors.json and processors.md")
    options = parser.parse_args(arguments)
    try:
        if options.command == "outputs":
            print(json.dumps(outputs(options.pack, options.sentences, options.lines), ensure_ascii=False))
        else:
            _compare(options)
    except (MobileNMTError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _compare(options: argparse.Namespace) -> None:
    from benchmarks.harness.results import write_atomically

    runs = {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in options.files}
    references = None
    if options.test:
        references = [line.split("\t")[1] for line in read_lines(options.test)]
    rows = compare(runs, references)
    if options.out:
        known = {name: {key: run[key] for key in ("machine", "core")} for name, run in runs.items()}
        content = json.dumps({"runs": known, "rows": rows}, ensure_ascii=False, indent=1) + "\n"
        write_atomically(options.out / "processors.json", content)
        write_atomically(options.out / "processors.md", f"# The same words on every processor\n\n{markdown(rows)}")
    print(markdown(rows))


if __name__ == "__main__":
    sys.exit(main())
