"""Generation defaults of a checkpoint, checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mobilenmt.runtime.errors import CheckpointError, PackError
from mobilenmt.runtime.manifest import GenerationDefaults


def read_generation(raw: Mapping[str, Any], vocab_size: int) -> GenerationDefaults:
    """Check a parsed generation_config.json (or config.json, where older checkpoints keep these).

    What is absent is as ``GenerationMixin.generate`` of transformers has it: 20 tokens at most, one beam.

    Raises:
        CheckpointError: a value is of a wrong type or out of range, or asks for what a pack cannot do.
    """
    where = "generation_config.json"

    def integer(key: str, default: int | None, least: int, below: int) -> int | None:
        value: Any = raw.get(key)
        if value is None:
            return default
        if isinstance(value, list) and len(value) == 1:
            value = value[0]
        if type(value) is not int or not least <= value < below:
            raise CheckpointError(f"{where}: {key} must be an integer from {least} to {below - 1}, found {value!r}")
        return value

    bad: list[int] = []
    bad_words = raw.get("bad_words_ids")
    if not isinstance(bad_words, list | None):
        raise CheckpointError(f"{where}: bad_words_ids must be a list of lists, found {bad_words!r}")
    for entry in bad_words or []:
        if not isinstance(entry, list) or len(entry) != 1 or type(entry[0]) is not int:
            raise CheckpointError(f"{where}: bad_words_ids entry {entry!r} is not supported: single tokens only")
        if not 0 <= entry[0] < vocab_size:
            raise CheckpointError(f"{where}: bad_words_ids entry {entry!r} is outside the vocabulary of {vocab_size}")
        bad.append(entry[0])
    penalty = raw.get("length_penalty")
    try:
        return GenerationDefaults(
            num_beams=integer("num_beams", 1, 1, 65) or 1,
            length_penalty=1.0 if penalty is None else penalty,
            early_stopping=raw.get("early_stopping") or False,
            renormalize_logits=bool(raw.get("renormalize_logits") or False),
            forced_eos_token_id=integer("forced_eos_token_id", None, 0, vocab_size),
            bad_token_ids=tuple(dict.fromkeys(bad)),
            max_length=integer("max_length", 20, 1, 2**31) or 20,
        )
    except PackError as error:
        raise CheckpointError(f"{where}: {error}") from None
