"""Makes every engine's model from one checkpoint, each with that engine's own tools. Done once, kept below build/."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness.errors import BenchmarkError, expect
from benchmarks.harness.machine import cpu_flags, source_digest
from benchmarks.harness.settings import Settings
from mobilenmt.export.shortlist import FILE_NAME as SHORTLIST
from mobilenmt.export.shortlist import Shortlist
from mobilenmt.runtime.atomic import atomic_path

_ROLES = {"pad_token_id": 31999, "eos_token_id": 0, "decoder_start_token_id": 31999, "forced_eos_token_id": 0}
_SIDE = {"layers": 6, "attention_heads": 16, "ffn_dim": 4096}
_BIG: dict[str, Any] = {
    "vocab_size": 32000,
    "d_model": 1024,
    **{f"{side}_{name}": value for side in ("encoder", "decoder") for name, value in _SIDE.items()},
    "activation_function": "relu",
    "max_position_embeddings": 512,
    "scale_embedding": True,
    **_ROLES,
}
"""Transformer-big (Vaswani et al. 2017, table 3), the baseline of MobileNMT's table 1, as a Marian model."""


def artifact(name: str, settings: Settings) -> Path:
    """Folder of one artifact, made if it is not there yet.

    Raises:
        BenchmarkError: its tool is not installed or failed; the rest can be measured without it.
    """
    if name == "checkpoint":
        return settings.checkpoint
    if name == "pack-int8" and settings.pack is not None:
        return settings.pack
    target = settings.build / _key(name, settings) / ("en-de" if name.startswith("pack") else name)
    try:
        return made_once(target, lambda out: _MAKERS[name](settings, out))
    except ImportError as error:
        raise BenchmarkError(f"{name} needs a package that is not installed: {error}") from error


def made_once(target: Path, make: Callable[[Path], object]) -> Path:
    """The folder ``target``, which ``make`` writes if it is not there yet; it appears complete or not at all."""
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(target) as temporary:
            make(temporary)
    return target


def _key(name: str, settings: Settings) -> str:
    """Name of the folder for what the artifact is made from."""
    digest = hashlib.sha256(name.encode())
    made_from = [Path(__file__)] if name.startswith("big") else sorted(settings.checkpoint.glob("*.*"))
    for path in made_from:
        digest.update(path.name.encode() + hashlib.sha256(path.read_bytes()).digest())
    if name.startswith("pack"):
        digest.update(source_digest().encode())  # a pack is made again when our code changes
    return f"{name}-{digest.hexdigest()[:12]}"


def _pack(settings: Settings, out: Path, precision: str) -> None:
    from mobilenmt.export.export import export

    export(settings.checkpoint, out, precision=precision, name="en-de")


def _ctranslate2(settings: Settings, out: Path, quantization: str) -> None:
    from ctranslate2.converters import TransformersConverter

    TransformersConverter(str(settings.checkpoint)).convert(str(out), quantization=quantization)


def _vmap(settings: Settings, out: Path) -> None:
    """CTranslate2 INT8 with the checkpoint's shortlist, as the vocabulary mapping that it knows."""
    path = settings.checkpoint / SHORTLIST
    expect(path.is_file(), f"ctranslate2-vmap-int8 needs a shortlist: there is no {path}")
    shutil.copytree(artifact("ct2-int8", settings), out)
    pieces = json.loads((out / "shared_vocabulary.json").read_text(encoding="utf-8"))  # without padding
    known = Shortlist.load(path)
    rows = dict(zip(pieces, known.lexical, strict=False))
    rows["</s>"] = np.union1d(known.common, rows["</s>"])  # every source ends in it
    targets = {piece: [pieces[i] for i in np.unique(row) if i < len(pieces)] for piece, row in rows.items()}
    lines = (f"{piece}\t{' '.join(found)}\n" for piece, found in targets.items())
    (out / "vmap.txt").write_text("".join(lines), encoding="utf-8")


def _optimum(settings: Settings, out: Path, big: bool = False) -> None:
    from optimum.exporters.onnx import main_export  # type: ignore[import-not-found, import-untyped, unused-ignore]

    checkpoint = artifact("big-checkpoint", settings) if big else settings.checkpoint
    main_export(str(checkpoint), output=str(out), task="text2text-generation-with-past", device="cpu")


def _optimum_int8(settings: Settings, out: Path) -> None:
    """Dynamic INT8 by optimum's own quantizer, with the configuration that it has for this processor."""
    from optimum.onnxruntime import ORTQuantizer  # type: ignore[import-not-found, import-untyped, unused-ignore]
    from optimum.onnxruntime.configuration import AutoQuantizationConfig  # type: ignore[import-not-found, import-untyped, unused-ignore]

    source = artifact("optimum-fp32", settings)
    make = AutoQuantizationConfig.avx512_vnni if "avx512_vnni" in cpu_flags() else AutoQuantizationConfig.avx2
    config = make(is_static=False, per_channel=False)
    shutil.copytree(source, out, ignore=shutil.ignore_patterns("*.onnx", "*.onnx_data"))
    # The merged decoder cannot be quantized: its weights lie outside the two branches of its If.
    for stem in ("encoder_model", "decoder_model", "decoder_with_past_model"):
        quantizer = ORTQuantizer.from_pretrained(source, file_name=f"{stem}.onnx")
        quantizer.quantize(save_dir=out, quantization_config=config, file_suffix="quantized")


def _big_checkpoint(settings: Settings, out: Path) -> None:
    """Random weights: speed and memory do not depend on what they are, since the lengths are forced."""
    import torch
    from transformers import GenerationConfig, MarianConfig, MarianMTModel

    torch.manual_seed(0)
    model = MarianMTModel(MarianConfig(**_BIG))  # type: ignore[no-untyped-call, unused-ignore]
    defaults = {"bad_words_ids": [[_ROLES["pad_token_id"]]], "max_length": 512}
    model.generation_config = GenerationConfig(**_ROLES, **defaults)  # type: ignore[no-untyped-call, unused-ignore]
    model.save_pretrained(out)


_MAKERS: dict[str, Callable[[Settings, Path], None]] = {
    "pack-int8": partial(_pack, precision="int8"),
    "pack-fp32": partial(_pack, precision="fp32"),
    "ct2-int8": partial(_ctranslate2, quantization="int8"),
    "ct2-vmap-int8": _vmap,
    "ct2-float32": partial(_ctranslate2, quantization="float32"),
    "optimum-fp32": _optimum,
    "optimum-int8": _optimum_int8,
    "big-checkpoint": _big_checkpoint,
    "big-optimum-fp32": partial(_optimum, big=True),
}
