"""A work folder of a run that never took place: the files a report reads, with figures of our choice."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

LINES = 40
SOURCES = [f"source {index}" for index in range(LINES)]
REFERENCES = [f"reference {index}" for index in range(LINES)]

SUMMARIES: dict[str, dict[str, Any]] = {
    "corpus": {"pairs": 90_000, "read": 100_000, "dropped": {"ratio": 123}, "words": {"source": 800_000, "target": 1}},
    "vocabulary": {"size": 8000, "source": {"tokens_per_word": 1.25}, "target": {"tokens_per_word": 1.5}},
    "teacher_model": {"steps": 2000, "tokens": 9_000_000, "parameters": 4_000_000},
    "teacher": {"tokens": 1_234_567, "empty": 0},
    "prune": {"parameters_before": 4_000_000, "parameters": 1_000_000},
    "distill": {"steps": 3000, "tokens": 20_000_000, "parameters": 1_000_000},
    "export": {"pack": "made-up", "bytes": 1_500_000, "shortlist_covers": 0.99},
    "evaluate": {"scores": {}},
}
PRUNED: dict[str, Any] = {
    "before": {"d_model": 128, "encoder_layers": 2, "decoder_layers": 1, "vocabulary": 8000, "parameters": 4_000_000}
    | {f"{side}_attention_heads": 8 for side in ("encoder", "decoder")}
    | {f"{side}_ffn_dim": 512 for side in ("encoder", "decoder")},
    "after": {"d_model": 96, "encoder_layers": 1, "decoder_layers": 1, "vocabulary": 8000, "parameters": 1_000_000}
    | {f"{side}_attention_heads": 6 for side in ("encoder", "decoder")}
    | {f"{side}_ffn_dim": 128 for side in ("encoder", "decoder")},
    "losses": {"before": 2.5, "after": 3.25},
    "how": {"importance": "gradient"},
    "kept": {
        "encoder.0.self_attn": {"heads": [0, 1, 3, 4, 5, 7], "share": 0.875},
        "encoder.0.ffn": {"neurons": 128, "share": 0.625},
        "decoder.0.self_attn": {"heads": [0, 1, 2, 3, 4, 5], "share": 0.9},
        "decoder.0.encoder_attn": {"heads": [0, 1, 2, 3, 4, 5], "share": 0.9},
        "decoder.0.ffn": {"neurons": 128, "share": 0.5},
    },
}
# name -> kind, BLEU and chrF on dev, bytes, sentences a second
SYSTEMS: dict[str, tuple[str, float, float, int | None, float | None]] = {
    "student fp32": ("checkpoint", 30.0, 55.0, 4_200_000, 200.0),
    "pack": ("pack", 29.5, 54.75, 1_500_000, 400.0),
    "teacher": ("teacher", 32.0, 57.0, 16_000_000, 50.0),
    "pruned": ("checkpoint", 10.0, 30.0, 4_200_000, 160.0),
    "other": ("peer", 35.0, 60.0, None, None),
}


def write(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")


def manifest(work: Path, stage: str, summary: Mapping[str, Any] | None = None, **more: object) -> None:
    """A stage that is done."""
    cost = {"seconds": 61.5, "memory_bytes": 512_000_000, "memory_is_a_bound": stage == "export"}
    content = {
        "format": 1,
        "stage": stage,
        "settings": {},
        "summary": summary or SUMMARIES[stage],
        "cost": cost,
        **more,
    }
    write(work / stage / "manifest.json", content)


def log(work: Path, stage: str, losses: Sequence[float], dev: Sequence[float] = ()) -> None:
    """A training's log.jsonl: a line each 100 updates, an evaluation each 1,000."""
    entries: list[dict[str, Any]] = [
        {"step": 100 * index, "kind": "train", "nll": loss, "tokens": 1000 * index, "seconds": 7200.0 * index}
        for index, loss in enumerate(losses, 1)
    ]
    entries += [
        {"step": 1000 * index, "kind": "dev", "scores": {"dev": {"bleu": bleu, "chrf": bleu + 25}}}
        for index, bleu in enumerate(dev, 1)
    ]
    write(work / stage / "log.jsonl", "".join(json.dumps(entry) + "\n" for entry in entries))


def evaluate(
    work: Path,
    systems: Mapping[str, tuple[str, float, float, int | None, float | None]] = SYSTEMS,
    *,
    outputs: Mapping[str, Sequence[str]] | None = None,
    sources: Sequence[str] = SOURCES,
    references: Sequence[str] = REFERENCES,
) -> None:
    """An evaluation on a dev and a test set."""
    found = [
        {
            "name": name,
            "kind": kind,
            "scores": {"dev": {"bleu": bleu, "chrf": chrf}, "test": {"bleu": bleu - 1, "chrf": chrf - 1}},
            "precision": "int8" if kind == "pack" else None,
            "bytes": size,
            "parameters": 1_000_000,
            "sentences_per_second": rate,
            "added_memory_bytes": 8_000_000,
            "load_seconds": 0.02,
        }
        for name, (kind, bleu, chrf, size, rate) in systems.items()
    ]
    write(
        work / "evaluate" / "scores.json",
        {
            "tests": [{"name": name, "lines": len(sources), "words": 2 * len(sources)} for name in ("dev", "test")],
            "signatures": {"BLEU": "tok:13a"},
            "threads": 1,
            "machine": {"processor": "a made-up processor"},
            "systems": found,
        },
    )
    rows = "".join(f"{source}\t{reference}\n" for source, reference in zip(sources, references, strict=True))
    for test in ("dev", "test"):
        write(work / "evaluate" / "tests" / f"{test}.tsv", rows)
        for name, (kind, *_) in systems.items():
            if kind != "peer":
                lines = (outputs or {}).get(name) or [f"{name} {index}" for index in range(len(sources))]
                path = work / "evaluate" / "outputs" / name.replace(" ", "_") / f"{test}.txt"
                write(path, "".join(f"{line}\n" for line in lines))
    manifest(work, "evaluate", settings={"dev": ["dev.tsv"], "test": ["test.tsv"]})


def make_run(work: Path, name: str = "made-up") -> Path:
    """A whole run."""
    for stage in SUMMARIES:
        manifest(work, stage)
    log(work, "teacher_model", [5.0, 4.0, 3.0])
    log(work, "distill", [6.0 - index / 40 for index in range(30)], [20.0, 26.0, 30.0])
    write(work / "prune" / "checkpoint" / "prune.json", PRUNED)
    evaluate(work)
    candidates = [
        {"bytes": 1_480_000 - 100_000 * index, "seconds": 0.02 - 0.002 * index, "vocabulary": 8000}
        for index in range(5)
    ]
    plan = {"budget": {"bytes": 1_500_000}, "fit": {"machine": "a phone"}, "candidates": candidates}
    manifest(work, "plan", {"size": 1_500_000})
    write(work / "plan" / "plan.json", plan)
    chain = list(SUMMARIES)
    write(work / "report.json", {"name": name, "source_language": "en", "target_language": "de", "chain": chain})
    return work
