"""Tokenized pairs in memory, as the trainer reads them, a made-up language to learn, and tiny models to prune."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from mobilenmt.compression.core.pairs import Pair, PairWriter
from mobilenmt.compression.prune.calibrate import Calibration, calibrate
from mobilenmt.compression.prune.network import Network
from mobilenmt.compression.prune.pieces import Pieces
from mobilenmt.compression.train.job import TrainingJob
from mobilenmt.compression.train.settings import TrainSettings
from mobilenmt.compression.train.student import StudentShape
from mobilenmt.compression.vocabulary.vocabulary import Vocabulary
from mobilenmt.export.checkpoint import load_checkpoint
from tiny_models import make_checkpoint, make_tokenizer

Array = npt.NDArray[Any]

_WORDS = (
    "the:der a:die one:das two:ein where:zwei is:wo train:ist station:Bahnhof house:Haus dog:Hund cat:Katze "
    "small:klein big:gross runs:rennt sleeps:schläft sees:sieht and:und or:oder not:nicht here:hier"
)
SOURCE, TARGET = zip(*(word.split(":") for word in _WORDS.split()), strict=True)


SHAPE = StudentShape(
    d_model=32,
    encoder_layers=2,
    decoder_layers=1,
    encoder_attention_heads=4,
    decoder_attention_heads=4,
    encoder_ffn_dim=64,
    decoder_ffn_dim=64,
    max_position_embeddings=64,
)
"""A model that updates in a hundredth of a second."""


def toy_vocabulary(folder: Path) -> Vocabulary:
    """A vocabulary folder for the made-up language."""
    folder.mkdir(parents=True, exist_ok=True)
    make_tokenizer(folder / "tokenizer.json")
    names = {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    config = {"tokenizer_class": "PreTrainedTokenizerFast", **names}
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return Vocabulary.load(folder)


def job_for(settings: TrainSettings, vocabulary: Vocabulary, *, seed: int = 1) -> TrainingJob:
    """A job whose text is a data set that is there already."""
    return TrainingJob(SHAPE, settings, Path("no pairs"), vocabulary.path.parent, seed=seed)


def write_dev(path: Path, count: int, seed: int = 99) -> Path:
    """A dev file of the made-up language."""
    path.write_text("".join("\t".join(pair) + "\n" for pair in toy_pairs(count, seed)), encoding="utf-8")
    return path


def write_pairs(path: Path, count: int) -> Path:
    """A corpus of the made-up language, as the stage ``corpus`` leaves it."""
    with PairWriter(path) as writer:
        for source, target in toy_pairs(count):
            writer.write(Pair(source, target, "toy"))
    return path


class MemoryDataset:
    """What ``PackedDataset`` offers, from lists of ids (the closing </s> included)."""

    def __init__(self, sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]) -> None:
        self._sides = (list(sources), list(targets))
        self.source_lengths = np.array([len(ids) for ids in sources], np.int32)
        self.target_lengths = np.array([len(ids) for ids in targets], np.int32)

    def __len__(self) -> int:
        return len(self._sides[0])

    def gather(self, indices: Array, pad: int) -> tuple[Array, Array]:
        out = []
        for side in self._sides:
            rows = [side[index] for index in indices]
            padded = np.full((len(rows), max(map(len, rows))), pad, np.int64)
            for row, ids in zip(padded, rows, strict=True):
                row[: len(ids)] = ids
            out.append(padded)
        return out[0], out[1]


def toy_pairs(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """Sentences of a made-up language: words are translated one by one, and come out in reverse order."""
    generator = random.Random(seed)
    pairs = []
    for _ in range(count):
        words = [generator.randrange(len(SOURCE)) for _ in range(generator.randint(1, 7))]
        pairs.append((" ".join(SOURCE[word] for word in words), " ".join(TARGET[word] for word in reversed(words))))
    return pairs


def toy_dataset(vocabulary: Vocabulary, pairs: Sequence[tuple[str, str]]) -> MemoryDataset:
    """Tokenize pairs."""
    sides = [
        [[*ids, vocabulary.eos] for ids in vocabulary.encode_batch([pair[side] for pair in pairs])] for side in (0, 1)
    ]
    return MemoryDataset(*sides)


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


@pytest.fixture(autouse=True, scope="package")
def one_thread() -> Iterator[None]:
    """For a conftest: models this small are slower on several threads, and far slower beside other work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
