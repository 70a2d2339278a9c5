"""Which kind of model a teacher is, and whether it will do: all that can be known without its weights."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Any

from mobilenmt.compression.core.errors import TeacherError
from mobilenmt.compression.teacher.languages import find_code, language_name
from mobilenmt.compression.teacher.loading import (
    T5_TYPES,
    language_codes,
    load_config,
    load_tokenizer,
    prefix_of,
    reason,
)
from mobilenmt.compression.teacher.pack import check_pack
from mobilenmt.compression.teacher.prompt import render
from mobilenmt.compression.teacher.settings import TeacherSettings
from mobilenmt.compression.teacher.spec import Checked

_TOKENIZER_FILES = (
    "tokenizer.json",
    "source.spm",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
    "spm.model",
    "vocab.json",
    "vocab.txt",
    "vocab-src.json",
)
_WEIGHT_FILES = tuple(
    f"{stem}{suffix}" for stem in ("model.safetensors", "pytorch_model.bin") for suffix in ("", ".index.json")
)
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


def check_teacher(settings: TeacherSettings, source_language: str, target_language: str) -> Checked:
    """Find the family and the language codes, from configuration and tokenizer alone; takes seconds.

    Raises:
        TeacherError: no such checkpoint, no tokenizer, no weights, an architecture that cannot translate, a language
            the teacher does not know, a search it cannot do, a T5 without a prefix, a chat model without a template.
    """
    source, target = settings.source_language or source_language, settings.target_language or target_language
    if is_pack(settings):
        check_pack(settings, source, target)
        return Checked("pack", source, target)
    _check_folder(settings)
    config, tokenizer = load_config(settings), load_tokenizer(settings)
    family = _family(settings, config, tokenizer)
    if family == "chat":
        found = Checked(family, language_name(source), language_name(target))
        text = "Where is the station?"
        if text not in render(settings, tokenizer, text, found.source_code, found.target_code):
            raise TeacherError(
                f"{settings.checkpoint}: its chat template leaves the text out; is it the template of a chat model?"
            )
        return found
    if family == "t5":
        prefix_of(settings, config, source, target)
    codes = language_codes(family, tokenizer)
    if codes is None:
        return Checked(family, source, target)
    name = settings.checkpoint
    if family == "marian":  # the source needs no code
        return Checked(family, source, find_code(target, codes, "target_language", name))
    return Checked(
        family,
        find_code(source, codes, "source_language", name),
        find_code(target, codes, "target_language", name),
    )


def is_pack(settings: TeacherSettings) -> bool:
    """Whether the teacher is one of our packs."""
    path = Path(settings.checkpoint)
    if settings.family == "auto":
        return (path / "pack.json").is_file() or (path.suffix == ".zip" and path.is_file())
    return settings.family == "pack"


def _check_folder(settings: TeacherSettings) -> None:
    """What transformers would say less clearly, or only once the weights are needed."""
    name = settings.checkpoint
    path = Path(name)
    if not path.exists():
        if not _HUB_NAME.fullmatch(name):
            raise TeacherError(f"{name}: no such checkpoint folder")
        beside = path.parent if path.parent.is_dir() else Path()
        near = difflib.get_close_matches(path.name, [item.name for item in beside.iterdir() if item.is_dir()])
        try:
            load_config(settings)
        except TeacherError as error:
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise TeacherError(
                f"{name}: neither a folder here{hint} nor a model on the hub or in its cache: {reason(error.__cause__)}"
            ) from error
        return
    if not path.is_dir():
        raise TeacherError(f"{name}: a file; give the checkpoint's folder, or a pack")
    if not (path / "config.json").is_file():
        raise TeacherError(f"{name}: no checkpoint: it has no config.json")
    if not any((path / file).is_file() for file in _TOKENIZER_FILES):
        raise TeacherError(
            f"{name}: the checkpoint has no tokenizer: none of {', '.join(_TOKENIZER_FILES)} is there; "
            "copy the tokenizer's files beside its config.json"
        )
    if not any((path / file).is_file() for file in _WEIGHT_FILES):
        raise TeacherError(f"{name}: the checkpoint has no weights: none of {', '.join(_WEIGHT_FILES)} is there")


def _family(settings: TeacherSettings, config: Any, tokenizer: Any) -> str:
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
    )

    kind = config.model_type
    if config.is_encoder_decoder and kind in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES:
        if kind == "m2m_100":
            found = "nllb" if type(tokenizer).__name__.startswith("Nllb") else "m2m_100"
        elif kind in T5_TYPES:
            found = "t5"
        else:
            found = kind if kind in ("marian", "mbart") else "seq2seq"
    elif not config.is_encoder_decoder and kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        found = "chat"
    else:
        architecture = ", ".join(getattr(config, "architectures", None) or ()) or kind
        raise TeacherError(
            f"{settings.checkpoint}: {architecture} cannot translate; a teacher is an encoder-decoder model, "
            "a decoder-only language model, or a pack"
        )
    wanted = settings.family
    if wanted not in ("auto", "seq2seq", found) or (wanted == "seq2seq" and found == "chat"):
        raise TeacherError(
            f"{settings.checkpoint}: a model of the family {found!r}, not {wanted!r} as teacher.family says"
        )
    return found if wanted == "auto" else wanted
