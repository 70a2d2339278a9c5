"""Prove that a folder of optimum's translates as its checkpoint does, with torch as the reference."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from mobilenmt.export.checkpoint import Checkpoint
from mobilenmt.export.verify import MARGIN, SENTENCE
from mobilenmt.runtime.errors import ExportError
from mobilenmt.runtime.onnx.ort import SessionConfig, load_onnxruntime, open_session

STEMS = ("encoder_model", "decoder_model_merged")
"""The graphs of a folder."""
MOST_NEW = 128
"""Tokens of an output that are compared."""
TOLERANCE = 0.5
"""Largest root-mean-square distance of the INT8 graphs' logits from torch's, relative to their spread: optimum takes
one scale a matrix, which costs some models several times what a pack's INT8 does. A wrong graph gives 1 and more."""


def check_folder(folder: Path, checkpoint: Checkpoint, lines: Sequence[str], *, int8: bool) -> str:
    """Compare greedy ids of fp32 with torch's, and the logits of INT8; returns a line that says how close they are.

    The tokenizer is the folder's own, as a user opens it.

    Raises:
        ExportError: the ids differ where torch's choice is clear, or the logits of INT8 do too much.
    """
    import torch
    from optimum.onnxruntime import ORTModelForSeq2SeqLM
    from transformers import AutoTokenizer, MarianMTModel

    with _silent():
        tokenizer = AutoTokenizer.from_pretrained(folder)  # type: ignore[no-untyped-call]
        reference: Any = MarianMTModel.from_pretrained(checkpoint.path).eval()
        options = load_onnxruntime().SessionOptions()
        options.intra_op_num_threads = 1  # steps of one row: more threads only wait for one another
        exported = ORTModelForSeq2SeqLM.from_pretrained(folder, subfolder="onnx", session_options=options)
        texts = [line for line in lines if line.strip()] or [SENTENCE]
        most = checkpoint.config.max_position_embeddings
        how = {"num_beams": 1, "do_sample": False, "max_length": min(MOST_NEW, most), "min_length": 0}
        inputs = [tokenizer(text, return_tensors="pt", truncation=True, max_length=most) for text in texts]
        close = 0
        outputs = []
        for text, given in zip(texts, inputs, strict=True):
            batch = {key: given[key] for key in ("input_ids", "attention_mask")}
            with torch.no_grad():
                wanted = reference.generate(**batch, **how)
                found = exported.generate(**batch, **how)
                outputs.append((batch, wanted))
                if wanted.tolist() == found.tolist():
                    continue
                logits = reference(**batch, decoder_input_ids=wanted[:, :-1]).logits[0].numpy()
            if _margin_where_they_part(wanted[0].tolist(), found[0].tolist(), logits) > MARGIN:
                raise ExportError(f"optimum's graphs translate {text[:60]!r} into other ids than torch")
            close += 1
        same = f"{len(texts)} line(s) with the ids of torch" + (f", {close} where its choice is close" if close else "")
        if not int8:
            return f"verified: {same}"
        # not by from_pretrained: told the name of a merged decoder it wants the decoder with past, too
        sessions = [
            open_session(folder / "onnx" / f"{stem}_quantized.onnx", SessionConfig(), fold=True) for stem in STEMS
        ]
        quantized = ORTModelForSeq2SeqLM(
            config=exported.config,
            encoder_session=sessions[0],
            decoder_session=sessions[1],
            generation_config=exported.generation_config,
        )
        distance = max(_distance(reference, quantized, *pair) for pair in outputs)
    if not distance <= TOLERANCE:
        raise ExportError(
            f"optimum's INT8 graphs compute something else than {checkpoint.path}: logits differ from torch's by "
            f"{distance:.2g} of their spread, {TOLERANCE} is allowed; with --precision fp32 there are none"
        )
    return f"verified: {same}; INT8 logits within {distance:.1e} of their spread"


def _distance(reference: Any, exported: Any, batch: Any, output: Any) -> float:
    """Root-mean-square distance of the logits of every step, over their spread."""
    import torch

    targets = output[:, :-1]
    with torch.no_grad():
        wanted = reference(**batch, decoder_input_ids=targets).logits.numpy()
        found = np.asarray(exported(**batch, decoder_input_ids=targets).logits)
    return float(np.sqrt(np.square(found - wanted).mean()) / max(float(wanted.std()), 1e-6))


def _margin_where_they_part(wanted: list[int], found: list[int], logits: Any) -> float:
    """How far torch's choice was ahead at the first token that differs."""
    place = next((i for i, pair in enumerate(zip(wanted, found, strict=False)) if pair[0] != pair[1]), None)
    if place is None or not place:
        return float("inf")
    row = logits[place - 1]
    return float(row[wanted[place]] - row[found[place]])


@contextmanager
def _silent() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
