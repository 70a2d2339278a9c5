"""Packs of random weights: what a model of a shape will weigh, take and need, before anybody trains it."""

from __future__ import annotations

import itertools
import json
import string
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mobilenmt.compression.vocabulary.training import BYTE_PIECES, EOS, PAD, UNK
from mobilenmt.runtime.atomic import atomic_path

if TYPE_CHECKING:
    from mobilenmt.compression.pack.shortlist import ShortlistSettings
    from mobilenmt.compression.train.student import StudentShape
    from mobilenmt.runtime.pack import Pack

_SPACE = "▁"
_LETTERS = string.ascii_lowercase + string.digits + "äöüßéè.,!?'-"
FIRST = 2 + len(BYTE_PIECES)
"""The first id that text uses much."""


def draw_ids(random: np.random.Generator, vocabulary: int, shape: tuple[int, ...]) -> npt.NDArray[np.int64]:
    """Ids as text has them, whose pieces are sorted by frequency: id k about as often as 1 / k."""
    found = FIRST - 1 + np.exp(random.uniform(0, np.log(vocabulary - FIRST - 1), shape))
    clipped: npt.NDArray[np.int64] = np.clip(found.astype(np.int64), FIRST, vocabulary - 2)
    return clipped


def make_random_pack(
    shape: StudentShape,
    vocabulary: int,
    folder: Path,
    *,
    shortlist: ShortlistSettings | None = None,
    tokenizer: Path | None = None,
    precision: str = "int8",
    seed: int = 0,
) -> Pack:
    """Write a pack of this shape with random weights, without torch and without the checks of an export.

    Args:
        shape: dimensions.
        vocabulary: pieces, ``<pad>`` included.
        folder: the pack's; it must not be there yet.
        shortlist: sizes of a shortlist of random candidates; None for none.
        tokenizer: folder of a tokenizer.json with as many pieces; None for made-up ones.
        precision: ``int8`` or ``fp32``.
        seed: of the weights.

    Raises:
        ExportError: the folder cannot be written.
    """
    from mobilenmt.export.checkpoint import Checkpoint, MarianConfig, expected_tensors
    from mobilenmt.export.export import model_info, tool_versions, write_graphs
    from mobilenmt.export.native.file import NATIVE_FILE, native_bytes
    from mobilenmt.export.shortlist import Shortlist
    from mobilenmt.export.tokenizer import prepare_tokenizer
    from mobilenmt.export.writer import PackWriter
    from mobilenmt.runtime.manifest import GenerationDefaults, PackManifest, TokenIds
    from mobilenmt.runtime.pack import Pack

    random, pad = np.random.default_rng(seed), vocabulary - 1
    config = MarianConfig(
        **asdict(shape),
        vocab_size=vocabulary,
        decoder_vocab_size=vocabulary,
        scale_embedding=True,
        share_encoder_decoder_embeddings=True,
        tie_word_embeddings=True,
        pad_token_id=pad,
        eos_token_id=0,
        decoder_start_token_id=pad,
    )
    tensors: dict[str, Any] = {}
    for name, size in expected_tensors(config).items():
        deviation = size[-1] ** -0.5 if len(size) > 1 else 0.1
        tensors[name] = random.normal(float("norm.weight" in name), deviation, size).astype(np.float32)
    table = random.normal(0, shape.d_model**-0.5, (vocabulary, shape.d_model)).astype(np.float32)
    tensors |= dict.fromkeys(("source_embedding", "target_embedding", "output_embedding"), table)
    tensors["final_logits_bias"] = np.zeros((1, vocabulary), np.float32)
    generation = GenerationDefaults(forced_eos_token_id=0, bad_token_ids=(pad,))
    checkpoint = Checkpoint(folder, config, generation, tensors)
    candidates = None
    if shortlist is not None:
        # as in a real one: the common come first, and the frequent are the candidates of many
        common = np.append(0, np.arange(FIRST, vocabulary - 1)[: shortlist.common - 1])
        candidates = Shortlist(common, draw_ids(random, vocabulary, (vocabulary, shortlist.per_token)))
    with PackWriter(folder) as writer:
        if tokenizer is None:
            writer.path("tokenizer.json").write_text(made_up_tokenizer(vocabulary), encoding="utf-8")
        else:
            prepared = prepare_tokenizer(
                tokenizer, vocab_size=vocabulary, target_vocab_size=vocabulary, eos=0, pad=pad, unk=1
            )
            writer.path("tokenizer.json").write_text(prepared.source_json, encoding="utf-8")
        write_graphs(checkpoint, precision, candidates, writer)
        manifest = PackManifest(
            name=folder.name,
            source_language="en",
            target_language="de",
            precision="fp32" if precision == "fp32" else "int8",
            model=model_info(checkpoint),
            tokens=TokenIds(start=pad, eos=0, pad=pad, unk=1),
            generation=generation,
            card={"description": "random weights, for measurements"},
            tools=tool_versions(),
        )
        native = native_bytes(writer.path(NATIVE_FILE).parent, manifest)
        if native is not None:
            writer.path(NATIVE_FILE).write_bytes(native)
        return Pack.open(writer.commit(manifest))


def made_up_tokenizer(size: int) -> str:
    """A tokenizer.json of so many pieces in a student's layout, its pieces strings of letters; the same each time."""
    pieces = [EOS, UNK, *BYTE_PIECES, _SPACE, *_LETTERS]
    merges: list[list[str]] = []
    waiting = iter([_SPACE, *_LETTERS])
    grown: list[str] = []
    for start in itertools.chain(waiting, grown):
        for letter in _LETTERS[:26]:
            if len(pieces) >= size - 1:
                break
            merges.append([start, letter])
            pieces.append(start + letter)
            grown.append(start + letter)
    pieces = [*pieces[: size - 1], PAD]
    special = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    space = {"type": "Metaspace", "replacement": _SPACE, "prepend_scheme": "always", "split": True}
    return json.dumps(
        {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [{"id": i, "content": pieces[i], **special} for i in (0, 1, size - 1)],
            "normalizer": None,
            "pre_tokenizer": space,
            "post_processor": None,
            "decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, space]},
            "model": {
                "type": "BPE",
                "dropout": None,
                "unk_token": UNK,
                "continuing_subword_prefix": None,
                "end_of_word_suffix": None,
                "fuse_unk": False,
                "byte_fallback": True,
                "ignore_merges": False,
                "vocab": {piece: index for index, piece in enumerate(pieces)},
                "merges": merges,
            },
        },
        ensure_ascii=False,
        separators=(",", ":"),
    )


def save_tokenizer(size: int, folder: Path) -> Path:
    """Write a made-up tokenizer.json into a folder, for tests and trials."""
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_path(folder / "tokenizer.json") as temporary:
        temporary.write_text(made_up_tokenizer(size), encoding="utf-8")
    return folder
