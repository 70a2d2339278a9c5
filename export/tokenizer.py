"""A checkpoint's tokenizer, made ready for a pack: one tokenizer.json that no text can trick.

Read from tokenizer.json (Unigram or BPE), or converted from OPUS-MT's SentencePiece files
(:mod:`mobilenmt.export.spm`). What changes on the way:

- the pieces of eos, pad and unk (and other control pieces such as ``<s>``) move behind the noncharacter U+FFFF, and are
  no added tokens any more: ``</s>`` in a sentence is spelled with ordinary pieces;
- byte pieces ``<0x41>`` of a Unigram model score so low that this text, too, is spelled by its characters;
- post-processor, truncation, padding and BPE dropout go: the engine appends eos and sets limits, encoding is exact.

Everything else stays: ordinary text gets the ids it had.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mobilenmt.export import spm
from mobilenmt.export.checkpoint import Checkpoint, read_json, repeated
from mobilenmt.runtime.errors import CheckpointError
from mobilenmt.runtime.tokenizer import CONTROL_MARK, OUTPUT_MARK

BYTE_PIECE = re.compile(r"<0x[0-9A-F]{2}>")
_LANGUAGE_CODE = re.compile(r">>.+<<")
# Control pieces by their usual names, beside those that tokenizer_config.json names. Other special added tokens
# (placeholders, language codes) are meant to be written in text.
CONTROL_NAMES = frozenset({"<s>", "</s>", "<pad>", "<unk>", "<mask>", "<bos>", "<eos>"})
_CONTROL_ROLES = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token")


@dataclass(frozen=True)
class PreparedTokenizer:
    """The tokenizer files of a pack, as text."""

    source_json: str
    """tokenizer.json: encodes the source, and decodes the target unless `target_json` is there."""

    target_json: str | None
    """tokenizer.target.json, for a model with separate vocabularies: decodes only."""

    unk_id: int | None
    """Id of unk, or None where the tokenizer has none."""


def checkpoint_tokenizer(checkpoint: Checkpoint) -> PreparedTokenizer:
    """The tokenizer beside a checkpoint's weights, prepared as :func:`prepare_tokenizer` does it, which says what it
    raises."""
    config = checkpoint.config
    return prepare_tokenizer(
        checkpoint.path,
        vocab_size=config.vocab_size,
        target_vocab_size=config.decoder_vocab_size,
        eos=config.eos_token_id,
        pad=config.pad_token_id,
        unk=None,
    )


def prepare_tokenizer(
    checkpoint: Path, *, vocab_size: int, target_vocab_size: int, eos: int, pad: int, unk: int | None
) -> PreparedTokenizer:
    """Read the tokenizer of a checkpoint folder and prepare it for a pack.

    Args:
        checkpoint: the folder.
        vocab_size: rows of the source embedding.
        target_vocab_size: rows of the target's.
        eos: the id of the end token.
        pad: the id of the pad token.
        unk: the id of unk if the configuration names one; None for the tokenizer's own.

    Raises:
        CheckpointError: no usable tokenizer, a piece twice, ids that do not fit the model, special ids missing.
    """
    config = spm.read_config(checkpoint)
    separate = spm.has_separate_vocabularies(checkpoint, config)
    target: dict[str, Any] | None = None
    own_json = checkpoint / "tokenizer.json"
    if own_json.is_file() and not separate:
        where, source = str(own_json), _read_tokenizer_json(own_json)
        allowed = vocab_size
    elif all((checkpoint / name).is_file() for name in spm.FILES):
        where = str(checkpoint / spm.FILES[0])
        source, target = spm.convert(checkpoint, config, vocab_size, separate=separate)
        allowed = max(vocab_size, len(source["model"]["vocab"]))  # spm.convert checked; beyond lie pieces read as unk
    else:
        missing = [name for name in spm.FILES if not (checkpoint / name).is_file()]
        raise CheckpointError(
            f"{checkpoint}: no usable tokenizer: neither tokenizer.json nor all of {', '.join(spm.FILES)} "
            f"({', '.join(missing) or 'separate vocabularies need the latter'} missing)"
        )
    control = {name for role in _CONTROL_ROLES if (name := spm.token_name(config, role))} | CONTROL_NAMES
    unk = _settle_unk(source, unk, where)
    _harden(source, {"eos": eos, "pad": pad, "unk": unk}, control, allowed, where)
    source_json = _dump(source)
    _check(source_json, {"eos": eos, "pad": pad}, allowed, where)
    target_json = None
    if target is not None:
        where = str(checkpoint / spm.TARGET_VOCABULARY)
        _harden(target, {"eos": eos}, control, target_vocab_size, where)
        target_json = _dump(target)
        _check(target_json, {"eos": eos}, target_vocab_size, where)
    return PreparedTokenizer(source_json, target_json, unk)


def _dump(tokenizer: dict[str, Any]) -> str:
    return json.dumps(tokenizer, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def _read_tokenizer_json(path: Path) -> dict[str, Any]:
    data = read_json(path)
    model = data.get("model")
    if not isinstance(model, dict):
        raise CheckpointError(f"{path}: has no model section")
    kind = model.setdefault("type", "BPE" if "merges" in model else "Unigram" if "unk_id" in model else None)
    if kind not in ("Unigram", "BPE"):
        raise CheckpointError(f"{path}: the model is of type {kind}; supported are Unigram and BPE")
    vocab = model.get("vocab")
    if kind == "BPE":
        good = isinstance(vocab, dict) and all(type(i) is int and i >= 0 for i in vocab.values())
    else:
        good = isinstance(vocab, list) and all(
            isinstance(row, list) and len(row) == 2 and isinstance(row[0], str) and _is_score(row[1]) for row in vocab
        )
    if not good or not vocab:
        raise CheckpointError(f"{path}: model.vocab is no {kind} vocabulary")
    added = data.get("added_tokens") or []
    if not isinstance(added, list) or not all(
        isinstance(t, dict) and isinstance(t.get("content"), str) and type(t.get("id")) is int for t in added
    ):
        raise CheckpointError(f"{path}: added_tokens is not a list of tokens with content and id")
    return data


def _is_score(value: object) -> bool:
    return type(value) is int or (isinstance(value, float) and math.isfinite(value))


def _id_of(model: dict[str, Any], name: str) -> int | None:
    if model["type"] == "BPE":
        i = model["vocab"].get(name)
        return None if i is None else int(i)
    return next((i for i, (piece, _) in enumerate(model["vocab"]) if piece == name), None)


def _settle_unk(tokenizer: dict[str, Any], unk: int | None, where: str) -> int | None:
    """The one unk id that the model configuration and the tokenizer agree on; set in the tokenizer."""
    model = tokenizer["model"]
    if model["type"] == "Unigram":
        own = model.get("unk_id")
    else:
        name = model.get("unk_token")
        own = None if name is None else _id_of(model, name)
        if own is None and name is not None:
            own = next((t["id"] for t in tokenizer.get("added_tokens") or [] if t["content"] == name), None)
    if own is not None and unk is not None and own != unk:
        raise CheckpointError(f"{where}: unk has id {own} in the tokenizer and {unk} in the model's configuration")
    unk = own if unk is None else unk
    if model["type"] == "Unigram":
        if unk is None:
            raise CheckpointError(
                f"{where}: a Unigram model needs unk_id, and neither it nor the configuration has one"
            )
        model["unk_id"] = unk
    return unk


def _harden(
    tokenizer: dict[str, Any], special: dict[str, int | None], control: set[str], vocab_size: int, where: str
) -> None:
    """Change `tokenizer` in place as the head of this module says, and check its ids on the way."""
    model = tokenizer["model"]
    pieces: dict[int, str]  # id -> piece, of the model alone
    if model["type"] == "BPE":
        pieces = {}
        for piece, i in model["vocab"].items():
            if i in pieces:
                raise CheckpointError(f"{where}: pieces {pieces[i]!r} and {piece!r} have the same id {i}")
            pieces[i] = piece
    else:
        pieces = {i: piece for i, (piece, _) in enumerate(model["vocab"])}
        if twice := repeated(pieces.values()):
            raise CheckpointError(f"{where}: pieces listed twice, which shifts all ids behind them: {twice}")

    special_ids = {i for i in special.values() if i is not None}
    kept: list[dict[str, Any]] = []
    hidden = dict.fromkeys(special_ids, "")
    added_only: dict[int, str] = {}
    for token in tokenizer.get("added_tokens") or []:
        i, content = token["id"], token["content"]
        if pieces.get(i, content) != content:
            raise CheckpointError(f"{where}: added token {content!r} has id {i}, which is {pieces[i]!r} in the model")
        is_control = token.get("special", False) and content in control and not _LANGUAGE_CODE.fullmatch(content)
        if i in special_ids or is_control:
            hidden[i] = content
            if i not in pieces:
                added_only[i] = content
        else:
            kept.append(token | {"special": False})
    highest = max([*pieces, *added_only, *(t["id"] for t in kept)])
    if highest >= vocab_size:
        raise CheckpointError(f"{where}: has ids up to {highest}, but the model's vocabulary ends at {vocab_size - 1}")

    for i, content in sorted(added_only.items()):  # a special piece that the model's own vocabulary lacks gets a place
        if model["type"] == "BPE":
            model["vocab"][content] = i
        elif i == len(model["vocab"]):
            model["vocab"].append([content, 0.0])
        else:
            raise CheckpointError(f"{where}: id {i} of {content!r} leaves a gap behind the vocabulary")
        pieces[i] = content
    for role, special_id in special.items():
        if special_id is not None and special_id not in pieces:
            raise CheckpointError(f"{where}: has no piece with id {special_id}, which is the model's {role}")

    renamed = {pieces[i]: CONTROL_MARK + pieces[i].lstrip(CONTROL_MARK + OUTPUT_MARK) for i in hidden}
    if model["type"] == "BPE":
        _harden_bpe(model, renamed)
    else:
        model["vocab"] = [[renamed.get(piece, piece), score] for piece, score in model["vocab"]]
        if model.get("byte_fallback"):
            _lower_bytes(model)
    tokenizer["added_tokens"] = kept
    tokenizer["post_processor"] = tokenizer["truncation"] = tokenizer["padding"] = None


def _harden_bpe(model: dict[str, Any], renamed: dict[str, str]) -> None:
    model["vocab"] = {renamed.get(piece, piece): i for piece, i in model["vocab"].items()}
    if model.get("unk_token") is not None:
        model["unk_token"] = renamed.get(model["unk_token"], model["unk_token"])
    model["dropout"] = None
    # Merges that would spell a special or a byte piece from characters (converters that try all splits make such).
    prefix = model.get("continuing_subword_prefix") or ""

    def spells_hidden(merge: str | list[str]) -> bool:
        left, right = merge.split(" ", 1) if isinstance(merge, str) else merge
        parts = (left, right, left + right.removeprefix(prefix))
        return any(p in renamed or (model.get("byte_fallback") and BYTE_PIECE.fullmatch(p)) for p in parts)

    model["merges"] = [merge for merge in model.get("merges") or [] if not spells_hidden(merge)]


def _lower_bytes(model: dict[str, Any]) -> None:
    """Let byte pieces be reached by byte fallback alone.

    The lowest score also sets that of an unknown character (lowest - 10 in tokenizers' Unigram). That changes no
    segmentation where every character found in a piece is a piece itself: then a character is unknown on every path or
    on none. (Only exact ties behind an unknown character, aa+a against a+aa, may be rounded the other way.) Where a
    vocabulary is not like that, or cannot spell ``<0x41>``, the scores stay as they are, and ``<0x41>`` in a text is
    read as the byte: odd, but no special token.
    """
    vocab: list[list[Any]] = model["vocab"]
    normal = {p for p, _ in vocab if not BYTE_PIECE.fullmatch(p) and not p.startswith((CONTROL_MARK, OUTPUT_MARK))}
    if set("<0x123456789ABCDEF>").union(*normal) <= normal:
        spelling = (score for piece, score in vocab if not BYTE_PIECE.fullmatch(piece))
        low = 8.0 * min(0.0, *spelling) - 100.0  # below any spelling in 6 characters
        model["vocab"] = [[p, low if BYTE_PIECE.fullmatch(p) else score] for p, score in vocab]


def _check(text: str, special: dict[str, int], allowed: int, where: str) -> None:
    """Load what was made, as a reader will, and try the texts that it must withstand."""
    import tokenizers

    try:
        tokenizer = tokenizers.Tokenizer.from_str(text)
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:  # a plain Exception, or a Rust panic, which is a BaseException
        raise CheckpointError(f"{where}: tokenizers refuses it: {error}") from error
    for token in json.loads(text)["added_tokens"]:
        if tokenizer.token_to_id(token["content"]) != token["id"]:
            found = tokenizer.token_to_id(token["content"])
            raise CheckpointError(
                f"{where}: added token {token['content']!r} has id {token['id']} but is read as {found}"
            )
    if tokenizer.get_vocab_size() > allowed:
        raise CheckpointError(f"{where}: {tokenizer.get_vocab_size()} pieces, but the model has {allowed}")
    for role, i in special.items():
        piece = (tokenizer.id_to_token(i) or "").removeprefix(CONTROL_MARK)
        for probe in (piece, f"a {piece} b", f"a{piece}b"):
            if i in tokenizer.encode(probe, add_special_tokens=False).ids:
                raise CheckpointError(f"{where}: {probe!r} as text is encoded as {role} (id {i})")
