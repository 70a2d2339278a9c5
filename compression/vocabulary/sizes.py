"""Vocabularies of several sizes side by side, to choose from."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from mobilenmt.compression.vocabulary.report import measure
from mobilenmt.compression.vocabulary.sample import draw_sample
from mobilenmt.compression.vocabulary.stage import VocabularySettings, train_on, write_tokenizer


def plan(
    pairs: Path,
    *,
    sizes: Sequence[int] = (4000, 8000, 16000, 32000),
    models: Sequence[Literal["bpe", "unigram"]] = ("bpe",),
    settings: VocabularySettings | None = None,
    weights: Mapping[str, float] | None = None,
    seed: int = 1,
) -> list[dict[str, Any]]:
    """Train vocabularies of several sizes on one sample and measure each; one report a vocabulary.

    :func:`table` shows them side by side. Raises as :func:`run` does.
    """
    base = settings or VocabularySettings()
    reports = []
    with tempfile.TemporaryDirectory(prefix="mobilenmt-vocabulary-") as scratch:
        root = Path(scratch)
        sample = draw_sample(pairs, root, size=base.sample, weights=weights or {}, seed=seed)
        for model in models:
            for size in sizes:
                chosen = dataclasses.replace(base, size=size, model=model)
                folder = root / f"{model}-{size}"
                folder.mkdir()
                write_tokenizer(train_on(sample, chosen), folder, ("", ""))
                reports.append(measure(folder, sample.held_back))
    return reports


def table(reports: Sequence[Mapping[str, Any]]) -> str:
    """Reports of vocabularies as a Markdown table."""
    columns = ["model", "pieces", "tokenizer.json", "memory loaded", "tokens a word, source", "target"]
    columns += ["characters in bytes, source", "target"]
    rows = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    for report in reports:
        source, target = report["source"], report["target"]
        memory = report["memory_bytes"]
        rows.append(
            f"| {report['model']} | {report['size']:,} | {report['bytes'] / 1e3:,.0f} kB "
            f"| {'not measured' if memory is None else f'{memory / 1e6:.1f} MB'} "
            f"| {source['tokens_per_word']:.3f} | {target['tokens_per_word']:.3f} "
            f"| {source['characters_in_bytes']:.4%} | {target['characters_in_bytes']:.4%} |"
        )
    return "\n".join(rows) + "\n"
