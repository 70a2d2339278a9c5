"""What both commands need: their first arguments, a recipe, its prepared text, and an updater for it."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from mobilenmt.compression.chain.chain import Chain
from mobilenmt.compression.chain.recipe import load_recipe
from mobilenmt.compression.dataset.batches import Batch, derive_seed, make_batch, plan_epoch
from mobilenmt.compression.dataset.dataset import PackedDataset
from mobilenmt.compression.train.resume import is_state, open_state
from mobilenmt.compression.train.settings import DistillSettings
from mobilenmt.compression.train.stage import distill_settings
from mobilenmt.compression.train.student import StudentShape, load_weights, make_student
from mobilenmt.compression.train.update import Updater
from mobilenmt.compression.vocabulary.vocabulary import Vocabulary

Work = list[tuple[int, bool, Batch]]


def make_parser(name: str, description: str | None) -> argparse.ArgumentParser:
    """A parser of what both commands begin with, RECIPE, WORK, ``--set``; :meth:`Setting.of` reads it."""
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks.training.{name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("recipe", type=Path)
    parser.add_argument("work", type=Path, help="its work folder, with a tokenized text")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="for all runs")
    return parser


@dataclass(frozen=True)
class Setting:
    """A recipe whose text was tokenized (``mobilenmt distill`` began once in this work folder)."""

    settings: DistillSettings
    shape: StudentShape
    seed: int
    vocabulary: Vocabulary
    dataset: PackedDataset

    @classmethod
    def load(cls, recipe: Path, work: Path, overrides: list[str]) -> Setting:
        """Read a recipe, with settings replaced as by ``--set``, and what lies in its work folder."""
        chain = Chain(load_recipe(recipe, overrides), work)
        return cls(
            distill_settings(chain),
            chain.section(StudentShape),
            chain.seed,
            Vocabulary.load(chain.folder("vocabulary")),
            PackedDataset(chain.folder("distill") / "dataset"),
        )

    @classmethod
    def of(cls, options: argparse.Namespace) -> Setting:
        """What the arguments of :func:`make_parser` name."""
        return cls.load(options.recipe, options.work, options.set)

    def updater(self) -> Updater:
        """The model, from ``initial`` or from random weights, and its optimizer. Without teacher."""
        dropout: dict[str, Any] = {"dropout": self.settings.dropout}
        student = make_student(self.shape, self.vocabulary, seed=derive_seed(self.seed, "weights"), **dropout)
        initial = self.settings.initial
        if initial is not None and not is_state(initial):
            load_weights(student, initial, self.vocabulary, layers=self.settings.initial_layers)
        if self.settings.threads:
            torch.set_num_threads(self.settings.threads)
        updater = Updater(student, self.settings, Accelerator(cpu=self.settings.device == "cpu"), None, self.seed)
        if initial is not None and is_state(initial):
            updater.restore(open_state(initial).tensors)
        return updater

    def batches(self) -> Iterator[Work]:
        """The pieces of each update, as the trainer makes them on one process."""
        lengths = [np.asarray(side) for side in (self.dataset.source_lengths, self.dataset.target_lengths)]
        epoch = 0
        while True:
            plan = plan_epoch(
                *lengths,
                batch_tokens=self.settings.batch_tokens,
                accumulation=self.settings.accumulation,
                max_tokens=self.settings.max_tokens,
                seed=self.seed,
                epoch=epoch,
            )
            for update in range(plan.updates):
                yield [
                    (number, True, make_batch(self.dataset, piece, self.vocabulary.pad, None))
                    for number, piece in enumerate(plan.pieces(update))
                ]
            epoch += 1


def tokens_of(work: Work) -> int:
    """Target tokens of an update."""
    return sum(batch.tokens for _, _, batch in work)
