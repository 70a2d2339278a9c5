"""Fixtures: checkpoints with random weights and the packs made of them, small enough to be made for a test run."""

from __future__ import annotations

import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before anything imports onnxruntime
os.environ["HF_HUB_OFFLINE"] = "1"

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

from mobilenmt.export.export import export
from mobilenmt.export.npu.plan import StaticSettings
from tiny_models import make_checkpoint, write_calibration


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Marian checkpoint with random weights, width 32, and a Unigram tokenizer with byte fallback."""
    return make_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny")


@pytest.fixture(scope="session")
def make_pack(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Export a checkpoint to a fresh pack and return its folder."""

    def make(checkpoint: Path, precision: str) -> Path:
        out = tmp_path_factory.mktemp("pack") / "en-de"
        return export(checkpoint, out, precision=precision).path

    return make


@pytest.fixture(scope="session")
def tiny_pack(tiny_checkpoint: Path, make_pack: Callable[..., Path]) -> Path:
    """The INT8 pack of :func:`tiny_checkpoint`."""
    return make_pack(tiny_checkpoint, "int8")


@pytest.fixture(scope="session")
def tiny_fp32_pack(tiny_checkpoint: Path, make_pack: Callable[..., Path]) -> Path:
    """The fp32 pack of :func:`tiny_checkpoint`."""
    return make_pack(tiny_checkpoint, "fp32")


@pytest.fixture(scope="session")
def calibration(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty lines of the words that the tiny tokenizer knows."""
    return write_calibration(tmp_path_factory.mktemp("text") / "calibration.txt")


@pytest.fixture(scope="session")
def static_pack(tiny_checkpoint: Path, calibration: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An INT8 pack of :func:`tiny_checkpoint` with static graphs for 16 and 32 tokens."""
    out = tmp_path_factory.mktemp("static") / "en-de"
    smooth = find_spec("onnx_neural_compressor") is not None  # Python 3.13 has none
    return export(tiny_checkpoint, out, static=StaticSettings(calibration, (16, 32), smooth)).path
