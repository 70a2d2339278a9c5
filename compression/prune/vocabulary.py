"""Fewer pieces: those that a text does not use go, or the model moves to another tokenizer.

A piece of the new tokenizer that the model knows keeps its row. Any other starts from the model's own spelling of it,
as the piece stands in a word: the mean of the rows of those pieces, each weighted by the characters it spells (after
Minixhofer et al. 2022; Gee et al., Fast Vocabulary Transfer, 2022). A single byte that the model has no piece for gets
the mean of the characters that have it in their UTF-8.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from mobilenmt.compression.core.errors import PruneError
from mobilenmt.compression.prune.network import BIAS, EMBEDDING, Network
from mobilenmt.compression.prune.pieces import Pieces
from mobilenmt.compression.vocabulary.training import BYTE_PIECES, EOS, PAD, UNK
from mobilenmt.compression.vocabulary.vocabulary import Vocabulary
from mobilenmt.export.checkpoint import read_json

_SPACE = "▁"


def keep_rows(network: Network, ids: Sequence[int]) -> Network:
    """The network of some pieces, in that order: its logits for them are what they were.

    The first is taken for </s>, the last for <pad>, which decoding starts from.
    """
    chosen = torch.tensor(ids)
    weights = {**network.weights, EMBEDDING: network.weights[EMBEDDING][chosen]}
    weights[BIAS] = network.weights[BIAS][:, chosen]
    weights[EMBEDDING][-1] = 0.0
    return _sized(network, weights)


def move(network: Network, pieces: Pieces, vocabulary: Vocabulary) -> tuple[Network, dict[str, int]]:
    """The network with another vocabulary.

    Args:
        network: the model.
        pieces: its own.
        vocabulary: the new one.

    Returns:
        The network, and how many pieces were there already (``same``), are spelled by others (``spelled``), or had to
        be guessed (``guessed``).
    """
    table, bias = network.weights[EMBEDDING], network.weights[BIAS][0]
    known: dict[str, int] = {}
    for index in range(pieces.size):
        if name := pieces.name(index):
            known.setdefault(name, index)
    special = {vocabulary.eos: pieces.eos, vocabulary.unk: pieces.unk}
    by_byte = _by_byte(known)
    rows = torch.zeros(vocabulary.size, table.shape[1])
    biases = torch.zeros(vocabulary.size)
    counts = Counter({"same": 0, "spelled": 0, "guessed": 0})
    for index, piece in enumerate(vocabulary.pieces(range(vocabulary.size - 1))):
        kind = "same"
        if index in special:
            weights = {special[index]: 1.0}
        elif piece in known:
            weights = {known[piece]: 1.0}
        else:
            weights = _spelled(piece, pieces)
            kind = "spelled"
            if not weights:
                kind = "guessed"
                found = by_byte.get(BYTE_PIECES.index(piece)) if piece in BYTE_PIECES else None
                weights = dict.fromkeys(found or [pieces.unk], 1.0)
        counts[kind] += 1
        ids, shares = torch.tensor(list(weights)), torch.tensor(list(weights.values()))
        shares = shares / shares.sum()
        rows[index], biases[index] = shares @ table[ids], shares @ bias[ids]
    return _sized(network, {**network.weights, EMBEDDING: rows, BIAS: biases[None]}), dict(counts)


def same_pieces(checkpoint: Path, vocabulary: Path) -> bool:
    """Whether a checkpoint's tokenizer.json has the pieces of a vocabulary under the same ids."""
    if not (checkpoint / "tokenizer.json").is_file():
        return False
    theirs, ours = (read_json(folder / "tokenizer.json").get("model", {}) for folder in (checkpoint, vocabulary))
    return bool(theirs == ours)


def _spelled(piece: str, pieces: Pieces) -> dict[int, float]:
    """Pieces of the model that spell a string, each with the characters it stands for; none if it cannot be spelled."""
    weights: Counter[int] = Counter()
    for ids in pieces.spell(piece):
        if pieces.unk not in ids and pieces.eos not in ids:
            for index in ids:
                weights[index] += max(1, len(pieces.name(index).replace(_SPACE, "")))
    return {index: float(weight) for index, weight in weights.items()}


def _by_byte(known: Mapping[str, int]) -> dict[int, list[int]]:
    """Byte -> ids of single characters that have it in their UTF-8."""
    found: dict[int, list[int]] = {}
    for piece, index in known.items():
        if len(piece) == 1:
            for byte in piece.encode("utf-8", "replace"):
                found.setdefault(byte, []).append(index)
    return found


def _sized(network: Network, weights: dict[str, Any]) -> Network:
    """A network of so many pieces, in the layout of Marian checkpoints: </s> first, <pad> last, its row zero."""
    size = len(weights[EMBEDDING])
    config = replace(
        network.config,
        vocab_size=size,
        decoder_vocab_size=size,
        pad_token_id=size - 1,
        decoder_start_token_id=size - 1,
        eos_token_id=0,
    )
    return Network(config, weights)


# -- pieces that a text does not use ---------------------------------------------------------------------------------


def used_pieces(pieces: Pieces, texts: Iterable[tuple[str, str]], least: int = 1) -> list[int]:
    """Ids that stay if a model is to read and write a text as before, rising, ``</s>`` first and ``<pad>`` last.

    These are pieces that occur ``least`` times in it, those that byte pair encoding makes them of on the way, single
    characters and bytes (any other text can still be spelled), and what is no ordinary piece.

    Raises PruneError if the tokenizer cannot be made smaller: it is no tokenizer.json in Marian's layout.
    """
    _check_layout(pieces)
    pairs = list(texts)
    counts: Counter[int] = Counter()
    for side in (0, 1):
        for ids in pieces.encode([pair[side] for pair in pairs], target=bool(side)):
            counts.update(ids)
    data = read_json(pieces.folder / "tokenizer.json")
    by_name = _names(data["model"])
    added = {token["content"] for token in data.get("added_tokens") or []}
    kept = {index for index, count in counts.items() if count >= least}
    kept |= {
        index
        for name, index in by_name.items()
        if len(name) == 1 or name in BYTE_PIECES or name in added or name in (EOS, UNK, PAD)
    }
    kept |= {token["id"] for token in data.get("added_tokens") or []}
    parts: dict[str, list[tuple[str, str]]] = {}
    for merge in data["model"].get("merges") or []:
        left, right = merge.split(" ", 1) if isinstance(merge, str) else merge
        parts.setdefault(left + right, []).append((left, right))
    waiting = [pieces.name(index) for index in kept]
    while waiting:
        for left, right in parts.get(waiting.pop(), ()):
            for part in (left, right):
                if (index := by_name.get(part)) is not None and index not in kept:
                    kept.add(index)
                    waiting.append(part)
    return [pieces.eos, pieces.unk, *sorted(kept - {pieces.eos, pieces.unk, pieces.pad}), pieces.pad]


def smaller_tokenizer(pieces: Pieces, ids: Sequence[int]) -> str:
    """tokenizer.json of some of the pieces, their ids counted anew."""
    data = read_json(pieces.folder / "tokenizer.json")
    model = data["model"]
    new = {old: index for index, old in enumerate(ids)}
    if model["type"] == "BPE":
        vocab = {name: new[index] for name, index in model["vocab"].items() if index in new}
        merges = []
        for merge in model.get("merges") or []:
            left, right = merge.split(" ", 1) if isinstance(merge, str) else merge
            if left in vocab and right in vocab and left + right in vocab:
                merges.append(merge)
        model |= {"vocab": vocab, "merges": merges}
    else:
        model["vocab"] = [model["vocab"][index] for index in ids if index < len(model["vocab"])]
        model["unk_id"] = new[pieces.unk]
    for token in data.get("added_tokens") or []:
        token["id"] = new[token["id"]]
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"))


def _check_layout(pieces: Pieces) -> None:
    if not pieces.has_json or (pieces.eos, pieces.unk, pieces.pad) != (0, 1, pieces.size - 1):
        raise PruneError(
            f"{pieces.folder}: unused pieces can be dropped from a tokenizer.json with </s> first, <unk> second and "
            "<pad> last only; move the model to such a one instead, with --vocabulary"
        )


def _names(model: Mapping[str, Any]) -> dict[str, int]:
    if model["type"] == "BPE":
        return dict(model["vocab"])
    return {row[0]: index for index, row in enumerate(model["vocab"])}
