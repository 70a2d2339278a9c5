"""What a model keeps when it is pruned and nothing is trained afterwards, by kind of importance.

    python -m benchmarks.pruning.curves CHECKPOINT --text TRAIN.tsv.xz --dev DEV.tsv… --to SHAPE --to 5MB \\
        --importance magnitude gradient --reconstruct none least_squares --out FOLDER

Each shape is pruned by each kind; the model and what is left of it translate the dev files greedily. Loss is the
negative log-likelihood of the references, in nats a token: it moves where BLEU is still or already the same. Writes
pruning.json (a later call with the same ``--out`` goes on where it was), pruning.md and pruning.png.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate

from mobilenmt.compression.core.stage import write_json
from mobilenmt.compression.prune.calibrate import Calibration, calibrate, read_texts
from mobilenmt.compression.prune.cut import cut
from mobilenmt.compression.prune.importance import Scores, score
from mobilenmt.compression.prune.network import Network
from mobilenmt.compression.prune.pieces import Pieces
from mobilenmt.compression.prune.prune import write_model
from mobilenmt.compression.prune.reconstruct import Reconstruction
from mobilenmt.compression.prune.select import choose_layers, select
from mobilenmt.compression.prune.settings import HowToPrune
from mobilenmt.compression.prune.target import parse_target, shape_of
from mobilenmt.compression.train.devset import DevEvaluator, read_dev_sets
from mobilenmt.compression.train.size import count_parameters
from mobilenmt.compression.train.student import StudentShape
from mobilenmt.compression.vocabulary.vocabulary import Vocabulary
from mobilenmt.export.checkpoint import load_checkpoint

Row = dict[str, Any]


class Measured:
    """A model, text to prune it by, and dev files to measure what is left."""

    def __init__(self, folder: Path, text: Sequence[Path], dev: Sequence[Path], sentences: int, lines: int) -> None:
        loaded = load_checkpoint(folder)
        self.folder, self.network, pieces = folder, Network.of(loaded), Pieces(folder, loaded.config)
        self.how = HowToPrune(sentences=sentences)
        self.text: Calibration = calibrate(read_texts(text, sentences), pieces, loaded.config, tokens=self.how.tokens)
        sets = read_dev_sets(dev, lines)
        pairs = [pair for one in sets for pair in zip(one.sources, one.references, strict=True)]
        self.dev = calibrate(pairs, pieces, loaded.config)
        self.evaluator = DevEvaluator(sets, Vocabulary.load(folder), loaded.config.max_position_embeddings)
        self.scores: dict[str, Scores] = {}

    def prune(self, shape: StudentShape, importance: str, reconstruct: str) -> Network:
        """What :func:`mobilenmt.compression.prune.one_shot.prune_network` does, the scores of a whole model kept."""
        layers = choose_layers(self.network, shape, self.text.first(100), None)
        whole = all(len(layers[side]) == self.network.layers(side) for side in layers)
        shallow = self.network.with_layers(layers)
        if whole and importance not in self.scores:
            self.scores[importance] = score(importance, shallow, self.text)
        scores = self.scores[importance] if whole else score(importance, shallow, self.text)
        selection = select(shallow, shape, scores, position_weight=self.how.position_weight)
        pruned = cut(shallow, shape, selection)
        if reconstruct == "none":
            return pruned
        fitting = Reconstruction(
            self.network, pruned, layers, selection, ridge=self.how.ridge, matrices=reconstruct == "least_squares"
        )
        return fitting.fit(self.text.batches)

    def measure(self, network: Network) -> Row:
        """Loss, BLEU and chrF, the scores' mean over the dev files."""
        from transformers import MarianMTModel

        with tempfile.TemporaryDirectory() as name:
            write_model(network, self.folder, Path(name))
            model = MarianMTModel.from_pretrained(name).eval()
        scores = self.evaluator.score(self.evaluator.translate(model))
        means = {key: sum(getattr(one, key) for one in scores.values()) / len(scores) for key in ("bleu", "chrf")}
        return {
            "loss": round(network.loss(self.dev.batches), 4),
            **{key: round(value, 2) for key, value in means.items()},
        }


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--text", type=Path, nargs="+", required=True)
    parser.add_argument("--dev", type=Path, nargs="+", required=True)
    parser.add_argument("--to", action="append", required=True)
    parser.add_argument("--importance", nargs="+", default=["magnitude", "activation", "gradient"])
    parser.add_argument("--reconstruct", nargs="+", default=["none", "least_squares"])
    parser.add_argument("--sentences", type=int, default=500)
    parser.add_argument("--lines", type=int, default=75, help="of each dev file")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / "pruning.json"
    rows: list[Row] = json.loads(file.read_text())["rows"] if file.is_file() else []
    model = Measured(options.checkpoint, options.text, options.dev, options.sentences, options.lines)
    config = model.network.config
    whole = count_parameters(shape_of(config), config.vocab_size)

    def add(row: Row, network: Network | None, seconds: float = 0.0) -> None:
        if network is not None:
            rows.append({**row, **model.measure(network), "seconds": round(seconds, 1)})
            write_json(
                file, {"sentences": options.sentences, "lines": len(model.evaluator.sets) * options.lines, "rows": rows}
            )
            print(rows[-1], flush=True)

    known = {(row["to"], row["importance"], row["reconstruct"]) for row in rows}
    if ("the model", "", "") not in known:
        add({"to": "the model", "importance": "", "reconstruct": "", "gone": 0.0}, model.network)
    for to in options.to:
        shape = parse_target(to, config, config.vocab_size)
        gone = round(1 - count_parameters(shape, config.vocab_size) / whole, 4)
        to = _named(shape, shape_of(config))  # what a size stands for changes with the planner
        for reconstruct in options.reconstruct:
            for importance in options.importance:
                if (to, importance, reconstruct) not in known:
                    begin = time.monotonic()
                    network = model.prune(shape, importance, reconstruct)
                    row = {"to": to, "importance": importance, "reconstruct": reconstruct, "gone": gone}
                    add(row, network, time.monotonic() - begin)
    (options.out / "pruning.md").write_text(_table(rows), encoding="utf-8")
    _draw(rows, options.out / "pruning.png")


def _named(shape: StudentShape, whole: StudentShape) -> str:
    """The dimensions that differ from the model's, as --to takes them."""
    names = (item.name for item in fields(StudentShape) if getattr(shape, item.name) != getattr(whole, item.name))
    return ",".join(f"{name}={getattr(shape, name)}" for name in names) or "the shape of the model"


def _table(rows: Sequence[Row]) -> str:
    names = {"gone": "parameters gone", "to": "what is left", "reconstruct": "fit", "loss": "loss", "bleu": "BLEU"}
    keys = ("gone", "to", "importance", "reconstruct", "loss", "bleu", "chrf")
    ordered = sorted(rows, key=lambda row: (row["gone"], row["reconstruct"], row["importance"]))
    cells = [[f"{row['gone']:.1%}", *(row[key] for key in keys[1:])] for row in ordered]
    return tabulate(cells, [names.get(key, key) for key in keys], tablefmt="github") + "\n"


def _draw(rows: Sequence[Row], path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    whole = next(row for row in rows if row["to"] == "the model")
    kinds = list(dict.fromkeys(row["importance"] for row in rows if row["importance"]))
    styles = {"none": ":", "norms": "--", "least_squares": "-"}
    for axes, key in zip(figure.subplots(1, 2), ("bleu", "loss"), strict=True):
        for number, kind in enumerate(kinds):
            for reconstruct, style in styles.items():
                found = sorted(
                    (row["gone"], row[key])
                    for row in rows
                    if (row["importance"], row["reconstruct"]) == (kind, reconstruct)
                )
                if found:
                    points = [(0.0, whole[key]), *found]
                    axes.plot(
                        [100 * point[0] for point in points],
                        [point[1] for point in points],
                        style,
                        color=f"C{number}",
                        marker="o",
                        markersize=3,
                        label=f"{kind}, {reconstruct.replace('_', ' ')}",
                    )
        axes.set_xlabel("parameters gone, %")
        axes.set_ylabel({"bleu": "BLEU", "loss": "loss, nats a token"}[key])
    axes.legend(fontsize=7)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
