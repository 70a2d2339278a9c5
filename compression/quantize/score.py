"""Rows of the table: what a pack says, and what it takes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any

from mobilenmt.compression.evaluate.evaluate import EvaluateSettings, evaluate
from mobilenmt.compression.quantize.study import Study

_WARM_UP = 5
LATENCY_SENTENCES = 40
"""Of the dev text, evenly."""


def score(study: Study, name: str, pack: Path, lines: int | None, threads: int = 1) -> dict[str, Any]:
    """Bytes, BLEU, chrF and memory of a pack, as JSON types.

    Args:
        study: has the dev text.
        name: to show while it translates.
        pack: its folder.
        lines: of each dev file, the first ones; None for all.
        threads: sentences translated at once.
    """
    settings = EvaluateSettings(dev=study.settings.dev, lines=lines, threads=threads)
    source, target = (code or None for code in study.settings.languages)
    found = evaluate({name: pack}, settings, source_language=source, target_language=target)
    (system,) = found.systems
    scores = {test: {"bleu": one.bleu, "chrf": one.chrf} for test, one in system.scores.items()}
    return {
        "bytes": system.bytes,
        "scores": scores,
        "bleu": fmean(one["bleu"] for one in scores.values()),
        "chrf": fmean(one["chrf"] for one in scores.values()),
        "added_memory_bytes": system.added_memory_bytes,
        "sentences_per_second": system.sentences_per_second,
        "signatures": dict(found.signatures),
    }


def latencies(packs: Mapping[str, Path], sentences: Sequence[str]) -> dict[str, float]:
    """Seconds of a sentence by itself, greedy, one thread: the median over the sentences, each of which all packs
    translate in turn, so that what else the machine does meets all of them.

    Args:
        packs: name -> folder.
        sentences: to translate.
    """
    from mobilenmt.runtime.translator import Translator

    found: dict[str, list[float]] = {name: [] for name in packs}
    with contextlib.ExitStack() as stack:
        opened = {name: stack.enter_context(Translator(path, threads=1)) for name, path in packs.items()}
        for sentence in [*sentences[:_WARM_UP], *sentences]:
            for name, translator in opened.items():
                begin = time.perf_counter()
                translator.translate_batch([sentence], beam_size=1)
                found[name].append(time.perf_counter() - begin)
    return {name: median(times[len(sentences[:_WARM_UP]) :]) for name, times in found.items()}


def some_sentences(study: Study, count: int = LATENCY_SENTENCES) -> list[str]:
    """Sentences of the dev text, evenly."""
    texts = [source for test in study.tests for source in test.sources]
    return [texts[place * len(texts) // count] for place in range(min(count, len(texts)))]
