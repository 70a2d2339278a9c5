"""The teacher step: a large model's translations of the source side become the text the student learns from.

Sequence-level knowledge distillation (Kim & Rush 2016, section 3.2): the student is trained on what the teacher says
(``beam``, ``greedy``), or on that of the teacher's best entries which is nearest the reference (section 3.3:
sequence-level interpolation; ``nearest``). Works through shards: see :mod:`mobilenmt.compression.teacher.shards`.
"""

from __future__ import annotations

import dataclasses
import math
import shutil
import string
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from mobilenmt.compression.core.errors import RecipeError, TeacherError
from mobilenmt.compression.core.settings import PATH_IF_THERE
from mobilenmt.compression.core.stage import StageResult, check_stage, is_finished, run_stage, write_json
from mobilenmt.compression.teacher.shards import INDEX, ShardStore, plan_shards

TEXT = "text.tsv.zst"
"""What the stage writes: pairs whose target is the teacher's."""

_MACHINE = "machine.json"
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
    that is nearest the reference."""
    beam_size: int = 4
    """Hypotheses kept by beam, n_best and nearest (there at least n_best)."""
    n_best: int = 1
    """Translations of a source: written by sample and n_best, chosen from by nearest."""
    nearest_metric: Literal["bleu", "chrf"] = "bleu"
    """Sentence score of nearest, by sacrebleu; bleu counts characters for languages written without spaces."""
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


def stage_inputs(
    settings: TeacherSettings, *, pairs: Path, languages: tuple[str, str], seed: int
) -> dict[str, Path | str]:
    """What the stage's result depends on besides its settings, as :func:`run_stage` takes it."""
    from mobilenmt.compression.teacher.open import fingerprint

    return {
        "pairs": pairs,
        "checkpoint": fingerprint(settings.checkpoint),
        "languages": "-".join(languages),
        "seed": str(seed if settings.search == "sample" else 0),
    }


def run(
    settings: TeacherSettings,
    *,
    pairs: Path,
    folder: Path,
    source_language: str,
    target_language: str,
    seed: int = 1,
    force: bool = False,
) -> StageResult:
    """Translate the source side of ``pairs`` and write ``text.tsv.zst`` in ``folder``; resumes what was interrupted.

    Args:
        settings: the teacher and the search.
        pairs: file of :func:`~mobilenmt.compression.core.pairs.read_pairs`; equal sources are translated once, and
            come out once for each tag they have.
        folder: the stage's folder. ``shards/`` in it may be deleted when the stage is done.
        source_language: the recipe's code, as in ``en``.
        target_language: likewise.
        seed: of sampling; each source's samples depend on it and the source alone.
        force: begin anew.

    Returns:
        The stage's result. Its summary: ``sources``, ``pairs``, ``tokens``, ``seconds`` (of translation, over all
        workers), ``empty``, ``looped``, ``too_long`` (translations refused for it), ``source_too_long``, ``markers``
        (sources that do not fit the model, or spell one of its special tokens), ``reference`` and ``dropped`` (sources
        left without a translation), ``kept`` (sources of corpora that are not translated).

    Raises:
        TeacherError: the checkpoint, its tokenizer or a language code does not do, or the disk is too small or full.
        StageError: the folder belongs to something else, or the configuration changed since it was begun.
    """
    languages = (source_language, target_language)
    same = settings.same_text()
    inputs = stage_inputs(settings, pairs=pairs, languages=languages, seed=seed)
    done = False if force else check_stage(folder, name="teacher", settings=same, inputs=inputs)
    if not done and pairs.exists():
        # Before the folder remembers these settings: a mistake in them can then be mended without --force.
        from mobilenmt.compression.teacher.open import check_teacher

        check_teacher(settings, *languages)

    def work(stage: Path) -> Mapping[str, Any]:
        return _work(settings, pairs, stage, languages, seed)

    return run_stage(
        folder,
        name="teacher",
        settings=same,
        inputs=inputs,
        work=work,
        force=force,
        scratch=("shards", _MACHINE),
    )


def _work(
    settings: TeacherSettings, pairs: Path, folder: Path, languages: tuple[str, str], seed: int
) -> dict[str, Any]:
    from mobilenmt.compression.teacher.open import TeacherSpec, check_teacher

    spec = TeacherSpec.of(settings, check_teacher(settings, *languages), languages[1], seed, _machine(settings, folder))
    every = settings.search == "nearest" or settings.tags != ("*",)
    plan = plan_shards(pairs, settings.shard_size, all_targets=every)
    if not plan.sources:
        raise TeacherError(f"{pairs}: no sentences in it; see the report of the corpus stage for what dropped them")
    store = ShardStore(folder / "shards", plan)
    pending = store.pending()
    if pending:
        _check_disk(pairs, folder, settings, len(pending) / plan.shards)
        if settings.engine == "ray":
            from mobilenmt.compression.teacher.ray_engine import translate_on_ray as translate
        else:
            from mobilenmt.compression.teacher.shards import translate_here as translate
        store.fill(translate(spec, plan, pending), pending)
    return {**store.merge(folder / TEXT), **spec.described()}


def _machine(settings: TeacherSettings, folder: Path) -> dict[str, Any]:
    """Device, type and threads: found once, then kept, since rounding (so, rarely, a word) depends on them."""
    from mobilenmt.compression.core.stage import read_json_object
    from mobilenmt.compression.teacher.open import find_machine

    path = folder / _MACHINE
    if path.exists() and (folder / "shards" / INDEX).exists():
        return read_json_object(path)
    found = find_machine(settings)
    write_json(path, found)
    return found


def _check_disk(pairs: Path, folder: Path, settings: TeacherSettings, share: float) -> None:
    """Refuse to begin what the disk cannot hold: shards and merged text are each about as large as the pairs."""
    entries = settings.n_best if settings.search in ("sample", "n_best") else 1
    needed = int(pairs.stat().st_size * (1 + entries) / 2 * (1 + share))
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise TeacherError(
            f"{folder}: the translations need about {needed / 1e6:,.0f} MB, the disk has {free / 1e6:,.0f} MB free; "
            "make room or take another work folder"
        )


__all__ = ["TEXT", "TeacherSettings", "is_finished", "run", "stage_inputs"]
