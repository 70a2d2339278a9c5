"""What simulating a pack's rounding takes: the time of an update with and without it, in turns, and memory.

    python -m benchmarks.training.simulation VOCABULARY --forms int8 int4-32 --turns 7
    python -m benchmarks.training.simulation VOCABULARY --forms int4-32 --memory 90

The model is the shape that trainings begin with, of random weights, and all updates are of one batch of random tokens.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil
import torch
from accelerate import Accelerator

from mobilenmt.compression.core.pack_forms import PackForms
from mobilenmt.compression.dataset.batches import Batch, make_batch
from mobilenmt.compression.train.settings import DistillSettings
from mobilenmt.compression.train.student import StudentShape, make_student
from mobilenmt.compression.train.update import Updater
from mobilenmt.compression.vocabulary.vocabulary import Vocabulary
from mobilenmt.export.quantize.settings import Quantization

_LENGTH = 32


class _Random:
    """Sentences of one length."""

    def __init__(self, count: int, pieces: int) -> None:
        self.source_lengths = self.target_lengths = np.full(count, _LENGTH)
        self._ids = np.random.default_rng(0).integers(2, pieces - 1, (2, count, _LENGTH))

    def __len__(self) -> int:
        return len(self.source_lengths)

    def gather(self, indices: npt.NDArray[Any], pad: int) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        return self._ids[0][indices], self._ids[1][indices]


def make_updater(vocabulary: Vocabulary, form: str | None) -> Updater:
    """What trains the model, with a form simulated or none."""
    settings = DistillSettings(dropout=0.0, quantization_aware=form is not None)
    forms = None if form is None else PackForms(Quantization(form=form))
    return Updater(
        make_student(StudentShape(), vocabulary, seed=1), settings, Accelerator(cpu=True), None, 1, None, forms
    )


def main() -> None:
    """Read arguments, make updates, tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("vocabulary", type=Path, help="folder with tokenizer.json")
    parser.add_argument("--forms", nargs="+", default=["int8", "int4-32"])
    parser.add_argument("--tokens", type=int, default=4096, help="target tokens of an update")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--memory", type=int, metavar="UPDATES", help="make so many updates and tell resident memory")
    options = parser.parse_args()
    torch.set_num_threads(1)
    vocabulary = Vocabulary.load(options.vocabulary)
    pairs = _Random(options.tokens // _LENGTH, vocabulary.size)
    batch: Batch = make_batch(pairs, np.arange(len(pairs)), vocabulary.pad, None)
    forms = options.forms[:1] if options.memory else [None, *options.forms]
    updaters = {form: make_updater(vocabulary, form) for form in forms}
    seconds: dict[str | None, list[float]] = {form: [] for form in forms}
    for step in range(1, (options.memory or options.turns + 1) + 1):  # the first turn warms up
        for form, updater in updaters.items():
            begin = time.perf_counter()
            updater.update(step, [(0, True, batch)], options.tokens, 1e-4)
            seconds[form].append(time.perf_counter() - begin)
        if options.memory and step % (options.memory // 6 or 1) == 0:
            print(f"after {step} updates: {psutil.Process().memory_info().rss / 1e6:,.0f} MB", flush=True)
    for form in [] if options.memory else options.forms:
        ratios = [one / plain for one, plain in zip(seconds[form][1:], seconds[None][1:], strict=True)]
        own, plain = (median(seconds[key][1:]) for key in (form, None))
        print(f"{form}: {own:.3f} s, {plain:.3f} s without, {median(ratios):.2f} times")


if __name__ == "__main__":
    main()
