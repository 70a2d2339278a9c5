"""What distillation gains: the same student trained on references, on a teacher's text, and with its distributions,
too.

    python benchmarks/distillation.py --teacher CHECKPOINT --text FILE.tsv.xz... --tags "tatoeba*" \
        --dev FILE.tsv... --work DIR [--pairs 60000] [--steps 1500] [--threads 1] [--out DIR]

CHECKPOINT is a Marian checkpoint with tokenizer.json; the student takes its vocabulary. All arms have the same source
sentences, shape, number of updates, seed and settings (Kim and Rush 2016, section 4, on a small scale). Every stage
resumes. Writes distillation.json, distillation.md and distillation.png into ``--out``.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from pathlib import Path
from typing import Any

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from mobilenmt.compression.corpus import stage as corpus
from mobilenmt.compression.corpus.readers import Source
from mobilenmt.compression.corpus.stage import CorpusSettings
from mobilenmt.compression.teacher import stage as teacher
from mobilenmt.compression.teacher.settings import TeacherSettings
from mobilenmt.compression.train import stage as distill
from mobilenmt.compression.train.job import TrainingJob
from mobilenmt.compression.train.settings import DistillSettings
from mobilenmt.compression.train.student import StudentShape

SHAPE = StudentShape(
    d_model=64,
    encoder_layers=2,
    decoder_layers=1,
    encoder_attention_heads=4,
    decoder_attention_heads=4,
    encoder_ffn_dim=256,
    decoder_ffn_dim=256,
)
"""Small beside any teacher, so that minutes on a processor show a difference."""
ARMS = ("references", "teacher's text", "teacher's text and distributions")


def main() -> None:
    """Run all arms and print the table."""
    options = _options()
    work: Path = options.work
    languages = {"source_language": options.languages[0], "target_language": options.languages[1]}
    cleaning = CorpusSettings(
        sources=tuple(Source(paths=(path,)) for path in options.text),
        weights={**dict.fromkeys(options.tags, 1.0), "*": 0.0},
        held_out=tuple(options.held_out),
    )
    whole = corpus.run(cleaning, work / "corpus", **languages).folder / "pairs.tsv.zst"
    pairs = _first(whole, work / "pairs.tsv.zst", options.pairs)
    vocabulary = work / "vocabulary"
    vocabulary.mkdir(parents=True, exist_ok=True)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(options.teacher / name, vocabulary / name)
    asked = TeacherSettings(checkpoint=str(options.pack or options.teacher), search="beam", beam_size=options.beam)
    text = teacher.run(asked, pairs=pairs, folder=work / "teacher", **languages).folder / teacher.TEXT
    common: dict[str, Any] = {
        "steps": options.steps,
        "batch_tokens": 2048,
        "accumulation": 1,
        "max_tokens": 60,
        "learning_rate": 2e-3,
        "warmup_steps": options.steps // 6,
        "final_decay": 0.3,
        "dropout": 0.0,
        "ema_decay": 0.99,
        "dev": tuple(options.dev),
        "dev_lines": 0,
        "dev_every": options.steps // 3,
        "threads": options.threads,
    }
    softened = {"word_level": 0.5, "teacher": options.teacher, "top_k": 8}
    rows = []
    for arm, source, more in zip(ARMS, (pairs, text, text), ({}, {}, softened), strict=True):
        folder = work / f"arm-{ARMS.index(arm) + 1}"
        settings = DistillSettings(**common, **more)
        result = distill.run(TrainingJob(SHAPE, settings, source, vocabulary), folder)
        rows.append({"arm": arm, "curve": _curve(folder / "log.jsonl"), "summary": dict(result.summary)})
        print(arm, rows[-1]["curve"][-1], flush=True)
    figures = {"pairs": options.pairs, "steps": options.steps, "teacher": options.teacher.name, "rows": rows}
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "distillation.json").write_text(json.dumps(figures, indent=1, default=str) + "\n", encoding="utf-8")
    table = _table(figures)
    (options.out / "distillation.md").write_text(table, encoding="utf-8")
    _plot(figures, options.out / "distillation.png")
    print(table)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", type=Path, required=True)
    parser.add_argument("--pack", type=Path, help="the teacher as a pack, which translates faster")
    parser.add_argument("--text", type=Path, nargs="+", required=True)
    parser.add_argument("--tags", nargs="+", default=["*"])
    parser.add_argument("--held-out", type=Path, nargs="*", default=[])
    parser.add_argument("--dev", type=Path, nargs="+", required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--languages", nargs=2, default=["en", "de"])
    parser.add_argument("--pairs", type=int, default=60_000)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--beam", type=int, default=4)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    return parser.parse_args()


def _first(source: Path, target: Path, count: int) -> Path:
    """Up to ``count`` pairs, taken evenly, in a file of their own."""
    from mobilenmt.compression.core.pairs import PairWriter, read_pairs

    if not target.exists():
        total = sum(1 for _ in read_pairs(source))
        step = max(1, total // count)
        with PairWriter(target) as writer:
            for index, pair in enumerate(read_pairs(source)):
                if index % step == 0 and writer.count < count:
                    writer.write(pair)
    return target


def _curve(log: Path) -> list[dict[str, Any]]:
    """Dev scores by update."""
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    return [{"step": line["step"], "scores": line["scores"]} for line in lines if line["kind"] == "dev"]


def _table(figures: dict[str, Any]) -> str:
    names = list(figures["rows"][0]["curve"][-1]["scores"])
    shape = f"{SHAPE.d_model} wide, {SHAPE.encoder_layers}+{SHAPE.decoder_layers} layers"
    effort = f"{figures['pairs']:,} pairs, {figures['steps']:,} updates each"
    lines = [
        f"Student {shape}; {effort}; greedy, BLEU / chrF on the whole dev sets after the last update.",
        "",
        "| trained on | " + " | ".join(names) + " | mean |",
        "|---|" + "---|" * (len(names) + 1),
    ]
    for row in figures["rows"]:
        scores = row["curve"][-1]["scores"]
        cells = [f"{scores[name]['bleu']:.2f} / {scores[name]['chrf']:.2f}" for name in names]
        mean = [sum(scores[name][key] for name in names) / len(names) for key in ("bleu", "chrf")]
        lines.append(f"| {row['arm']} | " + " | ".join(cells) + f" | {mean[0]:.2f} / {mean[1]:.2f} |")
    return "\n".join(lines) + "\n"


def _plot(figures: dict[str, Any], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4))
    for row in figures["rows"]:
        steps = [point["step"] for point in row["curve"]]
        means = [
            sum(score["bleu"] for score in point["scores"].values()) / len(point["scores"]) for point in row["curve"]
        ]
        axes.plot(steps, means, marker="o", label=row["arm"])
    axes.set_xlabel("updates")
    axes.set_ylabel("BLEU, mean of the dev sets")
    axes.legend()
    figure.savefig(path, dpi=120, bbox_inches="tight")


if __name__ == "__main__":
    main()
