"""What tests of static graphs share: a text to calibrate on, sources, and a search by hand."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mobilenmt.runtime.onnx.static.host import Bucket
from mobilenmt.runtime.onnx.static.providers import REFERENCE
from mobilenmt.runtime.pack import Pack
from mobilenmt.runtime.tokenizer import Tokenizer
from tiny_models import WORDS


def write_calibration(path: Path, lines: int = 40) -> Path:
    """Write lines of words that the tiny tokenizer knows."""
    choose = random.Random(1)
    path.write_text("".join(" ".join(choose.choices(WORDS, k=choose.randint(3, 9))) + "\n" for _ in range(lines)))
    return path


def encode(pack: Pack, texts: Sequence[str]) -> list[list[int]]:
    """Ids without the end token."""
    manifest = pack.manifest
    tokenizer = Tokenizer(pack.file("tokenizer.json"), manifest.tokens, manifest.model.source_vocab_size)
    return [tokenizer.encode(text) for text in texts]


def greedy_by_hand(pack: Pack, source: Sequence[int], steps: int, index: int = 0) -> list[int]:
    """The likeliest tokens one after the other, bad ones left out, up to the end token."""
    variant = pack.manifest.variant
    assert variant is not None
    bucket = Bucket(pack, variant, index, REFERENCE)
    bucket.encode(source, pack.manifest.tokens.eos)
    token, found = pack.manifest.tokens.start, []
    for _ in range(steps):
        logits = bucket.step([token])[0]
        logits[list(pack.manifest.generation.bad_token_ids)] = -np.inf
        token = int(logits.argmax())
        if token == pack.manifest.tokens.eos:
            break
        found.append(token)
    return found
