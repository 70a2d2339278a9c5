"""Prove that static graphs compute what their checkpoint does, with torch as the reference."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mobilenmt.export.checkpoint import Checkpoint
from mobilenmt.export.npu.recording import Sample, load_model, run
from mobilenmt.export.verify import SENTENCE, STEPS, TOLERANCE
from mobilenmt.export.weights import Array
from mobilenmt.runtime.errors import ExportError
from mobilenmt.runtime.onnx.static.host import Bucket
from mobilenmt.runtime.onnx.static.providers import REFERENCE
from mobilenmt.runtime.pack import Pack
from mobilenmt.runtime.sections import Variant
from mobilenmt.runtime.tokenizer import Tokenizer


def static_logits(pack: Pack, variant: Variant, index: int, form: str, sample: Sample) -> Array:
    """Logits [steps, V] of a bucket's graphs on the CPU, for the steps that make a sample's target."""
    bucket = Bucket(pack, variant, index, REFERENCE.of(form))
    bucket.encode(sample.source[:-1], pack.manifest.tokens.eos)
    found: Array = np.concatenate([bucket.step([token]) for token in sample.target[:-1]])
    return found


def verify_static(folder: Path, checkpoint: Checkpoint) -> None:
    """Compare one sentence in the smallest bucket, both forms.

    Raises:
        ExportError: a graph computes something else than the checkpoint.
    """
    pack = Pack.open(folder)
    manifest, variant = pack.manifest, pack.manifest.variant
    assert variant is not None
    tokenizer = Tokenizer(pack.file("tokenizer.json"), manifest.tokens, manifest.model.source_vocab_size)
    source = tokenizer.encode(SENTENCE)[: variant.source[0] - 1]
    steps = min(STEPS, variant.target[0], len(source))
    sample = Sample((*source, manifest.tokens.eos), (manifest.tokens.start, *source[:steps]))
    wanted = run(load_model(checkpoint), sample)
    for form in variant.forms:
        found = static_logits(pack, variant, 0, form, sample)
        there = np.isfinite(found)
        distance = float(np.sqrt(np.square(found - wanted)[there].mean()) / max(float(wanted.std()), 1e-6))
        if not distance <= TOLERANCE["int8"]:
            raise ExportError(
                f"the static graphs ({form}) compute something else than {checkpoint.path}: their logits differ from "
                f"torch's by {distance:.2g} of their spread, {TOLERANCE['int8']} is allowed"
            )
