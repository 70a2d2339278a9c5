"""The vocabulary: one tokenizer for both languages, in the layout that Marian checkpoints and their readers rely on.

``</s>`` is 0, ``<unk>`` 1, the 256 byte pieces follow, then the pieces found in the text, ``<pad>`` is last. Text is
taken as it is (no normalizer); a space becomes ``▁``; a character outside the alphabet is spelled by its UTF-8 bytes.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mobilenmt.compression.core.errors import RecipeError, VocabularyError
from mobilenmt.compression.core.settings import shown
from mobilenmt.compression.core.stage import StageResult, atomic_path, run_stage, write_json
from mobilenmt.compression.vocabulary.sample import Sample, draw_sample
from mobilenmt.compression.vocabulary.training import EOS, PAD, UNK, train_tokenizer
from mobilenmt.export.tokenizer import prepare_tokenizer
from mobilenmt.runtime.errors import CheckpointError
from mobilenmt.runtime.tokenizer import clean

if TYPE_CHECKING:
    import tokenizers

SMALLEST = 400
"""Sizes below leave hardly a piece beside the bytes and the alphabet."""
_LARGEST = 1 << 20


@dataclass(frozen=True)
class VocabularySettings:
    """How the vocabulary is trained."""

    size: int = 8000
    """Number of pieces, the special and the 256 byte pieces included; the embedding has as many rows."""
    model: Literal["bpe", "unigram"] = "bpe"
    """Once loaded, a Unigram model needs 1.7 times the memory of a BPE model."""
    sample: int = 200_000
    """Pairs to learn from at most, drawn from all by hash, tags by their weights. Bounds time and memory."""
    character_coverage: float = 0.9997
    """Share of the characters of the sample that get pieces, the most frequent first; others are spelled by bytes."""
    max_piece_length: int = 20
    """Characters of the longest piece."""

    def __post_init__(self) -> None:
        if not SMALLEST <= self.size <= _LARGEST:
            raise RecipeError(f"size: expected {SMALLEST} to {_LARGEST} pieces, found {shown(self.size)}")
        if self.sample < 1:
            raise RecipeError(f"sample: expected at least 1 pair, found {shown(self.sample)}")
        if not 0.9 <= self.character_coverage <= 1.0:
            raise RecipeError(f"character_coverage: expected 0.9 to 1, found {shown(self.character_coverage)}")
        if not 2 <= self.max_piece_length <= 100:
            raise RecipeError(f"max_piece_length: expected 2 to 100, found {shown(self.max_piece_length)}")


class Vocabulary:
    """A trained vocabulary, for turning training text into ids: exactly the ids that the runtime gives.

    Text is cleaned as the runtime cleans it, and ``</s>`` in a sentence is four ordinary characters.
    """

    def __init__(self, path: Path, tokenizer: tokenizers.Tokenizer, size: int, config: Mapping[str, Any]) -> None:
        """See :meth:`load`."""
        self.path = path
        """tokenizer.json"""
        self.size = size
        self.eos = 0
        self.unk = 1
        self.pad = size - 1
        self.languages = (str(config.get("source_lang") or ""), str(config.get("target_lang") or ""))
        """Codes of the source and the target language, "" where tokenizer_config.json names none."""
        self._tokenizer = tokenizer

    @classmethod
    def load(cls, path: Path) -> Vocabulary:
        """Read a vocabulary folder, or the tokenizer.json in it.

        :raises VocabularyError: it is missing, damaged, or does not follow the conventions.
        """
        import tokenizers

        path = Path(path)
        if path.is_dir() or path.suffix != ".json":
            path = path / "tokenizer.json"
        try:
            size = tokenizers.Tokenizer.from_file(str(path)).get_vocab_size()
        except Exception as error:  # tokenizers raises nothing more exact
            reason = "no such file" if not path.is_file() else error
            raise VocabularyError(f"{path}: cannot be read as a tokenizer: {reason}") from error
        try:
            prepared = prepare_tokenizer(
                path.parent, vocab_size=size, target_vocab_size=size, eos=0, pad=size - 1, unk=1
            )
        except CheckpointError as error:
            raise VocabularyError(str(error)) from error
        tokenizer = tokenizers.Tokenizer.from_str(prepared.source_json)
        for index, name in ((0, EOS), (1, UNK), (size - 1, PAD)):
            found = (tokenizer.id_to_token(index) or "").lstrip("\uffff")
            if found != name:
                raise VocabularyError(f"{path}: id {index} is {found!r}; Marian checkpoints have {name} there")
        try:
            config = json.loads((path.parent / "tokenizer_config.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            config = {}
        except ValueError as error:
            raise VocabularyError(f"{path.parent / 'tokenizer_config.json'}: not JSON: {error}") from error
        return cls(path, tokenizer, size, config if isinstance(config, dict) else {})

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, without </s>."""
        ready = [clean(text).translate(_LAYOUT) for text in texts]
        return [list(found.ids) for found in self._tokenizer.encode_batch_fast(ready, add_special_tokens=False)]

    def encode(self, text: str) -> list[int]:
        """Ids of one text, without </s>."""
        return self.encode_batch([text])[0]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids; special ones are skipped."""
        special = {self.eos, self.unk, self.pad}
        return str(self._tokenizer.decode([i for i in ids if i not in special], skip_special_tokens=False))

    def pieces(self, ids: Iterable[int]) -> list[str]:
        """The pieces of ids."""
        return [(self._tokenizer.id_to_token(i) or "").lstrip("\uffff") for i in ids]


_LAYOUT = str.maketrans("\t\n\r", "   ")


def run(
    settings: VocabularySettings,
    folder: Path,
    *,
    pairs: Path,
    source_language: str,
    target_language: str,
    weights: Mapping[str, float] | None = None,
    seed: int = 1,
    force: bool = False,
) -> StageResult:
    """Train the vocabulary in a stage folder: tokenizer.json, tokenizer_config.json, report.json.

    :param pairs: the corpus's file of pairs.
    :param weights: of tags, as in :func:`mobilenmt.compression.core.tag_weights.weight_of`.
    :raises CorpusError: the pairs cannot be read, or there are none.
    :raises VocabularyError: the text is too little for the size.
    :raises StageError: the folder holds something else.
    """

    from mobilenmt.compression.vocabulary.report import measure

    def work(folder: Path) -> Mapping[str, Any]:
        try:
            with tempfile.TemporaryDirectory(prefix="sample.tmp-", dir=folder) as scratch:
                sample = draw_sample(pairs, Path(scratch), size=settings.sample, weights=weights or {}, seed=seed)
                data = train_on(sample, settings)
                write_tokenizer(data, folder, source_language, target_language)
                report = measure(folder, sample.held_back)
            write_json(folder / "report.json", report)
        except OSError as error:
            raise VocabularyError(f"{folder}: cannot be written: {error.strerror or error}") from error
        return report

    inputs: dict[str, Path | str] = {
        "pairs": pairs,
        "languages": f"{source_language}-{target_language}",
        "seed": str(seed),
    }
    for tag, weight in (weights or {}).items():
        inputs[f"weight {tag}"] = str(weight)
    return run_stage(folder, name="vocabulary", settings=settings, inputs=inputs, work=work, force=force)


def plan(
    pairs: Path,
    *,
    sizes: Sequence[int] = (4000, 8000, 16000, 32000),
    models: Sequence[Literal["bpe", "unigram"]] = ("bpe",),
    settings: VocabularySettings | None = None,
    weights: Mapping[str, float] | None = None,
    seed: int = 1,
) -> list[dict[str, Any]]:
    """Train vocabularies of several sizes on one sample and measure each; one report a vocabulary.

    :func:`table` shows them side by side. Raises as :func:`run` does.
    """
    from mobilenmt.compression.vocabulary.report import measure

    base = settings or VocabularySettings()
    reports = []
    with tempfile.TemporaryDirectory(prefix="mobilenmt-vocabulary-") as scratch:
        root = Path(scratch)
        sample = draw_sample(pairs, root, size=base.sample, weights=weights or {}, seed=seed)
        for model in models:
            for size in sizes:
                chosen = dataclasses.replace(base, size=size, model=model)
                folder = root / f"{model}-{size}"
                folder.mkdir()
                write_tokenizer(train_on(sample, chosen), folder, "", "")
                reports.append(measure(folder, sample.held_back))
    return reports


def table(reports: Sequence[Mapping[str, Any]]) -> str:
    """Reports of vocabularies as a Markdown table."""
    columns = ["model", "pieces", "tokenizer.json", "memory loaded", "tokens a word, source", "target"]
    columns += ["characters in bytes, source", "target"]
    rows = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    for report in reports:
        source, target = report["source"], report["target"]
        memory = report["memory_bytes"]
        rows.append(
            f"| {report['model']} | {report['size']:,} | {report['bytes'] / 1e3:,.0f} kB "
            f"| {'not measured' if memory is None else f'{memory / 1e6:.1f} MB'} "
            f"| {source['tokens_per_word']:.3f} | {target['tokens_per_word']:.3f} "
            f"| {source['characters_in_bytes']:.4%} | {target['characters_in_bytes']:.4%} |"
        )
    return "\n".join(rows) + "\n"


def train_on(sample: Sample, settings: VocabularySettings) -> dict[str, Any]:
    """Content of a tokenizer.json trained on a sample."""
    return train_tokenizer(
        sample.texts(),
        sample.alphabet(settings.character_coverage),
        model=settings.model,
        size=settings.size,
        max_piece_length=settings.max_piece_length,
    )


def write_tokenizer(data: Mapping[str, Any], folder: Path, source_language: str, target_language: str) -> None:
    """Write tokenizer.json and tokenizer_config.json, such that AutoTokenizer and CTranslate2 read them."""
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": EOS,
        "unk_token": UNK,
        "pad_token": PAD,
        "model_max_length": 512,
        "model_input_names": ["input_ids", "attention_mask"],  # Marian takes no token_type_ids
        "clean_up_tokenization_spaces": False,
        "source_lang": source_language,
        "target_lang": target_language,
    }
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    with atomic_path(folder / "tokenizer.json") as temporary:
        temporary.write_text(text, encoding="utf-8")
    write_json(folder / "tokenizer_config.json", config)
