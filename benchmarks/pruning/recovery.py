"""What training gives back, from different starts: one run a call, then a table and a picture of all.

    python -m benchmarks.pruning.recovery text PAIRS.tsv.zst --text TRAIN.tsv.xz… --weight "docs*=0.1" --pairs 150000
    python -m benchmarks.pruning.recovery run FOLDER --model CHECKPOINT --to 5MB --start pruned --pairs PAIRS.tsv.zst \\
        --dev DEV.tsv… --set steps=1500 --set batch_tokens=1536
    python -m benchmarks.pruning.recovery table OUT --compare "TITLE=FOLDER,FOLDER…" --compare …

A run starts from what pruning leaves of the model (``pruned``), from the same with embeddings drawn at random
(``random-embeddings``), or from random weights (``random``); its name is the folder's. ``--pieces N`` trains a
vocabulary on the same text and moves the model to it; ``--rounds`` and ``--round-steps`` are those of a recipe's
[prune]. ``--set hidden=1.0 --set teacher='"CHECKPOINT"'`` adds hidden states. The same call goes on where a run was
killed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tabulate import tabulate

from mobilenmt.compression.core.pairs import Pair, PairWriter
from mobilenmt.compression.core.settings import from_mapping
from mobilenmt.compression.core.stage import write_json
from mobilenmt.compression.core.tag_weights import weight_of
from mobilenmt.compression.corpus.readers import Malformed, Source, parts_of
from mobilenmt.compression.prune import stage as prune_stage
from mobilenmt.compression.prune.settings import PruneSettings
from mobilenmt.compression.prune.target import parse_target
from mobilenmt.compression.train import stage as train_stage
from mobilenmt.compression.train.job import TrainingJob
from mobilenmt.compression.train.runlog import read_log
from mobilenmt.compression.train.settings import DistillSettings
from mobilenmt.compression.train.student import load_weights, make_student, save_checkpoint
from mobilenmt.compression.vocabulary import stage as vocabulary_stage
from mobilenmt.compression.vocabulary.stage import VocabularySettings
from mobilenmt.compression.vocabulary.vocabulary import Vocabulary
from mobilenmt.export.checkpoint import MarianConfig, read_json

LANGUAGES = ("en", "de")


def write_text(options: argparse.Namespace) -> None:
    """Pairs of all files, as many as are wanted, tags by their weights, in an order by hash."""
    weights = {tag: float(value) for tag, value in (item.split("=") for item in options.weight)}

    def rows() -> Iterator[tuple[str, Pair]]:
        for part in parts_of(Source(paths=tuple(options.text))):
            for item in part.read():
                if isinstance(item, Malformed):
                    continue
                drawn = hashlib.sha256(f"{item.source}\t{item.target}".encode()).hexdigest()
                if int(drawn[:8], 16) < weight_of(item.tag, weights) * 2**32:
                    yield drawn[8:], Pair(item.source, item.target, item.tag)

    kept = sorted(rows())[: options.pairs]
    with PairWriter(options.out) as writer:
        for _, pair in kept:
            writer.write(pair)
    print(f"{options.out}: {len(kept):,} pairs")


def run(options: argparse.Namespace) -> None:
    """Prune, and train."""
    folder: Path = options.folder
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary: Path = options.model
    if options.pieces:
        vocabulary = folder.parent / f"vocabulary-{options.pieces}"
        vocabulary_stage.run(
            VocabularySettings(size=options.pieces), vocabulary, pairs=options.pairs, languages=LANGUAGES
        )
    config = MarianConfig.from_dict(read_json(options.model / "config.json"))
    shape = parse_target(options.to, config, Vocabulary.load(vocabulary).size)
    settings: dict[str, Any] = {"dropout": 0.0, "accumulation": 1, "max_tokens": 100, "threads": 1, "dev_lines": 50}
    settings |= {"dev": [str(path.absolute()) for path in options.dev]}
    settings |= {key: json.loads(value) for key, value in (item.split("=", 1) for item in options.set)}
    job = TrainingJob(
        shape=shape,
        settings=from_mapping(DistillSettings, settings, "--set"),
        pairs=options.pairs,
        vocabulary=vocabulary,
        report=lambda line: print(line, flush=True),
    )
    if options.start != "random":
        pruned = prune_stage.run(
            PruneSettings(rounds=options.rounds, round_steps=options.round_steps),
            folder / "prune",
            checkpoint=options.model,
            shape=shape,
            vocabulary=vocabulary,
            pairs=options.pairs,
            languages=LANGUAGES,
            student=job,
        )
        initial = pruned.folder.absolute() / "checkpoint"
        if options.start == "random-embeddings":
            initial = _drawn(initial, folder / "drawn", shape)
        job = replace(job, settings=replace(job.settings, initial=initial))
    print(train_stage.run(job, folder / "distill").summary)


def _drawn(checkpoint: Path, folder: Path, shape: Any) -> Path:
    """The checkpoint with embeddings as a model that is made anew has them."""
    if not folder.is_dir():
        vocabulary = Vocabulary.load(checkpoint)
        model, fresh = (make_student(shape, vocabulary, seed=1) for _ in range(2))
        load_weights(model, checkpoint, vocabulary)
        model.model.shared.weight.data.copy_(fresh.model.shared.weight.data)
        bias: Any = model.final_logits_bias
        bias.zero_()
        save_checkpoint(model, vocabulary, folder)
    return folder.absolute()


def table(options: argparse.Namespace) -> None:
    """Curves of finished or running runs."""
    out: Path = options.out
    out.mkdir(parents=True, exist_ok=True)
    found: dict[str, dict[str, Any]] = {}
    for item in options.compare:
        title, _, folders = item.partition("=")
        found[title] = {Path(folder).name: _curve(Path(folder)) for folder in folders.split(",")}
    write_json(out / "recovery.json", found)
    parts = []
    for title, runs in found.items():
        steps = sorted({point["step"] for run in runs.values() for point in run["dev"]})
        at = {name: {point["step"]: point for point in run["dev"]} for name, run in runs.items()}
        rows = [[step, *(_cell(at[name].get(step)) for name in runs)] for step in steps]
        text = tabulate(rows, ["updates", *runs], tablefmt="github", disable_numparse=True)
        shapes = dict.fromkeys(_shape(run["shape"]) for run in runs.values())
        told = f"{'; '.join(shapes)}. Loss of the references in nats a token, and mean BLEU."
        parts.append(f"# {title}\n\n{told}\n\n{text}\n{_told(at)}")
    (out / "recovery.md").write_text("\n".join(parts), encoding="utf-8")
    _draw(found, out / "recovery.png")


def _shape(shape: dict[str, Any]) -> str:
    return (
        f"{shape['d_model']} wide, {shape['encoder_layers']} + {shape['decoder_layers']} layers, "
        f"FFN {shape['encoder_ffn_dim']} and {shape['decoder_ffn_dim']}"
    )


def _cell(point: dict[str, Any] | None) -> str:
    return "" if point is None else f"{point['loss']:.3f}, {point['bleu']:.1f}"


def _told(at: dict[str, dict[int, dict[str, Any]]]) -> str:
    """How far the first run is ahead of each other one."""
    (first, points), *others = at.items()
    lines = []
    for name, other in others:
        common = sorted(points.keys() & other.keys())
        lower = sum(points[step]["loss"] < other[step]["loss"] for step in common)
        line = f"\n`{first}` has the lower loss at {lower} of {len(common)} evaluations of `{name}`."
        last = max(other)
        there = [step for step in sorted(points) if points[step]["loss"] <= other[last]["loss"]]
        if there and there[0] < last:
            line += (
                f" What `{name}` has after {last:,} updates it has by its evaluation after {there[0]:,}: "
                f"`{name}` needs at least {last / there[0]:.1f} times as many."
            )
        lines.append(line + "\n")
    return "".join(lines)


def _curve(folder: Path) -> dict[str, Any]:
    log = list(read_log(folder / "distill" / "log.jsonl"))
    dev = [
        {"step": entry["step"], "loss": entry["loss"], "bleu": round(entry["mean"], 2)}
        for entry in log
        if entry["kind"] == "dev"
    ]
    described = read_json(folder / "distill" / "settings.json")
    kept = ("steps", "batch_tokens", "learning_rate", "warmup_steps", "schedule", "ema_decay", "word_level", "hidden")
    return {
        "shape": described["shape"],
        "settings": {key: described["settings"][key] for key in kept if key in described["settings"]},
        "tokens": next((entry.get("tokens") for entry in reversed(log) if entry["kind"] == "train"), None),
        "dev": dev,
    }


def _draw(found: dict[str, dict[str, Any]], path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.5 * len(found), 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (title, runs) in zip(figure.subplots(1, len(found), squeeze=False)[0], found.items(), strict=True):
        for name, run in runs.items():
            axes.plot(
                [point["step"] for point in run["dev"]], [point["loss"] for point in run["dev"]], marker=".", label=name
            )
        axes.set(title=title, xlabel="updates", ylabel="dev loss, nats a token")
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    figure.savefig(path, dpi=110, metadata={"Software": None})


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse and do."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    text = commands.add_parser("text")
    text.add_argument("out", type=Path)
    text.add_argument("--text", type=Path, nargs="+", required=True)
    text.add_argument("--weight", action="append", default=[])
    text.add_argument("--pairs", type=int, default=150_000)
    text.set_defaults(do=write_text)
    one = commands.add_parser("run")
    one.add_argument("folder", type=Path)
    one.add_argument("--model", type=Path, required=True)
    one.add_argument("--to", required=True)
    one.add_argument("--start", choices=("pruned", "random-embeddings", "random"), default="pruned")
    one.add_argument("--pieces", type=int, default=0)
    one.add_argument("--rounds", type=int, default=1)
    one.add_argument("--round-steps", type=int, default=500)
    one.add_argument("--pairs", type=Path, required=True)
    one.add_argument("--dev", type=Path, nargs="+", required=True)
    one.add_argument("--set", action="append", default=[], help="of the training, in JSON")
    one.set_defaults(do=run)
    all_runs = commands.add_parser("table")
    all_runs.add_argument("out", type=Path)
    all_runs.add_argument("--compare", action="append", required=True)
    all_runs.set_defaults(do=table)
    options = parser.parse_args(arguments)
    options.do(options)


if __name__ == "__main__":
    main()
