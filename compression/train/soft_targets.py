"""The teacher's distributions for word-level distillation: read live, or once, before training, and stored.

Stored, they lie beside the tokens of the dataset: ``ids.bin`` [tokens, K] (uint16 or uint32) and ``logprobs.bin``
[tokens, K] (float16), where row t belongs to token t of ``target.bin``. They are made shard by shard, in place; a shard
counts as done when ``done/NNNNNN`` is there, which is made after its rows are on the disk.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mobilenmt.compression.core.errors import TrainingError
from mobilenmt.compression.core.progress import progress
from mobilenmt.compression.dataset.batches import Array, Pairs, by_length, make_batch
from mobilenmt.compression.train.hidden.teacher import HiddenTeacher
from mobilenmt.compression.train.job import TrainingJob
from mobilenmt.compression.train.loss import CHUNK_BYTES_GPU, soften
from mobilenmt.compression.train.schedule import hidden_weight
from mobilenmt.compression.train.settings import DistillSettings, TrainSettings
from mobilenmt.compression.train.student import check_same_vocabulary
from mobilenmt.compression.train.update import DeviceBatch, SoftTargets, matrix_type
from mobilenmt.compression.vocabulary.vocabulary import Vocabulary
from mobilenmt.runtime.atomic import atomic_path

if TYPE_CHECKING:
    from accelerate import Accelerator

SHARD = 20_000
"""Sentences of a shard: minutes of work that a kill can cost."""


class SoftTeacher:
    """A teacher that says how likely it finds each piece, for given sources and targets."""

    def __init__(self, settings: DistillSettings, vocabulary: Vocabulary, device: torch.device) -> None:
        from transformers import MarianMTModel

        assert settings.teacher is not None
        check_soft_teacher(settings.teacher, vocabulary, settings.max_tokens)
        self.classes = vocabulary.size - 1
        self.count = min(settings.top_k or self.classes, self.classes)
        self.device = device
        self.dtype = matrix_type(settings.precision, device)
        self.model: Any = MarianMTModel.from_pretrained(settings.teacher, attn_implementation="sdpa")
        self.model = self.model.float().to(device).eval().requires_grad_(False)
        self._deep = bool(settings.hidden)
        self._latest: tuple[DeviceBatch, Any] | None = None

    @torch.no_grad()
    def outputs(self, batch: DeviceBatch) -> Any:
        """What the model in front of the output layer gives, with all hidden states if settings want them.

        Asked twice for the same batch it reads once.
        """
        if self._latest is None or self._latest[0] is not batch:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16):
                found = self.model.model(
                    input_ids=batch.source,
                    attention_mask=batch.source_mask,
                    decoder_input_ids=batch.decoder_input,
                    use_cache=False,
                    output_hidden_states=self._deep,
                )
            self._latest = batch, found
        return self._latest[1]

    @torch.no_grad()
    def best(self, batch: DeviceBatch) -> tuple[torch.Tensor, torch.Tensor]:
        """The ``count`` likeliest pieces of each target token: int64 [N, K], and their log-probabilities, float32."""
        model = self.model
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16):
            hidden = self.outputs(batch).last_hidden_state
            hidden = hidden.reshape(-1, hidden.shape[-1])
            if batch.positions is not None:
                hidden = hidden.index_select(0, batch.positions)
            found = []
            for chunk in hidden.split(max(1, CHUNK_BYTES_GPU // 8 // (4 * self.classes))):
                logits = (model.lm_head(chunk) + model.final_logits_bias).float()[:, : self.classes]
                values, ids = logits.topk(self.count, dim=1)
                found.append((ids, values - logits.logsumexp(1, keepdim=True)))
        ids, logprobs = zip(*found, strict=True)
        return torch.cat(ids), torch.cat(logprobs)


def check_soft_teacher(checkpoint: Path, vocabulary: Vocabulary, max_tokens: int) -> None:
    """Check that a checkpoint can give distributions over the student's vocabulary.

    Raises:
        CheckpointError: it is no Marian checkpoint.
        TrainingError: its vocabulary is another, or it has too few positions.
    """
    from mobilenmt.export.checkpoint import MarianConfig, read_json

    config = MarianConfig.from_dict(read_json(checkpoint / "config.json", f"{checkpoint}: no config.json there"))
    check_same_vocabulary(checkpoint, vocabulary)
    if config.decoder_vocab_size != vocabulary.size or config.decoder_start_token_id != vocabulary.pad:
        raise TrainingError(f"{checkpoint}: its output layer or its start token does not fit its tokenizer")
    if config.max_position_embeddings < max_tokens:
        raise TrainingError(
            f"{checkpoint} has positions for {config.max_position_embeddings} tokens, "
            f"max_tokens is {max_tokens}; lower it"
        )


class StoredTargets:
    """The two files, opened. Callable: indices of sentences to pieces int64 [N, K] and log-probabilities [N, K]."""

    def __init__(self, folder: Path, dataset: Pairs, vocabulary: Vocabulary, top_k: int, mode: str = "r") -> None:
        self.offsets = np.concatenate(([0], np.cumsum(dataset.target_lengths, dtype=np.int64)))
        shape = (int(self.offsets[-1]), min(top_k, vocabulary.size - 1))
        kind = np.uint16 if vocabulary.size <= 1 << 16 else np.uint32
        self.ids = np.memmap(folder / "ids.bin", kind, mode, shape=shape)  # type: ignore[call-overload]
        self.logprobs = np.memmap(folder / "logprobs.bin", np.float16, mode, shape=shape)  # type: ignore[call-overload]

    def __call__(self, indices: Array) -> tuple[Array, Array]:
        rows = self.rows(indices)
        return self.ids[rows].astype(np.int64), self.logprobs[rows].astype(np.float32)

    def rows(self, indices: Array) -> Array:
        """Rows of the tokens of some sentences, one sentence after the other."""
        begins = self.offsets[indices]
        lengths = self.offsets[indices + 1] - begins
        ends = np.cumsum(lengths)
        return np.repeat(begins - (ends - lengths), lengths) + np.arange(ends[-1])


@dataclass(frozen=True)
class Targets:
    """What a teacher gives to a training; None each where it is not wanted."""

    stored: StoredTargets | None = None
    """Brings its distributions into a batch."""
    soft: SoftTargets | None = None
    """Its distributions of a batch."""
    hidden: HiddenTeacher | None = None
    """Its hidden states of a batch."""


def open_targets(
    job: TrainingJob, dataset: Pairs, vocabulary: Vocabulary, folder: Path, device: torch.device, total: int
) -> Targets:
    """Open what is stored in ``folder``, and load the teacher if it is to run beside the student, ``total`` updates."""
    settings = job.settings
    if not isinstance(settings, DistillSettings) or not settings.reads_teacher:
        return Targets()
    temperature, stored = settings.temperature, None
    soft: SoftTargets | None = None
    teacher = None
    if settings.hidden or settings.soft_targets == "live":
        teacher = SoftTeacher(settings, vocabulary, device)
    if settings.word_level and settings.soft_targets == "stored":
        stored = StoredTargets(folder, dataset, vocabulary, settings.top_k)

        def soft(batch: DeviceBatch) -> tuple[torch.Tensor, torch.Tensor]:
            return batch.soft_ids, soften(batch.soft_logprobs, temperature)

    elif settings.word_level and teacher is not None:

        def soft(batch: DeviceBatch) -> tuple[torch.Tensor, torch.Tensor]:
            ids, logprobs = teacher.best(batch)
            return ids, soften(logprobs, temperature)

    if not settings.hidden or teacher is None:
        return Targets(stored, soft)
    hidden = HiddenTeacher(teacher, settings, job.shape, lambda step: hidden_weight(settings, step, total))
    return Targets(stored, soft, hidden)


def store_targets(
    settings: TrainSettings, dataset: Pairs, vocabulary: Vocabulary, folder: Path, accelerator: Accelerator
) -> None:
    """Make this process's share of the files of :class:`StoredTargets`, or the rest of it, if the settings want them.

    Raises TrainingError if the disk is full (room is taken before the work begins).
    """
    if not isinstance(settings, DistillSettings) or not settings.word_level or settings.soft_targets != "stored":
        return
    rank, world = accelerator.process_index, accelerator.num_processes
    shards = [np.arange(start, min(start + SHARD, len(dataset))) for start in range(0, len(dataset), SHARD)]
    try:
        (folder / "done").mkdir(parents=True, exist_ok=True)
        if rank == 0:
            _take_room(folder, dataset, vocabulary, settings.top_k)
    except OSError as error:
        raise TrainingError(f"{folder}: no room for the teacher's distributions: {error}; lower top_k") from error
    accelerator.wait_for_everyone()  # the first process has made the files
    mine = [(number, shard) for number, shard in enumerate(shards) if number % world == rank]
    todo = [(number, shard) for number, shard in mine if not (folder / "done" / f"{number:06d}").exists()]
    if not todo:
        return
    teacher = SoftTeacher(settings, vocabulary, accelerator.device)
    files = StoredTargets(folder, dataset, vocabulary, settings.top_k, "r+")
    lengths = np.asarray(dataset.target_lengths)
    total = sum(int(lengths[shard].sum()) for _, shard in todo)
    with progress("teacher's distributions", "tokens", total=total, shown=accelerator.is_main_process) as bar:
        for number, shard in todo:
            longest = np.maximum(dataset.source_lengths[shard], lengths[shard])
            for chosen in by_length(longest, settings.teacher_tokens):
                indices = shard[chosen]
                batch = make_batch(dataset, indices, vocabulary.pad, None)
                ids, logprobs = teacher.best(DeviceBatch(batch, accelerator.device))
                rows = files.rows(indices)
                files.ids[rows] = ids.cpu().numpy()
                files.logprobs[rows] = np.maximum(logprobs.cpu().numpy(), np.finfo(np.float16).min)
                bar.update(len(rows))
            try:
                files.ids.flush()
                files.logprobs.flush()
                (folder / "done" / f"{number:06d}").touch()
            except OSError as error:
                raise TrainingError(f"{folder}: cannot be written: {error}; make room and run again") from error


def _take_room(folder: Path, dataset: Pairs, vocabulary: Vocabulary, top_k: int) -> None:
    """Make both files in full size, so that a disk too small is found out now."""
    values = int(np.sum(dataset.target_lengths, dtype=np.int64)) * min(top_k, vocabulary.size - 1)
    for name, width in (("ids.bin", 2 if vocabulary.size <= 1 << 16 else 4), ("logprobs.bin", 2)):
        path = folder / name
        if path.exists() and path.stat().st_size == values * width:
            continue
        with atomic_path(path) as temporary, temporary.open("wb") as stream:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(stream.fileno(), 0, values * width)
            else:
                stream.truncate(values * width)
