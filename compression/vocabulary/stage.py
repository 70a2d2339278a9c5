"""The vocabulary stage: a tokenizer trained on a sample of the corpus, or one that is there already."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mobilenmt.compression.core.context import Context, Stage
from mobilenmt.compression.core.errors import RecipeError, VocabularyError
from mobilenmt.compression.core.settings import shown, to_mapping
from mobilenmt.compression.core.stage import StageResult, run_stage, write_json
from mobilenmt.compression.vocabulary.sample import draw_sample
from mobilenmt.compression.vocabulary.training import EOS, PAD, UNK, train_tokenizer
from mobilenmt.runtime.atomic import atomic_path

SMALLEST = 400
"""Sizes below leave hardly a piece beside the bytes and the alphabet."""
_LARGEST = 1 << 20


@dataclass(frozen=True)
class VocabularySettings:
    """How the vocabulary is trained."""

    size: int = 8000
    """Number of pieces, the special and the 256 byte pieces included; the embedding has as many rows."""
    sample: int = 200_000
    """Pairs to learn from at most, drawn from all by hash, tags by their weights. Bounds time and memory."""
    character_coverage: float = 0.9997
    """Share of the characters of the sample that get pieces, the most frequent first; others are spelled by bytes."""
    max_piece_length: int = 20
    """Characters of the longest piece."""
    initial: Path | None = None
    """Checkpoint folder, or tokenizer.json, whose pieces are taken as they are: nothing is trained, so that a model can
    go on from that checkpoint with other text. ``size`` must be theirs; the other settings say nothing then."""

    def __post_init__(self) -> None:
        if not SMALLEST <= self.size <= _LARGEST:
            raise RecipeError(f"size: expected {SMALLEST} to {_LARGEST} pieces, found {shown(self.size)}")
        if self.sample < 1:
            raise RecipeError(f"sample: expected at least 1 pair, found {shown(self.sample)}")
        if not 0.9 <= self.character_coverage <= 1.0:
            raise RecipeError(f"character_coverage: expected 0.9 to 1, found {shown(self.character_coverage)}")
        if not 2 <= self.max_piece_length <= 100:
            raise RecipeError(f"max_piece_length: expected 2 to 100, found {shown(self.max_piece_length)}")


def run(
    settings: VocabularySettings,
    folder: Path,
    *,
    pairs: Path,
    languages: tuple[str, str],
    weights: Mapping[str, float] | None = None,
    seed: int = 1,
    force: bool = False,
) -> StageResult:
    """Train or take the vocabulary in a stage folder: tokenizer.json, tokenizer_config.json, report.json.

    Args:
        settings: how it is trained.
        folder: the stage's folder.
        pairs: the corpus's file of pairs.
        languages: codes of source and target, for tokenizer_config.json.
        weights: of tags, as in :func:`mobilenmt.compression.core.tag_weights.weight_of`.
        seed: of the sample.
        force: begin anew.

    Raises:
        CorpusError: the pairs cannot be read, or there are none.
        VocabularyError: the text is too little for the size, or the pieces of ``initial`` will not do.
        StageError: the folder holds something else.
    """

    from mobilenmt.compression.vocabulary.report import measure

    def work(folder: Path) -> Mapping[str, Any]:
        try:
            with tempfile.TemporaryDirectory(prefix="sample.tmp-", dir=folder) as scratch:
                sample = draw_sample(pairs, Path(scratch), size=settings.sample, weights=weights or {}, seed=seed)
                if settings.initial is None:
                    data = train_tokenizer(
                        sample.texts(),
                        sample.alphabet(settings.character_coverage),
                        size=settings.size,
                        max_piece_length=settings.max_piece_length,
                    )
                    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
                else:
                    text = _taken(settings.initial, settings.size)
                _write_tokenizer(text, folder, languages)
                report = measure(folder, sample.held_back)
            write_json(folder / "report.json", report)
        except OSError as error:
            raise VocabularyError(f"{folder}: cannot be written: {error.strerror or error}") from error
        return report

    inputs: dict[str, Path | str] = {
        "pairs": pairs,
        "languages": "-".join(languages),
        "seed": str(seed),
    }
    for tag, weight in (weights or {}).items():
        inputs[f"weight {tag}"] = str(weight)
    described = to_mapping(settings)
    if settings.initial is None:
        del described["initial"]  # folders made before there was this setting are not of other settings
    else:
        inputs["initial"] = _tokenizer_of(settings.initial)
        described["initial"] = "given"  # the file counts by its content, wherever it lies
    return run_stage(folder, name="vocabulary", settings=described, inputs=inputs, work=work, force=force)


def _tokenizer_of(initial: Path) -> Path:
    return initial if initial.suffix == ".json" else initial / "tokenizer.json"


def _taken(initial: Path, size: int) -> str:
    """The tokenizer.json to start from, checked."""
    from mobilenmt.compression.vocabulary.vocabulary import Vocabulary

    found = Vocabulary.load(_tokenizer_of(initial))
    if found.size != size:
        raise VocabularyError(f"{found.path} has {found.size:,} pieces, vocabulary.size is {size:,}: set it to theirs")
    return found.path.read_text(encoding="utf-8")


def _write_tokenizer(text: str, folder: Path, languages: tuple[str, str]) -> None:
    """Write tokenizer.json and tokenizer_config.json, such that AutoTokenizer and CTranslate2 read them."""
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": EOS,
        "unk_token": UNK,
        "pad_token": PAD,
        "model_max_length": 512,
        "model_input_names": ["input_ids", "attention_mask"],  # Marian takes no token_type_ids
        "clean_up_tokenization_spaces": False,
        "source_lang": languages[0],
        "target_lang": languages[1],
    }
    with atomic_path(folder / "tokenizer.json") as temporary:
        temporary.write_text(text, encoding="utf-8")
    write_json(folder / "tokenizer_config.json", config)


def _check(context: Context, to_do: bool) -> str:
    settings = context.section(VocabularySettings)
    if settings.initial is not None and to_do:
        _taken(settings.initial, settings.size)
    origin = "" if settings.initial is None else f" of {settings.initial}"
    return f"{settings.size:,} pieces{origin}"


def _run(context: Context, force: bool) -> StageResult:
    return run(
        context.section(VocabularySettings),
        context.folder(STAGE.name),
        pairs=context.pairs,
        languages=context.languages,
        weights=context.weights,
        seed=context.seed,
        force=force,
    )


STAGE = Stage(
    name="vocabulary",
    settings=VocabularySettings,
    run=_run,
    check=_check,
    help="Train the tokenizer of a recipe on its corpus.",
    example="size=16000",
)
