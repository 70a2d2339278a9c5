"""Prove that a pack translates as its checkpoint does, with torch as the reference."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mobilenmt.export.checkpoint import Checkpoint
from mobilenmt.export.layers import unstacked_names
from mobilenmt.runtime.errors import ExportError
from mobilenmt.runtime.onnx.engine import Engine
from mobilenmt.runtime.onnx.ort import SessionConfig, open_session
from mobilenmt.runtime.pack import Pack
from mobilenmt.runtime.tokenizer import Tokenizer

if TYPE_CHECKING:
    import onnxruntime
    from transformers import MarianMTModel

Array = npt.NDArray[Any]

# Any language will do: what is compared is arithmetic.
SENTENCE = "Hello! This is a test of 12 words, more or less."
STEPS = 12
MARGIN = 1e-4
"""Two tokens whose logits torch itself cannot tell apart by more than this may change places."""
TOLERANCE = {"fp32": 1e-4, "int8": 0.2}
"""Largest root-mean-square distance of the step logits from torch's, relative to their spread. INT8 of a sound
checkpoint lies at 0.01 to 0.05; a wrong scale or a swapped matrix gives 1 and more."""


class StepRunner:
    """encoder.onnx and decoder.onnx of a pack, fed by hand: for checks, tests and measurements."""

    def __init__(self, pack: Pack) -> None:
        self.pack = pack
        config = SessionConfig()
        self.encoder: onnxruntime.InferenceSession = open_session(pack.file("encoder.onnx"), config)
        self.decoder: onnxruntime.InferenceSession = open_session(pack.file("decoder.onnx"), config)

    def encode(self, ids: Array, lengths: Array) -> dict[str, Array]:
        """Outputs of encoder.onnx by name, for int64 ``ids`` [B, S] and ``lengths`` [B]."""
        names = [output.name for output in self.encoder.get_outputs()]
        return dict(zip(names, self.encoder.run(names, {"input_ids": ids, "lengths": lengths}), strict=True))

    def logits(self, ids: Array, lengths: Array, targets: Array) -> Array:
        """Logits [B, T, V] of every step, for given decoder inputs ``targets`` int64 [B, T].

        With a shortlist [B, T, n], one for each of the ``candidates`` that encode gives for these sources.
        """
        encoded = self.encode(ids, lengths)
        model = self.pack.manifest.model
        size = model.d_model // model.decoder_attention_heads
        shape = (len(ids), model.decoder_attention_heads, 0, size)
        past = {
            f"past_{part}.{index}": np.zeros(shape, np.float32)
            for index in range(model.decoder_layers)
            for part in ("key", "value")
        }
        fixed = {name: value for name, value in encoded.items() if name not in ("encoder_state", "candidates")}
        outputs = ["logits", *(name.replace("past", "present") for name in past)]
        steps = []
        for position in range(targets.shape[1]):
            feed = {"input_ids": targets[:, position : position + 1], "position": np.array([position]), **fixed, **past}
            logits, *present = self.decoder.run(outputs, feed)
            past = dict(zip(past, present, strict=True))
            steps.append(logits[:, 0])
        return np.stack(steps, axis=1)


def verify_against_torch(folder: Path, checkpoint: Checkpoint, weights: Mapping[str, Array] | None = None) -> str:
    """Check hashes, graphs, and one translation against torch; returns a line that says how close they are.

    Args:
        folder: the pack.
        checkpoint: what it was made from.
        weights: what torch is to take in place of the checkpoint's: fp32 [N, K] by the exporter's names. So a form that
            loses much is not mistaken for a fault.

    Raises:
        ExportError: a graph is not valid ONNX, or the pack computes something else than the checkpoint.
    """
    import onnx
    import torch
    from transformers import MarianMTModel

    pack = Pack.open(folder)
    for name in ("greedy.onnx", "batch.onnx", "translator.onnx", "encoder.onnx", "decoder.onnx"):
        try:
            onnx.checker.check_model(str(pack.file(name)))
        except onnx.checker.ValidationError as error:
            raise ExportError(f"{name} is not valid ONNX: {error}") from error
    manifest = pack.manifest
    # Only encodes here, so a target vocabulary of its own is not needed.
    tokenizer = Tokenizer(pack.file("tokenizer.json"), manifest.tokens, manifest.model.source_vocab_size)
    source = tokenizer.encode(SENTENCE)[: manifest.model.max_positions - 1]
    ids = np.array([[*source, manifest.tokens.eos]], np.int64)
    limit = min(STEPS, manifest.model.max_positions)
    runner, lengths = StepRunner(pack), np.array([ids.shape[1]])
    candidates = runner.encode(ids, lengths).get("candidates")
    allowed = None if candidates is None else candidates.tolist()
    model = MarianMTModel.from_pretrained(checkpoint.path).eval()
    if weights is not None:
        put_weights(model, weights)
    with torch.no_grad():
        greedy = model.generate(
            torch.from_numpy(ids),
            num_beams=1,
            do_sample=False,
            max_length=limit,
            prefix_allowed_tokens_fn=None if allowed is None else lambda batch, tokens: allowed,
        )[0].tolist()
        targets = np.array([greedy[:-1]], np.int64)
        wanted = model(input_ids=torch.from_numpy(ids), decoder_input_ids=torch.from_numpy(targets)).logits.numpy()
    found = runner.logits(ids, lengths, targets)
    if candidates is not None:
        wanted = wanted[..., candidates]
    distance = float(np.sqrt(np.square(found - wanted).mean()) / max(float(wanted.std()), 1e-6))
    if not distance <= TOLERANCE[manifest.precision]:
        raise ExportError(
            f"the pack computes something else than {checkpoint.path}: its logits differ from torch's by "
            f"{distance:.2g} of their spread, {TOLERANCE[manifest.precision]} is allowed"
        )
    special = (manifest.tokens.eos, manifest.tokens.pad)
    expected = [token for token in greedy[1:] if token not in special]
    output = [token for token in Engine(pack).generate([source], max_lengths=[limit])[0][0].ids if token not in special]
    same = output == expected
    if not same and manifest.precision == "fp32" and _margin(wanted[0]) > MARGIN:
        raise ExportError(f"the pack translates into ids {output}, torch into {expected}")
    agreement = "the same ids as torch" if same else "other ids than torch where its choice is close"
    return f"verified: hashes, graphs, {agreement}, logits within {distance:.1e} of their spread"


def put_weights(model: MarianMTModel, weights: Mapping[str, Array]) -> None:
    """Give a torch model matrices by the exporter's names, several projections of one stacked."""
    import torch

    tables = {
        "source_embedding": [model.model.encoder.embed_tokens],
        "target_embedding": [model.model.decoder.embed_tokens],
        "output_embedding": [model.lm_head],
    }
    for name, matrix in weights.items():
        modules = tables.get(name) or [model.get_submodule(part) for part in unstacked_names(name)]
        rows = np.split(matrix, np.cumsum([len(module.weight) for module in modules])[:-1])
        for module, part in zip(modules, rows, strict=True):
            with torch.no_grad():
                module.weight.copy_(torch.from_numpy(part))


def _margin(logits: Array) -> float:
    """Smallest distance between the best and the second best token of any step; ``logits`` [T, V]."""
    best = np.sort(logits, axis=-1)[:, -2:]
    return float((best[:, 1] - best[:, 0]).min())
