"""Configuration and tokenizer of a teacher, and what they say about its languages."""

from __future__ import annotations

import re
from typing import Any

from mobilenmt.compression.core.errors import TeacherError
from mobilenmt.compression.teacher.languages import same_language
from mobilenmt.compression.teacher.settings import TeacherSettings

T5_TYPES = ("t5", "mt5", "umt5", "longt5", "switch_transformers")
"""Model types that read a prefix."""


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
    if config.model_type in T5_TYPES:
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
        raise TeacherError(f"{settings.checkpoint}: its configuration cannot be loaded: {reason(error)}") from error


def load_tokenizer(settings: TeacherSettings) -> Any:
    """The checkpoint's tokenizer."""
    from transformers import AutoTokenizer

    tokenizers: Any = AutoTokenizer
    try:
        return tokenizers.from_pretrained(settings.checkpoint, trust_remote_code=False)
    except Exception as error:
        raise TeacherError(f"{settings.checkpoint}: it has no tokenizer that can be loaded: {reason(error)}") from error


def reason(error: BaseException | None) -> str:
    """The first line of an error of transformers, which writes paragraphs."""
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__
