"""Tiny models to prune, and text for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mobilenmt.compression.prune.calibrate import Calibration, calibrate
from mobilenmt.compression.prune.network import Network
from mobilenmt.compression.prune.pieces import Pieces
from mobilenmt.export.checkpoint import load_checkpoint
from tiny_models import make_checkpoint
from training_data import toy_pairs


def prunable(folder: Path, **config: Any) -> Path:
    """A checkpoint with random weights and, as Marian's have it, a padding row of zeros."""
    from safetensors.torch import load_file, save_file

    made = make_checkpoint(folder, **config)
    weights = load_file(made / "model.safetensors")
    weights["model.shared.weight"][-1] = 0.0
    save_file(weights, made / "model.safetensors", metadata={"format": "pt"})
    return made


def opened(folder: Path, pairs: int = 60) -> tuple[Network, Pieces, Calibration]:
    """A checkpoint's network and tokenizer, and a text in batches."""
    loaded = load_checkpoint(folder)
    pieces = Pieces(folder, loaded.config)
    return Network.of(loaded), pieces, calibrate(toy_pairs(pairs), pieces, loaded.config)
