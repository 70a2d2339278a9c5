"""One run of the trainer, from its first or latest state to its checkpoint. ``train`` starts it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mobilenmt.compression.core.errors import StoppedError
from mobilenmt.compression.core.progress import progress
from mobilenmt.compression.core.stage import write_json
from mobilenmt.compression.dataset.batches import (
    Batch,
    EpochPlan,
    Pairs,
    derive_seed,
    make_batch,
    plan_epoch,
    prefetch,
    share,
)
from mobilenmt.compression.train.averaging import Snapshots, swapped
from mobilenmt.compression.train.devset import DevEvaluator, mean_score, read_dev_sets, to_json
from mobilenmt.compression.train.hidden.matching import MATCHED
from mobilenmt.compression.train.interrupt import StopRequest
from mobilenmt.compression.train.job import TrainingJob
from mobilenmt.compression.train.quantized.simulation import RANGES
from mobilenmt.compression.train.resume import is_state, load_state, open_state, save_state
from mobilenmt.compression.train.runlog import RunLog, plot, read_log
from mobilenmt.compression.train.schedule import hidden_weight, learning_rate, total_steps
from mobilenmt.compression.train.soft_targets import open_targets
from mobilenmt.compression.train.student import DROPOUT, load_weights, save_checkpoint
from mobilenmt.compression.train.tally import Tally
from mobilenmt.compression.train.update import Updater
from mobilenmt.compression.vocabulary.vocabulary import Vocabulary
from mobilenmt.runtime.atomic import remove_temporary

if TYPE_CHECKING:
    from accelerate import Accelerator


class TrainingRun:
    """The model and everything that changes while it trains."""

    def __init__(
        self, job: TrainingJob, dataset: Pairs, vocabulary: Vocabulary, folder: Path, accelerator: Accelerator
    ) -> None:
        settings = self.settings = job.settings
        self.dataset, self.vocabulary, self.folder = dataset, vocabulary, folder
        self.seed, self.accelerator = job.seed, accelerator
        self.main = accelerator.is_main_process
        self.report = job.report if self.main else lambda line: None
        dev_sets = read_dev_sets(settings.dev, settings.dev_lines)
        self.evaluator = DevEvaluator(dev_sets, vocabulary, job.shape.max_position_embeddings) if dev_sets else None
        student = job.make(
            job.shape,
            vocabulary,
            seed=derive_seed(job.seed, "weights"),
            **{name: getattr(settings, name) for name in DROPOUT},
        )
        if settings.initial is not None and not is_state(settings.initial):
            load_weights(student, settings.initial, vocabulary, layers=settings.initial_layers)
        self.updates_per_epoch = self.plan(0).updates
        self.total = total_steps(settings, self.updates_per_epoch)
        targets = open_targets(job, dataset, vocabulary, folder / "soft", accelerator.device, self.total)
        self.stored = targets.stored
        if targets.hidden is not None:
            self.report(targets.hidden.told)
        self.updater = Updater(student, settings, accelerator, targets.soft, job.seed, targets.hidden, job.simulated)
        self.student = student
        self.log = RunLog(folder / "log.jsonl")
        self.snapshots = Snapshots(folder / "snapshots", settings.average_last)
        self.step = self.epoch = self.position = self.waited = 0
        self.best: dict[str, Any] | None = None
        self.stopped_early = False
        self.tally = Tally(settings, accelerator)
        self.saved = time.monotonic()

    def plan(self, epoch: int) -> EpochPlan:
        return plan_epoch(
            np.asarray(self.dataset.source_lengths),
            np.asarray(self.dataset.target_lengths),
            batch_tokens=self.settings.batch_tokens,
            accumulation=self.settings.accumulation,
            max_tokens=self.settings.max_tokens,
            seed=self.seed,
            epoch=epoch,
        )

    def start(self, described: dict[str, Any]) -> None:
        """Take up the latest saved state, if there is one."""
        state = load_state(self.folder / "last")
        if state is not None:
            self.updater.restore(state.tensors)
            values = dict(state.values)
            self.tally.restore(values, main=self.main)
            self.step = state.step
            for name, value in values.items():
                setattr(self, name, value)
            self.report(f"going on after update {self.step:,} of {self.total:,}")
        elif self.settings.initial is not None and is_state(self.settings.initial):
            self.adopt(self.settings.initial)
        self.accelerator.wait_for_everyone()  # all have read, before anything is written
        if not self.main:
            return
        remove_temporary(self.folder)
        self.log.resume(self.step)
        self.snapshots.forget_after(self.step)
        write_json(self.folder / "settings.json", described)
        if state is not None and self.log.path.exists():
            self.tally.seconds_before = max(
                (entry.get("seconds", 0.0) for entry in read_log(self.log.path)), default=0.0
            )

    def adopt(self, path: Path) -> None:
        """Start from the state of another run."""
        state = open_state(path)
        dropped = self.updater.restore(state.tensors)
        told = f"starting from the state after update {state.step:,} in {path}"
        if dropped:
            told += (
                f"; its optimizer is not {self.settings.optimizer}: what it kept of {len(dropped)} of "
                f"{len(self.updater.parameters)} parameters is dropped and begins anew"
            )
        self.report(told)

    def save(self) -> None:
        self.saved = time.monotonic()
        if not self.main:
            return
        values = {name: getattr(self, name) for name in ("epoch", "position", "best", "waited", "stopped_early")}
        values |= self.tally.values()
        save_state(self.folder / "last", self.step, values, self.updater.state())
        if self.settings.average_last:
            self.snapshots.prune()

    def work(self) -> Generator[tuple[int, int, int, list[tuple[int, bool, Batch]]], None, None]:
        """Epoch, position after it, tokens, and this process's batches, for each update from here on."""
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        epoch, position, pad = self.epoch, self.position, self.vocabulary.pad
        lengths = np.asarray(self.dataset.target_lengths)
        while True:
            plan = self.plan(epoch)
            for update in range(position, plan.updates):
                pieces = plan.pieces(update)
                tokens = sum(int(lengths[piece].sum()) for piece in pieces)
                shares = share(pieces, self.settings.accumulation, rank, world)
                batches = [
                    (part.number, part.counts, make_batch(self.dataset, part.indices, pad, self.stored))
                    for part in shares
                ]
                yield epoch, update + 1, tokens, batches
            epoch, position = epoch + 1, 0

    def loop(self, stop: StopRequest) -> None:
        source = self.work()
        work = prefetch(source, 4) if self.accelerator.device.type != "cpu" else source
        settings = self.settings
        with (
            contextlib.closing(work),
            progress("train", "updates", total=self.total, initial=self.step, shown=self.main) as bar,
        ):
            self.tally.mark = time.monotonic()
            while self.step < self.total and not self.stopped_early:
                self.epoch, self.position, tokens, batches = next(work)
                self.step += 1
                rate = learning_rate(settings, self.step, self.total)
                result = self.updater.update(self.step, batches, tokens, rate)
                self.tally.add(self.step, result, tokens)
                bar.update()
                due = self.step == self.total
                if due or self.step % settings.log_every == 0:
                    bar.set_postfix_str(self.write_log(rate), refresh=False)
                if settings.average_last and self.step % settings.average_every == 0 and self.main:
                    with swapped(self.updater.parameters, self.average_values()):
                        self.snapshots.add(self.step, self.updater.parameters)
                going_on = not due
                if self.evaluator and (due or self.step % settings.dev_every == 0):
                    self.evaluate()
                    due, going_on = True, going_on and not self.stopped_early
                due |= bool(settings.save_every) and self.step % settings.save_every == 0
                due |= bool(settings.save_seconds) and time.monotonic() - self.saved >= settings.save_seconds
                stopping = going_on and stop.agreed(self.accelerator, self.step)
                if due or stopping:
                    self.save()
                if stopping:
                    raise StoppedError(
                        f"stopped by {stop.name} after update {self.step:,} of {self.total:,}; the state is saved in "
                        f"{self.folder / 'last'}: run the same command again to go on",
                        stop.exit_code,
                    )

    def write_log(self, rate: float) -> str:
        hidden = None if self.updater.hidden is None else hidden_weight(self.settings, self.step, self.total)
        found = self.tally.entry(self.updater.weights.word_level, hidden)
        if self.main:
            self.log.write({"step": self.step, "kind": "train", "epoch": self.epoch, "rate": rate, **found})
        return f"loss {found['nll']:.3f}, {found['tokens_per_second']:,} tokens/s"

    def average_values(self) -> dict[str, torch.Tensor] | None:
        """The moving average, which is what is evaluated and kept; None without one."""
        return None if self.updater.average is None else self.updater.average.values

    def translate_dev(self, kind: str) -> tuple[dict[str, Any], float, float]:
        """Scores of the weights as they are, their mean, and the loss in nats a token."""
        from accelerate.utils import gather_object

        assert self.evaluator is not None
        begin, simulation = time.monotonic(), self.updater.simulation
        share = self.accelerator.process_index, self.accelerator.num_processes
        with contextlib.nullcontext() if simulation is None else simulation.applied():
            mine = self.evaluator.translate(self.student, *share)
            found = self.evaluator.loss(self.student, self.updater.dtype, *share)
        merged: dict[int, str] = dict(gather_object(list(mine.items())))
        parts = gather_object([found])
        loss = sum(part[0] for part in parts) / sum(part[1] for part in parts)
        scores = self.evaluator.score(merged)
        mean = mean_score(scores, self.settings.dev_metric)
        shown = ", ".join(f"{name} {score.bleu:.1f} BLEU {score.chrf:.1f} chrF" for name, score in scores.items())
        told = f"{shown}, loss {loss:.3f} ({time.monotonic() - begin:.0f} s)"
        self.report(f"update {self.step:,}, {kind}: {told}")
        self.tally.mark += time.monotonic() - begin
        return to_json(scores), mean, loss

    def evaluate(self) -> None:
        with swapped(self.updater.parameters, self.average_values()):
            scores, mean, loss = self.translate_dev("dev")
            better = self.best is None or mean > self.best["mean"]
            if better:
                self.best = {"step": self.step, "mean": mean, "scores": scores}
                if self.main:
                    self.keep_model(self.folder / "best")
        self.waited = 0 if better else self.waited + 1
        self.stopped_early = bool(self.settings.patience) and self.waited >= self.settings.patience
        if self.main:
            found = {"scores": scores, "mean": mean, "loss": round(loss, 4), "best": better}
            self.log.write({"step": self.step, "kind": "dev", **found})
            plot(self.log.path, self.folder / "curve.png")

    def keep_model(self, folder: Path, beside: Sequence[Path] = ()) -> None:
        """Write the weights as they are as a checkpoint, with ranges that were learned, and files from ``beside``."""
        written = self.folder / RANGES
        if self.updater.simulation is not None:
            self.updater.simulation.write_ranges(written)
        save_checkpoint(self.student, self.vocabulary, folder, [written, *beside])
        written.unlink(missing_ok=True)

    def finish(self) -> dict[str, Any]:
        """Choose among best, last and average by the dev sets, and write ``checkpoint``."""
        final: dict[str, Any] = {"chosen": "last", "step": self.step, "scores": {}}
        averaged = self.snapshots.average() if self.settings.average_last else None
        values = self.average_values()
        if self.best is not None and self.best["step"] != self.step:
            final = {"chosen": "best", "step": self.best["step"], "scores": self.best["scores"]}
        elif self.best is not None:
            final["scores"] = self.best["scores"]
        if averaged is not None:
            if self.evaluator is None or self.best is None:
                final, values = {"chosen": "average", "step": self.step, "scores": {}}, averaged
            else:
                with swapped(self.updater.parameters, averaged):
                    scores, mean, _ = self.translate_dev("average")
                if mean > self.best["mean"]:
                    final, values = {"chosen": "average", "step": self.step, "scores": scores}, averaged
        if self.main:
            if final["chosen"] == "best":
                load_weights(self.student, self.folder / "best", self.vocabulary)
                values = None
            with swapped(self.updater.parameters, values):
                initial = self.settings.initial  # what it was pruned from, it is still matched to
                beside = [] if initial is None else [initial / MATCHED]
                if final["chosen"] == "best":
                    beside.append(self.folder / "best" / RANGES)
                self.keep_model(self.folder / "checkpoint", beside)
            plot(self.log.path, self.folder / "curve.png")
        return {
            **final,
            "steps": self.step,
            "tokens": self.tally.tokens,
            "parameters": sum(value.numel() for value in self.updater.parameters.values()),
            "stopped_early": self.stopped_early,
            "skipped_updates": self.tally.skipped,
        }
