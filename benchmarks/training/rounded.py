"""What forms of a pack cost checkpoints that were trained with their rounding simulated, and others.

    python -m benchmarks.training.rounded before=CHECKPOINT aware=CHECKPOINT --forms fp32 int8 int4-32 \\
        --dev flores_dev.tsv newstest2013.tsv --lines 250 --out rounded.json

Each checkpoint is exported in each form, without a shortlist, and translates the dev files greedily; a table has BLEU
and chrF of each file and their means, and the loss of all references with the weights rounded, in nats a token, which
tells less apart than BLEU can.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate
from transformers import MarianMTModel

from mobilenmt import Translator
from mobilenmt.compression.core.pack_forms import PackForms
from mobilenmt.compression.core.scoring import Scorer
from mobilenmt.compression.train.devset import DevEvaluator, DevSet, read_dev_sets
from mobilenmt.compression.train.quantized.simulation import Simulation
from mobilenmt.compression.vocabulary.vocabulary import Vocabulary
from mobilenmt.export.export import export
from mobilenmt.export.quantize.settings import Quantization
from mobilenmt.runtime.atomic import atomic_path


def scores(checkpoint: Path, form: str, sets: list[DevSet], languages: tuple[str, str]) -> dict[str, Any]:
    """BLEU and chrF of each dev set, and the pack's bytes."""
    with tempfile.TemporaryDirectory() as folder:
        pack = export(
            checkpoint,
            Path(folder) / "pack",
            precision="fp32" if form == "fp32" else "int8",
            source_language=languages[0],
            target_language=languages[1],
            shortlist=False,
            quantization=None if form == "fp32" else Quantization(form=form),
        )
        scorer, found = Scorer(languages[1]), {}
        with Translator(pack.path, threads=1) as translator:
            for dev in sets:
                texts = [one.text for one in translator.translate_batch(list(dev.sources), beam_size=1)]
                score = scorer.score(texts, dev.references)
                found[dev.name] = {"bleu": round(score.bleu, 2), "chrf": round(score.chrf, 2)}
        loss = rounded_loss(checkpoint, form, sets)
        means = {key: round(sum(one[key] for one in found.values()) / len(found), 2) for key in ("bleu", "chrf")}
        return {"bytes": pack.total_bytes, "scores": found, "mean": means, "loss": round(loss, 4)}


def rounded_loss(checkpoint: Path, form: str, sets: list[DevSet]) -> float:
    """Nats a token, with the weights rounded and activations as they are."""
    vocabulary = Vocabulary.load(checkpoint)
    student = MarianMTModel.from_pretrained(checkpoint, dtype=torch.float32)
    evaluator = DevEvaluator(sets, vocabulary, student.config.max_position_embeddings)
    forms = PackForms(Quantization(form=form))
    with Simulation(student, forms, torch.float32).applied():
        loss, tokens = evaluator.loss(student, torch.float32)
    return loss / tokens


def main() -> None:
    """Read arguments, export, translate, tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", nargs="+", metavar="NAME=CHECKPOINT")
    parser.add_argument("--forms", nargs="+", default=["fp32", "int8", "int4-32"])
    parser.add_argument("--dev", nargs="+", type=Path, required=True, metavar="TSV")
    parser.add_argument("--lines", type=int, default=250, help="of each dev file, evenly spaced")
    parser.add_argument("--languages", nargs=2, default=("en", "de"), metavar="CODE")
    parser.add_argument("--out", type=Path, help="JSON file of results; those that are there already stay")
    options = parser.parse_args()
    sets = read_dev_sets(options.dev, options.lines)
    results: dict[str, Any] = {}
    if options.out is not None and options.out.exists():
        results = json.loads(options.out.read_text(encoding="utf-8"))
    for item in options.checkpoints:
        name, _, path = item.partition("=")
        for form in options.forms:
            key = f"{name}, {form}"
            results[key] = scores(Path(path), form, sets, tuple(options.languages))
            print(f"{key}: {results[key]['mean']}", flush=True)
            if options.out is not None:
                with atomic_path(options.out) as temporary:
                    temporary.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    rows = [
        [
            key,
            one["bytes"],
            *(f"{score['bleu']:.2f} / {score['chrf']:.2f}" for score in one["scores"].values()),
            f"{one['mean']['bleu']:.2f} / {one['mean']['chrf']:.2f}",
            f"{one['loss']:.4f}",
        ]
        for key, one in results.items()
    ]
    print(tabulate(rows, ["checkpoint, form", "bytes", *(dev.name for dev in sets), "mean", "loss"], tablefmt="github"))


if __name__ == "__main__":
    main()
