"""Settings of the teacher step: which model translates, and how. Imports nothing heavy."""

from __future__ import annotations

import dataclasses
import math
import string
from dataclasses import dataclass, field
from typing import Literal

from mobilenmt.compression.core.errors import RecipeError
from mobilenmt.compression.core.settings import PATH_IF_THERE

_PROMPT_FIELDS = {"text", "source_language", "target_language"}


@dataclass(frozen=True)
class TeacherSettings:
    """Which model translates, and how. Tokens are those of the teacher's own tokenizer."""

    checkpoint: str = field(metadata={PATH_IF_THERE: True})
    """A checkpoint folder, one of our packs (folder or zip), or a hub name such as ``Helsinki-NLP/opus-mt-en-de``."""
    family: Literal["auto", "marian", "m2m_100", "nllb", "mbart", "t5", "seq2seq", "chat", "pack"] = "auto"
    """auto reads it from the checkpoint. seq2seq: any other encoder-decoder model; chat: a decoder-only one."""
    source_language: str = ""
    """The teacher's own code of the source language (``eng_Latn``), or its name for a chat model; empty: the recipe's,
    turned into the teacher's."""
    target_language: str = ""
    """Likewise for the target language."""
    prefix: str | None = None
    """Put before every source of a t5 or seq2seq model; None takes what the checkpoint's configuration names."""
    prompt: str = ""
    """What a chat model is asked, with {text}, {source_language} and {target_language}; empty for a plain request to
    translate. Without a chat template in the tokenizer it is the whole input, and the answer ends with its line."""
    system: str = ""
    """System message of a chat model; empty for none."""
    search: Literal["greedy", "beam", "sample", "n_best", "nearest"] = "beam"
    """sample: n_best samples a source. n_best: that many entries of the beam. nearest: the one of the n_best entries
    that is nearest the reference by sentence chrF."""
    beam_size: int = 4
    """Hypotheses kept by beam, n_best and nearest (there at least n_best)."""
    n_best: int = 1
    """Translations of a source: written by sample and n_best, chosen from by nearest."""
    temperature: float = 1.0
    """Of sample: logits are divided by it."""
    top_p: float = 1.0
    """Of sample: the likeliest tokens that together reach this probability (Holtzman et al. 2020, section 3.1)."""
    length_penalty: float | None = None
    """Exponent of the length in a beam's score; None for the checkpoint's own."""
    max_length_ratio: float = 2.0
    """Most tokens of a translation: this times the source's tokens, and max_length_extra more."""
    max_length_extra: int = 10
    """See max_length_ratio."""
    max_length: int = 512
    """Most tokens of a translation, whatever its source; the model's positions are a limit too."""
    on_bad: Literal["reference", "drop"] = "reference"
    """What a source gets whose translation is empty, loops, or runs into its limit: its reference, or nothing."""
    tags: tuple[str, ...] = ("*",)
    """Corpora (patterns of their tags) whose sources are translated. The others keep their targets: text of a better
    teacher, say."""
    quantize: bool = False
    """In a recipe that trains its teacher: translate with an INT8 pack of it, on a processor about twice as fast."""
    batch_tokens: int = 4096
    """Source tokens translated at once, padding and beams counted."""
    shard_size: int = 2000
    """Sources of a shard, which is what a kill can lose."""
    device: str = "auto"
    """auto: a GPU if there is one. Or cpu, cuda, cuda:1, mps."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """auto: bfloat16 on a GPU that has it and on processors that multiply in it (AMX, AVX512-BF16), else float32."""
    threads: int = 0
    """CPU threads of a worker; 0: all cores of this machine, 1 on Ray. The number found is kept for a resumed run."""
    engine: Literal["local", "ray"] = "local"
    """local: this process. ray: workers of a Ray cluster; the text comes out the same."""
    address: str = ""
    """Ray cluster to join (``host:port`` or ``auto``); empty starts one on this machine, on loopback only."""
    workers: int = 0
    """Most Ray workers; 0 for as many as the cluster has room for."""

    def __post_init__(self) -> None:
        if not self.checkpoint:
            raise RecipeError("checkpoint: name a checkpoint folder, a pack or a hub name")
        for name, least in _LEAST.items():
            if getattr(self, name) < least:
                raise RecipeError(f"{name}: must be at least {least}, found {getattr(self, name)}")
        if not (self.temperature > 0 and math.isfinite(self.temperature)):
            raise RecipeError(f"temperature: must be above 0, found {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise RecipeError(f"top_p: must be above 0 and at most 1, found {self.top_p}")
        if self.search in ("n_best", "nearest") and self.n_best < 2:
            raise RecipeError(f"n_best: {self.search} needs at least 2, found {self.n_best}")
        if self.search in ("greedy", "beam") and self.n_best != 1:
            raise RecipeError(
                f"n_best: {self.search} gives one translation; take search = 'n_best', 'nearest' or 'sample'"
            )
        if not self.tags:
            raise RecipeError("tags: name the corpora to translate, or leave it out for all")
        if self.prompt:
            _check_prompt(self.prompt)
        if self.address and self.engine != "ray":
            raise RecipeError("address: only with engine = 'ray'")

    @property
    def beams(self) -> int:
        """Hypotheses the search keeps; 1 for greedy and sample."""
        if self.search in ("greedy", "sample"):
            return 1
        return max(self.beam_size, self.n_best)

    @property
    def copies(self) -> int:
        """Rows one source takes in the decoder."""
        return self.n_best if self.search == "sample" else self.beams

    def same_text(self) -> TeacherSettings:
        """The settings without what cannot change the text: where it is worked out."""
        return dataclasses.replace(self, engine="local", address="", workers=0)


_LEAST = {
    "beam_size": 1,
    "n_best": 1,
    "max_length_ratio": 0,
    "max_length_extra": 1,
    "max_length": 2,
    "batch_tokens": 1,
    "shard_size": 1,
    "threads": 0,
    "workers": 0,
}


def _check_prompt(prompt: str) -> None:
    try:
        fields = {name for _, name, _, _ in string.Formatter().parse(prompt) if name is not None}
    except ValueError as error:
        raise RecipeError(f"prompt: {error}; a brace itself is written twice") from None
    if "text" not in fields:
        raise RecipeError("prompt: {text} is missing, where the source goes")
    if unknown := fields - _PROMPT_FIELDS:
        raise RecipeError(f"prompt: unknown {{{min(unknown)}}}; known: {', '.join(sorted(_PROMPT_FIELDS))}")
