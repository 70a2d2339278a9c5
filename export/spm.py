"""OPUS-MT's tokenizer files (source.spm, target.spm, vocab.json) as tokenizers JSON.

Gives the ids that transformers' MarianTokenizer gives: the text is normalized and cut with the source's SentencePiece
model, and each piece is looked up by name in vocab.json. In one Unigram model that becomes:

- pieces of source.spm stand at their ids of vocab.json, with source.spm's scores;
- pieces of source.spm that vocab.json lacks follow behind the model's vocabulary; the runtime reads such ids as unk;
- other pieces of vocab.json stand behind the mark U+FFFE, which no text holds and which the decoder drops: they come
  out of the model only. A single character that source.spm does not know at all stays readable (without byte fallback),
  because MarianTokenizer looks unknown text up in vocab.json too: whole runs of it, where this looks at each character;
- language codes (``>>deu<<``) are added tokens, read wherever they stand (by MarianTokenizer only at the beginning).

Known difference, shared with transformers' fast tokenizers: the character map is applied to whole graphemes, so a
combining mark or joiner right behind a character that the map replaces (a ligature, say) is dropped with it.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mobilenmt.export.checkpoint import read_json
from mobilenmt.runtime.errors import CheckpointError
from mobilenmt.runtime.tokenizer import CONTROL_MARK, OUTPUT_MARK

FILES = ("source.spm", "target.spm", "vocab.json")
TARGET_VOCABULARY = "target_vocab.json"

SPACE = "▁"
# sentencepiece_model.proto: TrainerSpec.ModelType and ModelProto.SentencePiece.Type
_UNIGRAM = 1
_MODEL_TYPES = {1: "unigram", 2: "bpe", 3: "word", 4: "char"}
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = 1, 2, 3, 4, 5, 6
_SPECIAL = {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}  # MarianTokenizer's defaults
_USER_DEFINED_SCORE = -0.1  # what SentencePiece gives such a piece in its search (length * highest score - 0.1)


def read_config(checkpoint: Path) -> dict[str, Any]:
    """tokenizer_config.json, or nothing where there is none."""
    path = checkpoint / "tokenizer_config.json"
    return read_json(path) if path.is_file() else {}


def token_name(config: dict[str, Any], role: str) -> str | None:
    """The text of a token that tokenizer_config.json names: a string, or an object with its content."""
    value = config.get(role)
    value = value.get("content") if isinstance(value, dict) else value
    return value if isinstance(value, str) else None


def has_separate_vocabularies(checkpoint: Path, config: dict[str, Any]) -> bool:
    """Whether source and target have vocabularies of their own."""
    separate = config.get("separate_vocabs")
    return (checkpoint / TARGET_VOCABULARY).is_file() if separate is None else bool(separate)


def convert(
    checkpoint: Path, config: dict[str, Any], vocab_size: int, *, separate: bool
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """The tokenizers JSON of the source (or of both languages), and that of the target if it is separate."""
    source, target = (_read_spm(checkpoint / name) for name in FILES[:2])
    vocab = _read_vocabulary(checkpoint / FILES[2])
    if max(vocab.values()) >= vocab_size:
        raise CheckpointError(
            f"{checkpoint / FILES[2]}: has ids up to {max(vocab.values())}, "
            f"but the model's vocabulary ends at {vocab_size - 1}"
        )
    unk = token_name(config, "unk_token") or _SPECIAL["unk_token"]
    if unk not in vocab:
        raise CheckpointError(f"{checkpoint / FILES[2]}: has no {unk!r}")
    controls = {p.piece for model in (source, target) for p in model.pieces if p.type in (_UNKNOWN, _CONTROL)}
    controls |= {token_name(config, role) or usual for role, usual in _SPECIAL.items()}
    rows = _source_rows(source, vocab, vocab_size, controls)
    codes = [] if separate else [p for p in vocab if p.startswith(">>") and p.endswith("<<")]
    for code in codes:
        rows[vocab[code]][0] = code
    decoder = _decoder((source, target) if not separate else (target,))
    result = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_added_token(code, vocab[code]) for code in sorted(codes, key=lambda code: vocab[code])],
        "normalizer": _normalizer(source),
        "pre_tokenizer": {
            "type": "Metaspace",
            "replacement": SPACE,
            "prepend_scheme": "never",  # the normalizer prepends, exactly when SentencePiece does
            "split": all(SPACE not in p.piece[1:] for p in source.pieces)
            and any(p.piece == SPACE for p in source.pieces),
        },
        "post_processor": None,
        "decoder": decoder,
        "model": {
            "type": "Unigram",
            "unk_id": vocab[unk],
            "vocab": rows,
            "byte_fallback": any(p.type == _BYTE for p in source.pieces),
        },
    }
    if not separate:
        return result, None
    path = checkpoint / TARGET_VOCABULARY
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file, but tokenizer_config.json says separate_vocabs")
    names = _read_vocabulary(path)
    return result, {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": decoder,
        # Only ever decodes, for which any model does: BPE without merges is the smallest in memory.
        "model": {
            "type": "BPE",
            "vocab": {(CONTROL_MARK + p if p in controls else p): i for p, i in names.items()},
            "merges": [],
        },
    }


def _read_spm(path: Path) -> Any:
    """A SentencePiece model (ModelProto of sentencepiece_model.proto) that this module can express."""
    from transformers.convert_slow_tokenizer import import_protobuf

    model = import_protobuf().ModelProto()  # type: ignore[no-untyped-call]
    try:
        model.ParseFromString(path.read_bytes())
    except Exception as error:  # OSError, or protobuf's DecodeError, which has no types to import it with
        raise CheckpointError(f"{path}: cannot be read as a SentencePiece model: {error}") from error
    if not model.pieces:
        raise CheckpointError(f"{path}: cannot be read as a SentencePiece model: it has no pieces")
    kind = model.trainer_spec.model_type
    if kind != _UNIGRAM:
        raise CheckpointError(
            f"{path}: a SentencePiece model of type {_MODEL_TYPES.get(kind, kind)}; supported is unigram"
        )
    if not model.normalizer_spec.escape_whitespaces:
        raise CheckpointError(f"{path}: was trained with escape_whitespaces=false, which is not supported")
    if model.trainer_spec.treat_whitespace_as_suffix:
        raise CheckpointError(f"{path}: was trained with treat_whitespace_as_suffix=true, which is not supported")
    if model.denormalizer_spec.precompiled_charsmap:
        raise CheckpointError(f"{path}: has a denormalizer, which is not supported")
    return model


def write_model(path: Path, pieces: Iterable[tuple[str, float, int]], normalizer: Mapping[str, Any]) -> None:
    """Write a SentencePiece unigram model of (piece, score, type); ``normalizer`` has fields of NormalizerSpec."""
    from transformers.convert_slow_tokenizer import import_protobuf

    model = import_protobuf().ModelProto()  # type: ignore[no-untyped-call]
    for piece, score, kind in pieces:
        model.pieces.add(piece=piece, score=score, type=kind)
    model.trainer_spec.model_type = _UNIGRAM
    model.trainer_spec.byte_fallback = any(piece.type == _BYTE for piece in model.pieces)
    for key, value in normalizer.items():
        setattr(model.normalizer_spec, key, value)
    path.write_bytes(model.SerializeToString())


def _read_vocabulary(path: Path) -> dict[str, int]:
    vocab = read_json(path)
    if not vocab or not all(type(i) is int and i >= 0 for i in vocab.values()):
        raise CheckpointError(f"{path}: is not a vocabulary (an object of piece: id)")
    if len(set(vocab.values())) < len(vocab):
        names: dict[int, str] = {}
        twice = [
            f"{names[i]!r} and {piece!r} ({i})" for piece, i in vocab.items() if names.setdefault(i, piece) != piece
        ]
        raise CheckpointError(f"{path}: pieces with the same id: {', '.join(twice[:10])}")
    return vocab


def _source_rows(source: Any, vocab: dict[str, int], vocab_size: int, controls: set[str]) -> list[list[Any]]:
    """[piece, score] by id: see the head of this module."""
    readable = {
        p.piece: _USER_DEFINED_SCORE if p.type == _USER_DEFINED else p.score
        for p in source.pieces
        if p.type in (_NORMAL, _USER_DEFINED)
    }
    bytes_ = {p.piece for p in source.pieces if p.type == _BYTE}
    # SentencePiece derives the score of unknown text from the lowest NORMAL piece, tokenizers from the lowest of all.
    lowest = min((p.score for p in source.pieces if p.type == _NORMAL), default=0.0)
    characters = {c for piece in readable for c in piece}
    rows: list[list[Any]] = [[f"{CONTROL_MARK}<unused {i}>", 0.0] for i in range(vocab_size)]
    for piece, i in vocab.items():
        if piece in readable:
            rows[i] = [piece, readable[piece]]
        elif piece in bytes_ or (len(piece) == 1 and piece not in characters and not bytes_):
            rows[i] = [piece, lowest]
        else:
            rows[i] = [(CONTROL_MARK if piece in controls else OUTPUT_MARK) + piece, 0.0]
    rows += [[piece, score] for piece, score in readable.items() if piece not in vocab]
    rows += [[piece, lowest] for piece in sorted(bytes_) if piece not in vocab]
    return rows


def _normalizer(source: Any) -> dict[str, Any]:
    """SentencePiece's normalization: character map, spaces (only U+0020) collapsed and trimmed, one space in front."""
    spec = source.normalizer_spec
    steps: list[dict[str, Any]] = []
    if spec.precompiled_charsmap:
        charsmap = base64.b64encode(spec.precompiled_charsmap).decode("ascii")
        steps.append({"type": "Precompiled", "precompiled_charsmap": charsmap})
    if spec.remove_extra_whitespaces:
        steps.append({"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "})
        # At the end SentencePiece trims the piece character too. The lookbehind keeps long runs of it linear.
        end = f"(?<![ {SPACE}])[ {SPACE}]+$"
        steps.append({"type": "Replace", "pattern": {"Regex": f"^ |{end}"}, "content": ""})
    if spec.add_dummy_prefix:
        steps.append({"type": "Prepend", "prepend": SPACE})
    return {"type": "Sequence", "normalizers": steps}


def _decoder(models: Iterable[Any]) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [{"type": "Replace", "pattern": {"String": OUTPUT_MARK}, "content": ""}]
    if any(p.type == _BYTE for model in models for p in model.pieces):
        steps.append({"type": "ByteFallback"})
    steps.append({"type": "Replace", "pattern": {"String": SPACE}, "content": " "})
    steps.append({"type": "Fuse"})
    # All outer spaces, as MarianTokenizer does (tokenizers' own Strip panics on a text of nothing else).
    steps.append({"type": "Replace", "pattern": {"Regex": "^ +| +$"}, "content": ""})
    return {"type": "Sequence", "decoders": steps}


def _added_token(content: str, i: int) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
    return {"id": i, "content": content, **flags}
