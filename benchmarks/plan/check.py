"""Bytes of 20 shapes, and time and memory of 8 that no fit was made of, predicted and measured.

    python -m benchmarks.plan.check sizes [--text TSV] [--out FILE]
    python -m benchmarks.plan.check costs [--fit FILE] [--packs FOLDER] [--rounds 3] [--out FILE]

``sizes`` writes packs of random weights; with ``--text`` (source, tab, target; plain or compressed) tokenizers of each
vocabulary are trained on its first 200,000 lines, else they are made up and their bytes counted as known. ``costs``
runs packs on the C core; the machine should be quiet.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import tempfile
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tabulate import tabulate

from mobilenmt.compression.core.stage import write_json
from mobilenmt.compression.core.streams import open_bytes
from mobilenmt.compression.pack.estimate import estimate_pack_bytes, native_bytes, tokenizer_bytes
from mobilenmt.compression.pack.shortlist import ShortlistSettings
from mobilenmt.compression.plan.cost import Load, load_fit
from mobilenmt.compression.plan.measure import Trial, check, measure
from mobilenmt.compression.plan.random_pack import make_random_pack, save_tokenizer
from mobilenmt.compression.train.student import StudentShape
from mobilenmt.compression.vocabulary.training import train_tokenizer

_LINES = 200_000
_COVERAGE = 0.9997


def _trial(width: int, layers: tuple[int, int], ffn: tuple[int, int], heads: int, pieces: int, common: int) -> Trial:
    shape = StudentShape(width, *layers, heads, heads, *ffn)
    return Trial(shape, pieces, ShortlistSettings(common=common) if common else None)


SIZES: tuple[Trial, ...] = (
    _trial(64, (1, 1), (64, 64), 2, 1000, 0),
    _trial(64, (6, 2), (128, 128), 2, 1000, 250),
    _trial(96, (4, 1), (384, 192), 3, 2000, 0),
    _trial(96, (18, 2), (192, 384), 3, 4000, 500),
    _trial(112, (6, 2), (336, 224), 2, 2000, 0),
    _trial(128, (12, 2), (512, 512), 2, 2000, 500),
    _trial(128, (6, 6), (256, 512), 4, 8000, 0),
    _trial(160, (10, 2), (640, 320), 5, 24000, 500),
    _trial(192, (6, 2), (768, 768), 4, 8000, 500),
    _trial(192, (24, 1), (384, 384), 3, 4000, 0),
    _trial(224, (8, 1), (320, 256), 7, 4000, 500),
    _trial(256, (12, 2), (512, 512), 4, 8000, 0),
    _trial(256, (6, 2), (1024, 768), 4, 8000, 500),
    _trial(256, (6, 3), (1024, 1024), 8, 16000, 0),
    _trial(288, (7, 1), (576, 448), 6, 12000, 500),
    _trial(320, (4, 4), (640, 1280), 5, 32000, 1000),
    _trial(384, (6, 2), (1536, 768), 6, 8000, 0),
    _trial(448, (8, 1), (896, 448), 7, 12000, 500),
    _trial(512, (6, 2), (1024, 1024), 8, 32000, 500),
    _trial(512, (6, 6), (2048, 2048), 8, 16000, 0),
)
COSTS: tuple[Trial, ...] = (
    _trial(80, (4, 2), (320, 160), 2, 3000, 400),
    _trial(112, (8, 1), (448, 448), 2, 6000, 0),
    _trial(144, (10, 3), (288, 576), 3, 2000, 0),
    _trial(192, (8, 2), (576, 768), 6, 12000, 500),
    _trial(224, (6, 1), (896, 448), 4, 4000, 0),
    _trial(256, (8, 2), (1024, 768), 4, 6000, 500),
    _trial(288, (3, 5), (576, 576), 4, 8000, 0),
    _trial(448, (6, 2), (1792, 896), 7, 8000, 800),
)
"""None is among the models of the fit."""


def sizes(text: Path | None) -> dict[str, Any]:
    """Every shape: bytes predicted and bytes of its pack."""
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="plan-check-") as scratch:
        pieces = sorted({trial.vocabulary for trial in SIZES})
        folders = {size: Path(scratch) / "tokenizers" / f"{size}" for size in pieces}
        _make_tokenizers(folders, text)
        for place, trial in enumerate(SIZES):
            folder = folders[trial.vocabulary]
            pack = make_random_pack(
                trial.shape,
                trial.vocabulary,
                Path(scratch) / f"{place}",
                shortlist=trial.shortlist,
                tokenizer=folder,
            )
            files, native = None, None
            if text is None:
                files, table = tokenizer_bytes(folder, trial.vocabulary)
                native = native_bytes(trial.shape, trial.vocabulary, table)
            told = estimate_pack_bytes(
                trial.shape,
                trial.vocabulary,
                shortlist=trial.shortlist,
                tokenizer_bytes=files,
                native_bytes=native,
            )
            rows.append({"trial": asdict(trial), "predicted": told, "bytes": pack.total_bytes})
    errors = [abs(row["predicted"] / row["bytes"] - 1) for row in rows]
    return {"rows": rows, "median": statistics.median(errors), "largest": max(errors), "tokenizers": str(bool(text))}


def _make_tokenizers(folders: dict[int, Path], text: Path | None) -> None:
    if text is None:
        for size, folder in folders.items():
            save_tokenizer(size, folder)
        return
    with open_bytes(text) as stream:
        lines = [line.decode("utf-8", "replace").rstrip("\n") for line in itertools.islice(stream, _LINES)]
    texts = [side for line in lines for side in line.split("\t")[:2]]
    counts = Counter(itertools.chain.from_iterable(texts))
    del counts[" "]
    alphabet, seen = [], 0
    for character, count in counts.most_common():
        if seen >= _COVERAGE * counts.total():
            break
        alphabet.append(character)
        seen += count
    for size, folder in folders.items():
        folder.mkdir(parents=True)
        data = train_tokenizer(texts, sorted(alphabet), size=size, max_piece_length=20)
        compact = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
        (folder / "tokenizer.json").write_text(compact, encoding="utf-8")


def costs(fit: str, packs: Path, rounds: int) -> dict[str, Any]:
    """Every shape and length: time and memory predicted and measured."""
    found = load_fit(fit)
    rows = measure(COSTS, packs=packs, rounds=rounds, report=lambda line: print(line, file=sys.stderr))
    latency, memory = check(found, rows)
    for trial, row in zip(COSTS, rows, strict=True):
        arguments = (trial.shape, trial.vocabulary, trial.shortlist)
        row["predicted seconds"] = [float(found.seconds(*arguments, Load(n, m))) for n, m, _ in row["seconds"]]
        row["predicted bytes"] = float(found.bytes(*arguments, native_bytes(trial.shape, trial.vocabulary)))
    told = {"latency": asdict(latency), "memory": asdict(memory) if memory else None}
    return {"rows": rows, "fit": asdict(found), **told}


def _table(found: dict[str, Any]) -> str:
    rows = []
    for row in found["rows"]:
        shape = row["trial"]["shape"]
        name = f"{shape['d_model']} wide, {shape['encoder_layers']}+{shape['decoder_layers']} layers"
        told = [name, row["trial"]["vocabulary"], bool(row["trial"]["shortlist"])]
        if "predicted" in row:
            told += [row["predicted"], row["bytes"], f"{row['predicted'] / row['bytes'] - 1:+.3%}"]
        else:
            for value, (_, _, seconds) in zip(row["predicted seconds"], row["seconds"], strict=True):
                told.append(f"{1e3 * value:.2f} / {1e3 * seconds:.2f}")
            told.append(f"{row['predicted bytes'] / 1e6:.2f} / {row['bytes'] / 1e6:.2f}" if row["bytes"] else "")
        rows.append(told)
    lengths = [f"{n} to {m}, ms" for n, m, _ in found["rows"][0].get("seconds", [])]
    head = ["shape", "pieces", "shortlist", *([*lengths, "memory, MB"] if lengths else ["predicted", "bytes", "off"])]
    return tabulate(rows, head, disable_numparse=True)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("sizes", "costs"))
    parser.add_argument("--text", type=Path)
    parser.add_argument("--fit", default="epyc-zen5")
    parser.add_argument("--packs", type=Path, default=Path("build/plan-check"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    sized = options.what == "sizes"
    found = sizes(options.text) if sized else costs(options.fit, options.packs, options.rounds)
    print(_table(found))
    print({key: value for key, value in found.items() if key in ("median", "largest", "latency", "memory")})
    if options.out:
        write_json(options.out, found)


if __name__ == "__main__":
    main()
