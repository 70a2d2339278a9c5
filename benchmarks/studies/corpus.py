"""Throughput and peak memory of the corpus steps against the size of the corpus.

    python benchmarks/corpus.py --out results/corpus train/*.tsv.xz --pairs 100000 400000 1600000

Each step runs in a process of its own, with one thread: `corpus` (read, clean, deduplicate), `vocabulary` (8,000
pieces, BPE), `dataset` (augment, tokenize, pack), `read` (batches of about 4,096 target tokens from the packed dataset,
shuffled). Where the files hold fewer pairs than asked for, they are read again with a number behind each side, so that
none is a duplicate. Writes results.json and, if matplotlib is there, memory.png.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

STEPS = ("corpus", "vocabulary", "dataset", "read")


def main() -> None:
    """Measure, write results.json, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path, help="TSV files: source, target, tag")
    parser.add_argument("--pairs", nargs="+", type=int, default=[100_000, 400_000, 1_600_000])
    parser.add_argument("--languages", default="en-de")
    parser.add_argument("--held-out", nargs="*", type=Path, default=[], help="test files to leave out")
    parser.add_argument("--out", type=Path, required=True, help="folder for results.json and memory.png")
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        print(json.dumps(measure(options.step, options.folder, options.languages, options.held_out)))
        return
    options.out.mkdir(parents=True, exist_ok=True)
    results = []
    for count in sorted(options.pairs):
        with tempfile.TemporaryDirectory(dir=options.out, prefix="scratch-") as scratch:
            folder = Path(scratch)
            size = write_corpus(options.files, count, folder / "input.tsv")
            for step in STEPS:
                found = in_fresh_process(step, folder, options)
                results.append({**found, "step": step, "pairs": count, "bytes": size})
                print(json.dumps(results[-1]), flush=True)
            (options.out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    draw(results, options.out / "memory.png")


def write_corpus(files: list[Path], count: int, path: Path) -> int:
    """Write `count` lines; gives their bytes."""
    with path.open("wb") as out:
        for number, line in zip(range(count), endless(files), strict=False):
            out.write(line)
            if number % 100_000 == 0:
                out.flush()
    return path.stat().st_size


def endless(files: list[Path]) -> Iterator[bytes]:
    """Lines of the files, every file's in turn, again and again."""
    from mobilenmt.compression.core.streams import numbered_lines

    turn = 0
    while True:
        streams = [numbered_lines(file) for file in files]
        while streams:
            for stream in list(streams):
                found = next(stream, None)
                if found is None:
                    streams.remove(stream)
                    continue
                fields = found[1].split(b"\t")
                if turn:
                    fields[:2] = [b"%b %d" % (field, turn) for field in fields[:2]]
                yield b"\t".join(fields) + b"\n"
        turn += 1


def in_fresh_process(step: str, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Run one step in a process of its own."""
    command = [sys.executable, __file__, "x", "--out", str(options.out), "--step", step, "--folder", str(folder)]
    command += ["--languages", options.languages, "--held-out", *map(str, options.held_out)]
    limits = {"OMP_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env={**os.environ, **limits})
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(step: str, folder: Path, languages: str, held_out: list[Path]) -> dict[str, Any]:
    """Run one step here; gives seconds (wall and processor), and the peak of resident memory, total and anonymous."""
    source, target = languages.split("-")
    names = {"source_language": source, "target_language": target}
    pairs = folder / "corpus" / "pairs.tsv.zst"
    from mobilenmt.compression.corpus.readers import Source
    from mobilenmt.compression.corpus.stage import CorpusSettings
    from mobilenmt.compression.corpus.stage import run as make_corpus
    from mobilenmt.compression.dataset.augment import AugmentSettings
    from mobilenmt.compression.dataset.dataset import PackedDataset, build_dataset
    from mobilenmt.compression.vocabulary.stage import VocabularySettings
    from mobilenmt.compression.vocabulary.stage import run as make_vocabulary

    before = peak()
    wall, processor = time.perf_counter(), time.process_time()
    extra: dict[str, Any] = {}
    if step == "corpus":
        settings = CorpusSettings(sources=(Source(paths=(folder / "input.tsv",)),), held_out=tuple(held_out))
        summary = make_corpus(settings, folder / "corpus", **names).summary
        extra = {"kept": summary["pairs"], "dropped": summary["dropped"]}
    elif step == "vocabulary":
        settings_ = VocabularySettings(size=8000, sample=200_000)
        make_vocabulary(settings_, folder / "vocabulary", pairs=pairs, **names)
    elif step == "dataset":
        made = build_dataset(
            pairs,
            folder / "vocabulary",
            folder / "dataset",
            weights={},
            augment=AugmentSettings(),
            seed=1,
            max_tokens=200,
        )
        extra = {"made": len(made), "tokens": made.card["tokens"]}
    else:
        extra = read_batches(PackedDataset.open(folder / "dataset"))
    return {
        "seconds": round(time.perf_counter() - wall, 2),
        "processor_seconds": round(time.process_time() - processor, 2),
        "peak_bytes": peak(),
        "peak_before_bytes": before,
        **extra,
    }


def read_batches(dataset: Any) -> dict[str, Any]:
    """Gather shuffled batches of sentences of like length, as a trainer does."""
    import numpy as np

    random = np.random.default_rng(1)
    order = np.argsort(dataset.target_lengths + random.random(len(dataset)), kind="stable")
    lengths = np.maximum.accumulate(dataset.target_lengths[order])
    batches, start = [], 0
    while start < len(order):
        size = max(1, 4096 // int(lengths[min(start + 64, len(order) - 1)]))
        batches.append(order[start : start + size])
        start += size
    random.shuffle(batches)
    begin, tokens = time.process_time(), 0
    for rows in batches[:3000]:
        source, target = dataset.gather(rows, 0)
        tokens += int(dataset.source_lengths[rows].sum() + dataset.target_lengths[rows].sum())
        del source, target
    return {"tokens_a_second": round(tokens / (time.process_time() - begin))}


def peak() -> int:
    """The most resident memory of this process so far, in bytes; pages of mapped files are part of it."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def draw(results: list[dict[str, Any]], path: Path) -> None:
    """Peak memory against the corpus, one line a step."""
    try:
        import matplotlib
    except ImportError:
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4))
    for step in STEPS:
        rows = [row for row in results if row["step"] == step]
        axes.plot([row["pairs"] for row in rows], [row["peak_bytes"] / 1e6 for row in rows], marker="o", label=step)
    axes.set(xscale="log", xlabel="pairs", ylabel="peak resident memory (MB)", ylim=(0, None))
    axes.legend()
    axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
