"""A pack's tokenizer as Hugging Face's tools know one: control pieces under their own names, special, and an end token.

What :mod:`mobilenmt.export.tokenizer` did, undone: ordinary text keeps its ids. One vocabulary becomes a
tokenizer.json, which ``PreTrainedTokenizerFast``, CTranslate2 and transformers.js read. Two have no such form: they
become the SentencePiece files and vocabularies of a ``MarianTokenizer``, which :mod:`mobilenmt.export.spm` reads again.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mobilenmt.export import spm
from mobilenmt.export.tokenizer import BYTE_PIECE, CONTROL_NAMES
from mobilenmt.runtime.tokenizer import CONTROL_MARK, OUTPUT_MARK

Json = dict[str, Any]
_NORMAL, _UNKNOWN, _CONTROL, _BYTE = 1, 2, 3, 6  # sentencepiece_model.proto: ModelProto.SentencePiece.Type


def write_tokenizer(
    folder: Path, source: Json, target: Json | None, ids: Mapping[str, int | None], size: int, extra: Json
) -> None:
    """Write the tokenizer files of a checkpoint.

    Args:
        folder: where to.
        source: the pack's tokenizer.json.
        target: its tokenizer.target.json, for two vocabularies.
        ids: of the roles ``eos_token``, ``pad_token`` and ``unk_token`` (None: there is none).
        size: ids of the source vocabulary; what lies behind them the model does not know, and is left out.
        extra: further keys of tokenizer_config.json.
    """
    if target is None:
        content, roles = plain_tokenizer(source, ids, size)
        files = {"tokenizer": content}
        config: Json = {"tokenizer_class": "PreTrainedTokenizerFast"}
    else:
        names = _pieces(source["model"])
        roles = {role: _plain(names[i]) for role, i in ids.items() if i is not None}
        files = _spm_files(folder, source, target, set(roles.values()), size)
        config = {"tokenizer_class": "MarianTokenizer", "separate_vocabs": True}
    for name, value in {**files, "tokenizer_config": config | roles | extra}.items():
        path = folder / f"{name}.json"
        path.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def plain_tokenizer(source: Json, ids: Mapping[str, int | None], size: int) -> tuple[Json, dict[str, str]]:
    """A tokenizer.json for other tools from a pack's, and the names of its roles; ``ids`` and ``size`` as above."""
    content: Json = json.loads(json.dumps(source))
    model = content["model"]
    if model["type"] == "Unigram":
        model["vocab"] = model["vocab"][:size]
    else:
        model["vocab"] = {piece: i for piece, i in model["vocab"].items() if i < size}
    roles = set(ids.values())
    special = {
        i: _plain(piece)
        for i, piece in _pieces(model).items()
        if piece.startswith(CONTROL_MARK) and (i in roles or _plain(piece) in CONTROL_NAMES)
    }  # what else is behind the mark stays there: nothing but the mark keeps a text from spelling it
    hidden = {CONTROL_MARK + piece: piece for piece in special.values()}
    if model["type"] == "BPE":
        model["vocab"] = {hidden.get(piece, piece): i for piece, i in model["vocab"].items()}
        model["unk_token"] = hidden.get(model.get("unk_token"), model.get("unk_token"))
    else:
        model["vocab"] = [[hidden.get(piece, piece), score] for piece, score in model["vocab"]]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    content["added_tokens"] += [{"id": i, "content": special[i], **flags} for i in sorted(special)]
    end = special[ids["eos_token"]] if ids["eos_token"] is not None else ""
    content["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": end, "type_id": 0}}],
        "pair": [{"Sequence": {"id": side, "type_id": 0}} for side in "AB"],
        "special_tokens": {end: {"id": end, "ids": [ids["eos_token"]], "tokens": [end]}},
    }
    return content, {role: special[i] for role, i in ids.items() if i in special}


def _spm_files(folder: Path, source: Json, target: Json, roles: set[str], size: int) -> dict[str, Json]:
    """Write source.spm and target.spm; returns the content of vocab.json and target_vocab.json."""
    vocab: dict[str, int] = {}
    readable: list[tuple[str, float, int]] = []
    for i, (piece, score) in enumerate(source["model"]["vocab"]):
        name, kind = _plain(piece).removeprefix(OUTPUT_MARK), _NORMAL
        if piece.startswith(CONTROL_MARK):
            if name.startswith("<unused "):  # an id without a piece
                continue
            kind = _UNKNOWN if i == source["model"]["unk_id"] else _CONTROL
        elif BYTE_PIECE.fullmatch(piece) and source["model"]["byte_fallback"]:
            kind = _BYTE
        if i < size:
            vocab[name] = i
        if not piece.startswith(OUTPUT_MARK):
            readable.append((name, score, kind))
    names = {_plain(piece): i for piece, i in target["model"]["vocab"].items()}
    steps = {step["type"]: step for step in source["normalizer"]["normalizers"]}
    options = {
        "precompiled_charsmap": base64.b64decode(steps.get("Precompiled", {}).get("precompiled_charsmap", "")),
        "remove_extra_whitespaces": "Replace" in steps,
        "add_dummy_prefix": "Prepend" in steps,
    }
    unknown = _plain(source["model"]["vocab"][source["model"]["unk_id"]][0])
    kinds = dict.fromkeys(roles | CONTROL_NAMES, _CONTROL) | {unknown: _UNKNOWN}
    if any(step["type"] == "ByteFallback" for step in target["decoder"]["decoders"]):
        kinds |= dict.fromkeys(filter(BYTE_PIECE.fullmatch, names), _BYTE)
    plain = [(piece, 0.0, kinds.get(piece, _NORMAL)) for piece in names]
    spm.write_model(folder / spm.FILES[0], readable, options)
    spm.write_model(folder / spm.FILES[1], plain, options)
    return {"vocab": vocab, "target_vocab": names}


def _pieces(model: Json) -> dict[int, str]:
    if model["type"] == "BPE":
        return {i: piece for piece, i in model["vocab"].items()}
    return {i: piece for i, (piece, _) in enumerate(model["vocab"])}


def _plain(piece: str) -> str:
    return piece.removeprefix(CONTROL_MARK)
