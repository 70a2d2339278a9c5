"""Packs of one model, or of several, that differ in how they are quantized."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from mobilenmt.compression.prune.network import EMBEDDING, Network
from mobilenmt.compression.quantize.ecosystem import awq_network, gptq_network
from mobilenmt.compression.quantize.gptq import round_network
from mobilenmt.compression.quantize.matrices import StoredNetwork, round_all
from mobilenmt.compression.quantize.study import WEIGHTS, Study
from mobilenmt.export.quantize.rounding import Rounded
from mobilenmt.export.quantize.settings import Quantization

Method = Literal["nearest", "gptq", "gptq of onnx-neural-compressor", "awq of onnx-neural-compressor"]


@dataclass(frozen=True)
class Variant:
    """One row of the table."""

    name: str
    settings: Quantization
    method: Method = "nearest"


def _clipped(form: str) -> list[Variant]:
    return [
        Variant(form, Quantization(form)),
        Variant(f"{form}, percentile", Quantization(form, "percentile")),
        Variant(f"{form}, mse", Quantization(form, "mse")),
    ]


VARIANTS: Mapping[str, Variant] = {
    one.name: one
    for one in (
        Variant("fp32", Quantization("fp32")),  # which the C core runs, as it does the others
        *_clipped("int8"),
        Variant("int8, one scale a matrix", Quantization(granularity="tensor")),
        Variant("int8-wide", Quantization("int8-wide")),
        Variant("int8-wide, mse", Quantization("int8-wide", "mse")),
        Variant("int8-wide, GPTQ", Quantization("int8-wide", "mse", method="gptq"), "gptq"),
        Variant("int4-16, mse", Quantization("int4-16", "mse")),
        *_clipped("int4-32"),
        Variant("int4-32, mse, one scale a matrix", Quantization("int4-32", "mse", granularity="tensor")),
        Variant("int4-64, mse", Quantization("int4-64", "mse")),
        Variant("int4-128, mse", Quantization("int4-128", "mse")),
        Variant("int4-16, GPTQ", Quantization("int4-16", "mse", method="gptq"), "gptq"),
        Variant("int4-32, GPTQ", Quantization("int4-32", "mse", method="gptq"), "gptq"),
        Variant(
            "int4-32, GPTQ of onnx-neural-compressor",
            Quantization("int4-32", "mse", method="gptq"),
            "gptq of onnx-neural-compressor",
        ),
        Variant(
            "int4-32, AWQ of onnx-neural-compressor",
            Quantization("int4-32", "mse", method="awq"),
            "awq of onnx-neural-compressor",
        ),
    )
}
"""What is compared, by name."""
BASELINE, REFERENCE = "int8", "fp32"


@dataclass(frozen=True)
class Made:
    """What a variant computes with."""

    network: Network
    """The model in fp32, channels scaled where the method does that."""
    rounded: Mapping[str, Rounded]
    """By matrix; those that stay fp32 are left out."""

    @property
    def stored(self) -> Network:
        """The network as the pack has it."""
        return StoredNetwork.build(self.network, self.rounded)


def make(study: Study, variant: Variant) -> Made:
    """Round the matrices of a study's model. Raises QuantizeError if a library is missing."""
    network, settings = study.network, variant.settings
    if variant.method == "gptq":
        return Made(network, round_network(network, settings, study.hessians, shortlist=study.shortlist))
    if variant.method == "gptq of onnx-neural-compressor":
        return Made(network, gptq_network(network, settings, study.hessians, shortlist=study.shortlist))
    if variant.method == "awq of onnx-neural-compressor":
        network = awq_network(network, study.calibration.batches, settings.form_of(""))
    return Made(network, round_all(network, settings, shortlist=study.shortlist))


def write_pack(study: Study, variant: Variant, made: Made, out: Path) -> int:
    """Export it, in place of what is there; returns its bytes."""
    from mobilenmt.export.export import export

    nearest = variant.method == "nearest"
    source, target = (code or None for code in study.settings.languages)
    with tempfile.TemporaryDirectory(prefix="mobilenmt-") as scratch:
        checkpoint = study.path
        if made.network is not study.network:
            checkpoint = _with_weights(study.path, made.network, Path(scratch) / "checkpoint")
        pack = export(
            checkpoint,
            out,
            force=True,
            source_language=source,
            target_language=target,
            quantization=variant.settings,
            rounded=None if nearest else made.rounded,
        )
    return int(pack.total_bytes)


def _with_weights(checkpoint: Path, network: Network, out: Path) -> Path:
    """A copy of a checkpoint folder with the weights of a network."""
    from safetensors.torch import save_file

    shutil.copytree(checkpoint, out, ignore=shutil.ignore_patterns(*WEIGHTS), symlinks=False)
    config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8")) | {"dtype": "float32"}
    (out / "config.json").chmod(0o644)
    (out / "config.json").write_text(json.dumps(config), encoding="utf-8")
    weights = {name: value.contiguous() for name, value in network.weights.items() if name != EMBEDDING}
    weights["model.shared.weight"] = network.weights[EMBEDDING].contiguous()
    if not np.any(weights["final_logits_bias"].numpy()):
        del weights["final_logits_bias"]
    save_file(weights, out / WEIGHTS[0], metadata={"format": "pt"})
    return out
