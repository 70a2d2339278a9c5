"""A tiny checkpoint, a text and settings for a run of a second or so."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from places import ROOT

sys.path.insert(0, str(ROOT))  # benchmarks/ is no part of the package

from benchmarks.harness.settings import Settings

from tiny_models import WORDS, make_checkpoint


@pytest.fixture(scope="package")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint that CTranslate2 converts faithfully: its row of <pad>, with which decoding starts, is zero."""
    import torch
    from transformers import MarianMTModel

    folder = make_checkpoint(tmp_path_factory.mktemp("bench") / "checkpoint")
    model = MarianMTModel.from_pretrained(folder)
    with torch.no_grad():
        model.model.shared.weight[-1] = 0
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="package")
def sentences(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("text") / "sentences.txt"
    file.write_text("\n".join(" ".join(WORDS[i : i + 4 + i % 9]) for i in range(12)), encoding="utf-8")
    return file


@pytest.fixture
def settings(checkpoint: Path, sentences: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings(
        checkpoint=checkpoint,
        sentences=sentences,
        out=tmp_path / "out",
        build=tmp_path_factory.getbasetemp() / "build",
        engines=("ours-int8", "ctranslate2-int8"),
        lengths=(3, 6),
        beams=(1,),
        batches=(4,),
        threads=(1,),
        turns=2,
        turn_seconds=0.0,
    )
