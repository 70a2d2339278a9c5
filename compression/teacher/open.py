"""Which kind of model a teacher is, whether it will do, and how to open it; all that can be known is checked early."""

from __future__ import annotations

import difflib
import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from mobilenmt.compression.core.errors import TeacherError
from mobilenmt.compression.teacher.languages import find_code, language_name, same_language

if TYPE_CHECKING:
    from mobilenmt.compression.teacher.stage import TeacherSettings

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
_HASHED_WHOLE = 1 << 24
_HASHED_END = 1 << 20
_T5 = ("t5", "mt5", "umt5", "longt5", "switch_transformers")


class Candidate(NamedTuple):
    """One translation of a source."""

    text: str
    tokens: int
    """Generated, the end token counted."""
    flaw: str = ""
    """``looped``, ``too_long`` (ran into its limit), ``source_too_long``, ``markers``; empty if there is none."""


class Teacher(Protocol):
    """What a family of teachers can do."""

    def translate(self, sources: Sequence[str]) -> list[list[Candidate]]:
        """Translate sources, best candidate first; each source's depend on it and the other sources alone."""
        ...


class Checked(NamedTuple):
    """What :func:`check_teacher` found."""

    family: str
    source_code: str
    target_code: str


@dataclass(frozen=True)
class TeacherSpec:
    """All that a worker needs to open the teacher, and to translate as any other worker would."""

    settings: TeacherSettings
    family: str
    source_code: str
    target_code: str
    target_language: str
    seed: int
    device: str
    dtype: str
    threads: int

    @classmethod
    def of(
        cls, settings: TeacherSettings, checked: Checked, target_language: str, seed: int, machine: Mapping[str, Any]
    ) -> TeacherSpec:
        """Join settings and what was found out."""
        return cls(settings, *checked, target_language, seed, machine["device"], machine["dtype"], machine["threads"])

    def described(self) -> dict[str, Any]:
        """What a summary says about it."""
        return {"family": self.family, "device": self.device, "dtype": self.dtype, "threads": self.threads}


def open_teacher(spec: TeacherSpec) -> Teacher:
    """Load the weights.

    Raises:
        TeacherError: they are missing, incomplete, or do not fit the tokenizer or the device.
    """
    if spec.family == "pack":
        from mobilenmt.compression.teacher.pack import PackTeacher

        return PackTeacher(spec)
    if spec.family == "chat":
        from mobilenmt.compression.teacher.chat import ChatTeacher

        return ChatTeacher(spec)
    from mobilenmt.compression.teacher.seq2seq import Seq2SeqTeacher

    return Seq2SeqTeacher(spec)


def check_teacher(settings: TeacherSettings, source_language: str, target_language: str) -> Checked:
    """Find the family and the language codes, from configuration and tokenizer alone; takes seconds.

    Raises:
        TeacherError: no such checkpoint, no tokenizer, no weights, an architecture that cannot translate, a language
            the teacher does not know, a search it cannot do, a T5 without a prefix, a chat model without a template.
    """
    source, target = settings.source_language or source_language, settings.target_language or target_language
    if is_pack(settings):
        from mobilenmt.compression.teacher.pack import check_pack

        check_pack(settings, source, target)
        return Checked("pack", source, target)
    _check_folder(settings)
    config, tokenizer = load_config(settings), load_tokenizer(settings)
    family = _family(settings, config, tokenizer)
    if family == "chat":
        from mobilenmt.compression.teacher.chat import render

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


def language_codes(family: str, tokenizer: Any) -> list[str] | None:
    """The languages a tokenizer has tokens for; None for a model of one direction."""
    if family == "marian":
        return list(getattr(tokenizer, "supported_language_codes", None) or ()) or None
    if family == "nllb":
        return [token for token in tokenizer.additional_special_tokens if re.fullmatch("[a-z]{3}_[A-Z][a-z]{3}", token)]
    if family in ("m2m_100", "mbart"):
        return list(getattr(tokenizer, "lang_code_to_id", None) or ())
    return None


def prefix_of(settings: TeacherSettings, config: Any, source: str, target: str) -> str:
    """What is put before a source: the setting, or what the configuration names for the two languages.

    Raises TeacherError for a T5 that names none.
    """
    if settings.prefix is not None:
        return settings.prefix
    tasks = getattr(config, "task_specific_params", None) or {}
    for name, task in tasks.items():
        match = re.fullmatch("translation_([a-z]+)_to_([a-z]+)", name)
        if match and same_language(match[1], source) and same_language(match[2], target) and "prefix" in task:
            return str(task["prefix"])
    if config.model_type in _T5:
        raise TeacherError(
            f"{settings.checkpoint}: a T5 needs the prefix it was trained with for {source} to {target}, and its "
            "configuration names none; set teacher.prefix, as in 'translate English to German: ' (or '' for none)"
        )
    return ""


def load_config(settings: TeacherSettings) -> Any:
    """The checkpoint's configuration."""
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(settings.checkpoint, trust_remote_code=False)
    except Exception as error:  # OSError, ValueError, KeyError and those of huggingface_hub
        raise TeacherError(f"{settings.checkpoint}: its configuration cannot be loaded: {_reason(error)}") from error


def load_tokenizer(settings: TeacherSettings) -> Any:
    """The checkpoint's tokenizer."""
    from transformers import AutoTokenizer

    tokenizers: Any = AutoTokenizer
    try:
        return tokenizers.from_pretrained(settings.checkpoint, trust_remote_code=False)
    except Exception as error:
        raise TeacherError(
            f"{settings.checkpoint}: it has no tokenizer that can be loaded: {_reason(error)}"
        ) from error


def fingerprint(checkpoint: str) -> str:
    """Identify a checkpoint: its name on the hub, or SHA-256 over its files.

    Of a large file its size and its first and last megabyte count: a training step changes them all.
    """
    path = Path(checkpoint)
    if not path.exists():
        return checkpoint
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if _counts(file, path))
    total = hashlib.sha256()
    for file in files:
        size = file.stat().st_size
        name = "" if path.is_file() else file.relative_to(path).as_posix()  # a file may be moved
        total.update(f"{name}\0{size}\0".encode())
        with file.open("rb") as stream:
            if size <= _HASHED_WHOLE:
                total.update(stream.read())
            else:
                total.update(stream.read(_HASHED_END))
                stream.seek(-_HASHED_END, os.SEEK_END)
                total.update(stream.read())
    return f"sha256:{total.hexdigest()}"


def find_machine(settings: TeacherSettings) -> dict[str, Any]:
    """Resolve device, type and threads: JSON types."""
    on_ray = settings.engine == "ray"
    threads = settings.threads or (1 if on_ray else len(os.sched_getaffinity(0)) if _LINUX else os.cpu_count() or 1)
    if is_pack(settings):
        return {"device": "cpu", "dtype": "pack", "threads": threads}
    import torch

    device = settings.device
    if device == "auto":
        if on_ray:
            from mobilenmt.compression.teacher.ray_engine import has_gpu

            device = "cuda" if has_gpu(settings) else "cpu"
        else:
            device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype: str = settings.dtype
    if dtype == "auto":
        if device.startswith("cuda"):
            # On Ray the GPU may be another machine's: every one made since 2020 has bfloat16.
            has = on_ray or torch.cuda.is_bf16_supported(including_emulation=False)
        else:
            has = device == "cpu" and bool(_processor_flags() & {"avx512_bf16", "amx_bf16"})
        dtype = "bfloat16" if has else "float32"
    return {"device": device, "dtype": dtype, "threads": threads}


_LINUX = hasattr(os, "sched_getaffinity")


def _processor_flags() -> set[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return set()
    return next((set(line.split()) for line in lines if line.startswith("flags")), set())


def _counts(file: Path, folder: Path) -> bool:
    hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
    return file.is_file() and not hidden


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
                f"{name}: neither a folder here{hint} nor a model on the hub or in its cache: "
                f"{_reason(error.__cause__)}"
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
        elif kind in _T5:
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


def _reason(error: BaseException | None) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__
