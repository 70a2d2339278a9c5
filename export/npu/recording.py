"""What a model's products read and give on real text: run by torch, one sentence at a time, without padding."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from mobilenmt.export.checkpoint import Checkpoint
from mobilenmt.export.npu.groups import OUTPUT, Group
from mobilenmt.export.weights import Array
from mobilenmt.runtime.errors import ExportError, InputError
from mobilenmt.runtime.tokenizer import Tokenizer

LEAST_LINES = 16
MOST_LINES = 128
MOST_TOKENS = 96
_BATCH = 16
_ROWS = 512
"""Rows kept of each activation; the extremes are those of all rows."""
_UNKNOWN = 0.5
_COPIED = 0.6
_UNSURE = -2.5


@dataclass(frozen=True)
class Sample:
    """Token ids of a sentence with its end token, and of what the model makes of it, start token and end included."""

    source: tuple[int, ...]
    target: tuple[int, ...]


@dataclass
class Activation:
    """One side of a product: some of its rows [n, width], and the extremes of each channel over all rows."""

    rows: list[Array] = field(default_factory=list)
    low: Array | None = None
    high: Array | None = None

    def add(self, values: Array, share: int) -> None:
        """Take rows [n, width], and keep ``share`` of them."""
        least, most = values.min(axis=0), values.max(axis=0)
        self.low = least if self.low is None else np.minimum(self.low, least)
        self.high = most if self.high is None else np.maximum(self.high, most)
        places = np.unique(np.linspace(0, len(values) - 1, min(share, len(values))).astype(int))
        self.rows.append(values[places].copy())

    def joined(self) -> Array:
        """The rows kept."""
        found: Array = np.concatenate(self.rows)
        return found

    def scaled(self, factor: Array) -> Activation:
        """As if each channel had been multiplied by ``factor`` [width], all positive."""
        assert self.low is not None and self.high is not None
        return Activation([rows * factor for rows in self.rows], self.low * factor, self.high * factor)


@dataclass(frozen=True)
class Recorded:
    """A product's input and output."""

    read: Activation
    given: Activation


def read_lines(path: Path, limit: int = MOST_LINES) -> list[str]:
    """Sentences to calibrate on: lines up to the first tab, evenly from the whole file.

    Raises:
        InputError: the file is not there, is no text, or has fewer than ``LEAST_LINES`` lines with words.
    """
    try:
        lines = [line.partition("\t")[0].strip() for line in path.read_text(encoding="utf-8").split("\n")]
    except UnicodeError:
        raise InputError(f"{path}: the calibration text is not UTF-8") from None
    except OSError as error:
        raise InputError(f"{path}: the calibration text cannot be read: {error.strerror}") from None
    lines = list(dict.fromkeys(line for line in lines if any(map(str.isalpha, line))))
    if len(lines) < LEAST_LINES:
        raise InputError(
            f"{path}: {len(lines)} different lines with words are too short a calibration text; "
            f"give {LEAST_LINES} at least, {MOST_LINES} are used"
        )
    return lines if len(lines) <= limit else [lines[index * len(lines) // limit] for index in range(limit)]


def load_model(checkpoint: Checkpoint) -> Any:
    """The checkpoint as a MarianMTModel, with the tensors that ``checkpoint`` holds now."""
    import torch
    from transformers import MarianMTModel

    model = MarianMTModel.from_pretrained(checkpoint.path, dtype=torch.float32).eval()
    modules = dict(model.named_modules())
    for name, tensor in checkpoint.tensors.items():
        owner, _, part = name.rpartition(".")
        if owner in modules and part in ("weight", "bias"):
            with torch.no_grad():
                getattr(modules[owner], part).copy_(torch.from_numpy(np.ascontiguousarray(tensor)))
    return model


def make_samples(
    checkpoint: Checkpoint,
    model: Any,
    tokenizer: Tokenizer,
    lines: Sequence[str],
    warn: Callable[[str], None] = lambda line: None,
) -> list[Sample]:
    """Translate the lines greedily, and look whether they are in the language that the model reads.

    Raises:
        InputError: they are not: the vocabulary lacks their letters, or the model copies them.
    """
    config = checkpoint.config
    most = min(MOST_TOKENS, config.max_position_embeddings - 1)
    encoded = [tuple(tokenizer.encode(line)[:most]) for line in lines]
    strange = sum(not tokenizer.knows(line) for line in lines)
    if strange > _UNKNOWN * len(lines):
        raise InputError(
            "the calibration text is in another language than the model reads: "
            f"its vocabulary lacks letters of {strange / len(lines):.0%} of the lines"
        )
    samples, copied, total, sure = [], 0, 0, []
    for start in range(0, len(encoded), _BATCH):
        part = [(*ids, config.eos_token_id) for ids in encoded[start : start + _BATCH]]
        for source, (target, score) in zip(part, _translate(checkpoint, model, part), strict=True):
            words = [token for token in target[1:] if token != config.eos_token_id]
            copied += sum(token in source for token in words)
            total += len(words)
            sure.append(score)
            samples.append(Sample(source, target))
    if config.share_encoder_decoder_embeddings and total and copied > _COPIED * total:
        raise InputError(
            f"the calibration text is in another language than the model reads: it copies {copied / total:.0%} of it"
        )
    if float(np.mean(sure)) < _UNSURE:
        warn(
            f"the model is unsure of the calibration text (log-probability {np.mean(sure):.1f} a token): "
            "is it in the language that the model reads?"
        )
    return samples


def _translate(
    checkpoint: Checkpoint, model: Any, sources: Sequence[Sequence[int]]
) -> list[tuple[tuple[int, ...], float]]:
    """Tokens from the start token to the end, and the mean log-probability."""
    import torch

    config = checkpoint.config
    width = max(map(len, sources))
    ids = torch.full((len(sources), width), config.pad_token_id)
    mask = torch.zeros_like(ids)
    for row, source in enumerate(sources):
        ids[row, : len(source)] = torch.tensor(source)
        mask[row, : len(source)] = 1
    limit = min(2 * width + 11, config.max_position_embeddings)
    with torch.no_grad():
        made = model.generate(
            ids,
            attention_mask=mask,
            num_beams=1,
            do_sample=False,
            max_length=limit,
            output_scores=True,
            return_dict_in_generate=True,
        )
        scores = model.compute_transition_scores(made.sequences, made.scores, normalize_logits=True)
    found = []
    for row, values in zip(made.sequences.tolist(), scores.tolist(), strict=True):
        end = row.index(config.eos_token_id, 1) + 1 if config.eos_token_id in row[1:] else len(row)
        kept = [value for value in values[: end - 1] if np.isfinite(value)]
        found.append((tuple(row[:end]), float(np.mean(kept)) if kept else 0.0))
    return found


def run(model: Any, sample: Sample) -> Array:
    """Logits [steps, V] of the steps that make a sample's target."""
    import torch

    with torch.no_grad():
        logits = model(
            input_ids=torch.tensor([sample.source]),
            decoder_input_ids=torch.tensor([sample.target[:-1] or sample.target]),
        ).logits[0]
    found: Array = logits.numpy()
    return found


def record(
    checkpoint: Checkpoint, model: Any, products: Sequence[Group], samples: Sequence[Sample]
) -> dict[str, Recorded]:
    """What each product reads and gives, by its name.

    Raises:
        ExportError: an activation is NaN or infinite.
    """
    found = {group.name: Recorded(Activation(), Activation()) for group in products}
    share = max(1, _ROWS // len(samples))
    seen: dict[str, tuple[Array, Array]] = {}

    def keep(name: str, read: Array, given: Array) -> None:
        seen[name] = read, given

    with _watched(model, products, keep):
        for sample in samples:
            seen.clear()
            run(model, sample)
            for group in products:
                given = np.concatenate([seen[name][1] for name in group.names], axis=1)
                if group.names == (OUTPUT,):
                    given = given + group.bias(checkpoint)
                if rectified(group, checkpoint):
                    given = np.maximum(given, 0)
                for side, values in (
                    (found[group.name].read, seen[group.names[0]][0]),
                    (found[group.name].given, given),
                ):
                    if not np.isfinite(values).all():
                        raise ExportError(
                            f"activations of {group.name} are NaN or infinite on the calibration text: "
                            "the checkpoint is broken, or its numbers are too large for a static graph"
                        )
                    side.add(values, share if values.shape[1] < 4096 else 1)
    return found


def rectified(group: Group, checkpoint: Checkpoint) -> bool:
    """Whether a ReLU follows a product: a range that begins at zero does its work."""
    return group.names[0].endswith(".fc1") and checkpoint.config.activation_function == "relu"


@contextmanager
def _watched(model: Any, products: Sequence[Group], keep: Callable[[str, Array, Array], None]) -> Iterator[None]:
    handles = []
    for group in products:
        for name in group.names:
            module = module_of(model, name)

            def look(module: Any, inputs: Any, output: Any, name: str = name) -> None:
                keep(name, inputs[0][0].numpy(), output[0].numpy())

            handles.append(module.register_forward_hook(look))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def module_of(model: Any, name: str) -> Any:
    """The torch module of a projection."""
    return model.lm_head if name == OUTPUT else model.get_submodule(name)


def with_tensors(checkpoint: Checkpoint, changed: dict[str, Array]) -> Checkpoint:
    """A checkpoint with some tensors replaced; what was tied stays so."""
    return replace(checkpoint, tensors={**checkpoint.tensors, **changed})
