"""Speed of training against a bare torch loop over the same model and batches, and of the input pipeline alone.

    python benchmarks/training.py DATASET VOCABULARY [--threads 1] [--updates 12] [--rounds 3]

DATASET is a folder of ``build_dataset``, such as a run's ``distill/dataset``; VOCABULARY the folder of tokenizer.json.
The bare loop is what one writes by hand: ``MarianMTModel`` as transformers makes it, ``cross_entropy`` with label
smoothing, autocast where the trainer uses it, fused AdamW, clipping. Both loops get the same batches, ready in memory;
the trainer also draws its batches, and keeps the moving average. Rounds alternate and the best of each counts;
on a shared machine by the process's own time (--processor-time).
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from mobilenmt.compression.dataset.batches import Batch, make_batch, plan_epoch
from mobilenmt.compression.dataset.dataset import PackedDataset
from mobilenmt.compression.train.loss import LossWeights
from mobilenmt.compression.train.schedule import learning_rate
from mobilenmt.compression.train.settings import TrainSettings
from mobilenmt.compression.train.student import StudentShape, make_student
from mobilenmt.compression.train.update import Updater, matrix_type
from mobilenmt.compression.vocabulary.vocabulary import Vocabulary


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("vocabulary", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--updates", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-tokens", type=int, default=8192)
    parser.add_argument("--accumulation", type=int, default=4)
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="auto")
    parser.add_argument("--processor-time", action="store_true")
    parser.add_argument("--compile", action="store_true", help="also the bare loop with torch.compile")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    clock = time.process_time if options.processor_time else time.perf_counter
    dataset, vocabulary = PackedDataset.open(options.dataset), Vocabulary.load(options.vocabulary)
    settings = TrainSettings(
        steps=1000, batch_tokens=options.batch_tokens, accumulation=options.accumulation, precision=options.precision
    )
    plan = plan_epoch(
        dataset.source_lengths,
        dataset.target_lengths,
        batch_tokens=settings.batch_tokens,
        accumulation=settings.accumulation,
        max_tokens=settings.max_tokens,
        seed=1,
        epoch=0,
    )
    updates = [
        [make_batch(dataset, indices, vocabulary.pad, None) for indices in plan.pieces(number)]
        for number in range(min(options.updates, plan.updates))
    ]
    tokens = sum(batch.tokens for batches in updates for batch in batches)
    loops: dict[str, Callable[[], None]] = {
        "bare": bare_loop(settings, vocabulary, updates, compiled=False),
        "trainer": trainer_loop(settings, vocabulary, dataset, plan, len(updates)),
    }
    if options.compile:
        loops["bare_compiled"] = bare_loop(settings, vocabulary, updates, compiled=True)
    seconds = {name: float("inf") for name in loops}
    for loop in loops.values():
        loop()  # warms up caches, allocators and compilers
    for _ in range(options.rounds):
        for name, loop in loops.items():
            begin = clock()
            loop()
            seconds[name] = min(seconds[name], clock() - begin)
    speed = {name: round(tokens / value) for name, value in seconds.items()}
    result: dict[str, Any] = {
        "threads": options.threads,
        "precision": str(matrix_type(settings.precision, torch.device("cpu"))),
        "clock": "processor" if options.processor_time else "wall",
        "target_tokens": tokens,
        "target_tokens_per_second": speed,
        "trainer_to_bare": round(speed["trainer"] / speed["bare"], 3),
        "pipeline_target_tokens_per_second": round(pipeline(dataset, vocabulary, plan, clock)),
        "plan_epoch_pairs_per_second": round(planning(dataset, settings, clock)),
    }
    print(json.dumps(result, indent=1))


def bare_loop(
    settings: TrainSettings, vocabulary: Vocabulary, updates: list[list[Batch]], *, compiled: bool
) -> Callable[[], None]:
    """A loop written by hand, over batches that lie ready."""
    model: Any = make_student(StudentShape(), vocabulary, seed=1, dropout=settings.dropout)
    step_model = torch.compile(model, dynamic=True) if compiled else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.98), fused=True)
    mixed = matrix_type(settings.precision, torch.device("cpu")) == torch.bfloat16
    ready = [[tensors(batch, vocabulary.pad) for batch in batches] for batches in updates]

    def loop() -> None:
        for batches in ready:
            total = sum(int((labels != -100).sum()) for *_, labels in batches)
            for source, mask, decoder_input, labels in batches:
                with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
                    logits = step_model(
                        input_ids=source, attention_mask=mask, decoder_input_ids=decoder_input, use_cache=False
                    ).logits
                    loss = nn.functional.cross_entropy(
                        logits.view(-1, logits.shape[-1]).float(),
                        labels.view(-1),
                        label_smoothing=settings.label_smoothing,
                        reduction="sum",
                    )
                (loss / total).backward()
            nn.utils.clip_grad_norm_(model.parameters(), settings.clip_norm)
            optimizer.step()
            optimizer.zero_grad()

    return loop


def tensors(batch: Batch, pad: int) -> tuple[torch.Tensor, ...]:
    """Source, mask, decoder input and labels (-100 at padding), as transformers wants them."""
    decoder_input = torch.from_numpy(batch.decoder_input)
    labels = torch.full(decoder_input.shape, -100).view(-1)
    where = np.arange(labels.numel()) if batch.positions is None else batch.positions
    labels[torch.from_numpy(where)] = torch.from_numpy(batch.labels)
    source = torch.from_numpy(batch.source)
    return source, (source != pad).long(), decoder_input, labels.view(decoder_input.shape)


def trainer_loop(
    settings: TrainSettings, vocabulary: Vocabulary, dataset: PackedDataset, plan: Any, updates: int
) -> Callable[[], None]:
    """The trainer's updates, batches drawn from the dataset."""
    from accelerate import Accelerator

    student = make_student(StudentShape(), vocabulary, seed=1, dropout=settings.dropout)
    updater = Updater(student, settings, LossWeights(settings.label_smoothing), Accelerator(cpu=True), None, 1)

    def loop() -> None:
        for number in range(updates):
            batches = [make_batch(dataset, indices, vocabulary.pad, None) for indices in plan.pieces(number)]
            work = [(piece, True, batch) for piece, batch in enumerate(batches)]
            tokens = sum(batch.tokens for batch in batches)
            updater.update(number + 1, work, tokens, learning_rate(settings, number + 1, 1000))

    return loop


def pipeline(dataset: PackedDataset, vocabulary: Vocabulary, plan: Any, clock: Callable[[], float]) -> float:
    """Target tokens a second of drawing batches, without a model; the best of three."""
    best = 0.0
    for _ in range(3):
        begin, tokens = clock(), 0
        for number in range(min(plan.updates, 200)):
            tokens += sum(make_batch(dataset, indices, vocabulary.pad, None).tokens for indices in plan.pieces(number))
        best = max(best, tokens / (clock() - begin))
    return best


def planning(dataset: PackedDataset, settings: TrainSettings, clock: Callable[[], float]) -> float:
    """Pairs a second of dividing an epoch, on 2 million lengths drawn from the dataset's."""
    random = np.random.default_rng(0)
    chosen = random.integers(0, len(dataset), 2_000_000)
    begin = clock()
    plan_epoch(
        dataset.source_lengths[chosen],
        dataset.target_lengths[chosen],
        batch_tokens=settings.batch_tokens,
        accumulation=settings.accumulation,
        max_tokens=settings.max_tokens,
        seed=1,
        epoch=0,
    )
    return len(chosen) / (clock() - begin)


if __name__ == "__main__":
    main()
