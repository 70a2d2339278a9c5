"""Generation defaults of a checkpoint, checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mobilenmt.runtime.errors import CheckpointError, PackError
from mobilenmt.runtime.manifest import GenerationDefaults

_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "do_sample": (False,),
    "num_beam_groups": (1,),
    "constraints": ([],),
    "diversity_penalty": (0.0,),
    "dola_layers": (),
    "encoder_no_repeat_ngram_size": (0,),
    "encoder_repetition_penalty": (1.0,),
    "exponential_decay_length_penalty": (),
    "force_words_ids": ([],),
    "forced_decoder_ids": ([],),
    "guidance_scale": (1.0,),
    "penalty_alpha": (0.0,),
    "repetition_penalty": (1.0,),
    "sequence_bias": ({}, []),
    "stop_strings": ([],),
    "watermarking_config": (),
}
"""Settings that change what ``generate`` puts out and that a pack cannot do: the values that change nothing, beside
null. Those of sampling (temperature, top_k, …) change nothing without do_sample."""


def read_generation(raw: Mapping[str, Any], vocab_size: int, eos: int | None = None) -> GenerationDefaults:
    """Check a parsed generation_config.json (or config.json, where older checkpoints keep these).

    What is absent is as ``GenerationMixin.generate`` of transformers has it: 20 tokens at most, one beam. ``eos`` is
    the end token, which ``bad_words_ids`` cannot forbid there.

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

    def tokens(key: str) -> list[int]:
        values: Any = raw.get(key)
        values = [] if values is None else values
        if not isinstance(values, list) or not all(type(v) is int and 0 <= v < vocab_size for v in values):
            raise CheckpointError(f"{where}: {key} must be a list of ids below {vocab_size}, found {values!r}")
        return values

    for key, neutral in _NEUTRAL.items():
        if raw.get(key) is not None and raw[key] not in neutral:
            raise CheckpointError(
                f"{where}: {key}={raw[key]!r} is not supported: a pack would translate without it; "
                "remove the key if that is what you want"
            )
    bad: list[int] = []
    bad_words = raw.get("bad_words_ids")
    if not isinstance(bad_words, list | None):
        raise CheckpointError(f"{where}: bad_words_ids must be a list of lists, found {bad_words!r}")
    for entry in bad_words or []:
        if not isinstance(entry, list) or len(entry) != 1 or type(entry[0]) is not int:
            raise CheckpointError(f"{where}: bad_words_ids entry {entry!r} is not supported: single tokens only")
        if not 0 <= entry[0] < vocab_size:
            raise CheckpointError(f"{where}: bad_words_ids entry {entry!r} is outside the vocabulary of {vocab_size}")
        if entry[0] != eos:
            bad.append(entry[0])
    bad += tokens("suppress_tokens")
    least = integer("min_length", 0, 0, 2**31) or 0
    new = integer("min_new_tokens", 0, 0, 2**31 - 1) or 0
    first = integer("forced_bos_token_id", None, 0, vocab_size)
    if first is not None and (first == eos or first in bad):
        raise CheckpointError(f"{where}: forced_bos_token_id {first} ends an output, or is never generated")
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
            min_length=max(least, new + 1 if new else 0),
            no_repeat_ngram_size=integer("no_repeat_ngram_size", 0, 0, 2**31) or 0,
            forced_bos_token_id=first,
            begin_suppress_tokens=tuple(dict.fromkeys(tokens("begin_suppress_tokens"))),
        )
    except PackError as error:
        raise CheckpointError(f"{where}: {error}") from None
