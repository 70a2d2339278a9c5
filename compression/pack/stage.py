"""The export stage of a chain: the student's checkpoint becomes a verified pack with a card that says what went in."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mobilenmt.compression.core.context import Context, Stage
from mobilenmt.compression.core.errors import RecipeError
from mobilenmt.compression.core.stage import StageResult, run_stage
from mobilenmt.compression.pack.shortlist import ShortlistSettings, sample_lines
from mobilenmt.export.quantize.settings import Quantization
from mobilenmt.runtime.errors import InputError
from mobilenmt.runtime.text.forms import TRAINED_FORM, Placeholders

_ALIGNED = 5_000  # pairs that teach the aligner: a minute at most
LEAST_PAIRS = 1_000
"""With fewer pairs a pack names no attention head."""

if TYPE_CHECKING:
    from mobilenmt.export.shortlist import Shortlist


@dataclass(frozen=True)
class ExportSettings:
    """The pack that comes out."""

    precision: Literal["int8", "fp32"] = "int8"
    """int8 for use, fp32 as the reference."""
    form: str = "int8"
    """How an int8 pack stores its matrices: int8, int8-wide, int4-16, int4-32, int4-64, int4-128 or fp32
    (docs/compress/quantize.md)."""
    clipping: Literal["max", "percentile", "mse"] = "max"
    """What the largest integer stands for: the largest magnitude, a percentile of the magnitudes, or what gives the
    least squared error."""
    percentile: float = 99.99
    """For `clipping = "percentile"`: of the magnitudes of a row, from 50 to 100."""
    granularity: Literal["channel", "tensor"] = "channel"
    """A scale for each output of a matrix, or one for the whole matrix."""
    matrices: dict[str, str] = field(default_factory=dict)
    """Name of a matrix, or a pattern with `*` and `?` -> its form; the first that fits counts."""
    max_bytes: int | None = None
    """Warn before and after if all files of the pack take more than this."""
    shortlist_sentences: int = 50_000
    """Source sentences to learn a lexical shortlist from; 0 for none. Only int8 packs have one, and only where the
    vocabulary has at least four times as many pieces as are common."""
    shortlist_from: Literal["student", "text"] = "student"
    """student: what the student makes of those sentences. text: the pairs that it was trained on, by their weights;
    much faster, so that it can be all of them, and as good where they are a teacher's text."""
    shortlist: ShortlistSettings = field(default_factory=ShortlistSettings)
    """Sizes of the shortlist."""
    sentences: bool = True
    """Whether hosts are to cut texts into sentences for the model, as one needs that learned from pairs of sentences;
    false for one whose pairs hold several sentences each."""
    placeholders: tuple[str, ...] = (TRAINED_FORM,)
    """Forms of placeholders that the student was trained to copy (``augment.placeholders``), the best first; # stands
    for their number. The pack says so, and hosts use them for what must be kept."""
    card: Path | None = None
    """JSON file with what people should know: description, licence, training_data, scores, notes."""

    def __post_init__(self) -> None:
        if self.max_bytes is not None and self.max_bytes < 1:
            raise RecipeError(f"max_bytes: expected at least 1, found {self.max_bytes}")
        try:
            Placeholders(self.placeholders)
        except InputError as error:
            raise RecipeError(f"placeholders: {error}") from None
        try:
            plain = self.quantization.plain
        except InputError as error:
            raise RecipeError(str(error)) from None
        if self.precision == "fp32" and not plain:
            raise RecipeError("precision: forms and clipping are for int8; fp32 keeps every matrix as it is")
        if self.shortlist_sentences < 0:
            raise RecipeError(f"shortlist_sentences: expected 0 or more, found {self.shortlist_sentences}")

    @property
    def quantization(self) -> Quantization:
        """Forms of the matrices and their rounding, as the exporter takes them."""
        keys = ("form", "clipping", "percentile", "granularity", "matrices")
        return Quantization(**{key: getattr(self, key) for key in keys})

    def shortlist_for(self, vocabulary: int) -> ShortlistSettings | None:
        """Sizes of the shortlist of a pack with so many target pieces; None if it gets none."""
        due = self.precision == "int8" and self.shortlist_sentences and vocabulary >= 4 * self.shortlist.common
        return self.shortlist if due else None


def run(
    settings: ExportSettings,
    folder: Path,
    *,
    checkpoint: Path,
    name: str,
    languages: tuple[str, str],
    pairs: Path | None = None,
    weights: Mapping[str, float] | None = None,
    training_data: Mapping[str, int] | None = None,
    force: bool = False,
) -> StageResult:
    """Export ``checkpoint`` to the pack ``folder``/``name``, checked against torch as ``mobilenmt export`` checks it.

    Args:
        settings: precision and card.
        folder: the stage's folder.
        checkpoint: a MarianMTModel folder with its tokenizer.
        name: the pack's name.
        languages: codes of source and target, for the pack's manifest.
        pairs: pairs whose source sides the shortlist is learned from; None for no shortlist.
        weights: how often pairs went into training, by tag; a pair that was taken less than once is taken by chance.
        training_data: corpus -> pairs, for a card that does not list them itself.
        force: begin anew.

    Returns:
        The stage's result. Its summary: ``pack`` (name of the folder in it), ``bytes``, ``parameters``, ``check``
        (what was compared with torch).

    Raises:
        RecipeError: the card is no JSON object.
        CheckpointError, ExportError: see :func:`mobilenmt.export.export.export`.
        StageError: see :func:`run_stage`.
    """
    card = read_card(settings.card)
    if training_data:
        card.setdefault("training_data", [{"corpus": tag, "pairs": count} for tag, count in training_data.items()])
    inputs: dict[str, Path | str] = {
        "checkpoint": checkpoint,
        "name": name,
        "languages": "-".join(languages),
        "placeholders": json.dumps(settings.placeholders),
        "card": json.dumps(card, sort_keys=True, ensure_ascii=False),
    }

    def work(stage: Path) -> Mapping[str, Any]:
        from mobilenmt.export.export import export

        shortlist, coverage = _shortlist(settings, checkpoint, pairs, weights or {})
        told: list[str] = []
        pack = export(
            checkpoint,
            stage / name,
            precision=settings.precision,
            force=True,  # what a run left that was killed just before its manifest
            name=name,
            source_language=languages[0],
            target_language=languages[1],
            card=card,
            placeholders=Placeholders(settings.placeholders),
            shortlist=shortlist or False,
            sentences=settings.sentences,
            pairs=_parallel(inputs.get("pairs")),
            quantization=settings.quantization,
            report=told.append,
        )
        return {
            **coverage,
            "pack": name,
            "bytes": pack.total_bytes,
            "parameters": pack.manifest.model.parameters,
            "check": told[-1] if told else "",
        }

    # the card counts by its content, and max_bytes only warns
    identity: dict[str, Any] = {"precision": settings.precision}
    if not settings.sentences:  # so that packs made before there was a choice still count as made
        identity["sentences"] = False
    if not settings.quantization.plain:
        identity["quantization"] = settings.quantization.to_dict()
    if pairs is not None and settings.shortlist_sentences and settings.precision == "int8":
        identity |= {"shortlist_sentences": settings.shortlist_sentences, "shortlist": settings.shortlist}
        if settings.shortlist_from == "text":
            identity |= {"shortlist_from": "text", "weights": dict(weights or {})}
        inputs["pairs"] = pairs
    return run_stage(folder, name="export", settings=identity, inputs=inputs, work=work, force=force)


def _parallel(pairs: Path | str | None) -> list[tuple[str, str]]:
    """Some thousands of pairs, taken evenly, to find the head that aligns best; none where there are too few."""
    from mobilenmt.compression.core.pairs import read_pairs

    if pairs is None:
        return []
    pairs = Path(pairs)
    found = sample_lines((f"{pair.source}\t{pair.target}" for pair in read_pairs(pairs)), _ALIGNED)
    texts = [(source, target) for source, _, target in (line.partition("\t") for line in found)]
    return texts if len(texts) >= LEAST_PAIRS else []


def _shortlist(
    settings: ExportSettings, checkpoint: Path, pairs: Path | None, weights: Mapping[str, float]
) -> tuple[Shortlist | None, dict[str, float]]:
    """The shortlist of a checkpoint, and how well it covers translations, for the summary; nothing where none is
    due."""
    from mobilenmt.compression.core.pairs import read_pairs
    from mobilenmt.compression.core.tag_weights import Repeater
    from mobilenmt.compression.pack.shortlist import make_shortlist, shortlist_from_pairs
    from mobilenmt.export.checkpoint import MarianConfig, read_json

    config = MarianConfig.from_dict(read_json(checkpoint / "config.json", f"{checkpoint} is no checkpoint"))
    sizes = settings.shortlist_for(config.decoder_vocab_size)
    if pairs is None or sizes is None:
        return None, {}
    if settings.shortlist_from == "text":
        repeater = Repeater(weights, 0, "shortlist")
        lines = (f"{pair.source}\t{pair.target}" for pair in read_pairs(pairs) if repeater.times(pair))
        chosen = [line.partition("\t")[::2] for line in sample_lines(lines, settings.shortlist_sentences)]
        shortlist, coverage = shortlist_from_pairs(checkpoint, chosen, settings=sizes)
    else:
        texts = sample_lines((pair.source for pair in read_pairs(pairs)), settings.shortlist_sentences)
        shortlist, coverage = make_shortlist(checkpoint, texts, settings=sizes, progress=True)
    return shortlist, {
        "shortlist_covers": round(coverage.tokens, 4),
        "shortlist_candidates": round(coverage.candidates, 1),
    }


def read_card(path: Path | None) -> dict[str, Any]:
    """Read a card; an empty one if there is none. RecipeError if it is no JSON object."""
    if path is None:
        return {}
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RecipeError(f"{path}: the card cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if not isinstance(card, dict):
        raise RecipeError(f"{path}: the card is no JSON object")
    return card


def training_data(corpus: Path) -> dict[str, int]:
    """Corpus -> pairs kept, from the report in the corpus stage's folder; empty if there is none."""
    try:
        report = json.loads((corpus / "report.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    tags = report.get("tags", {})
    return {str(tag): count for tag, count in tags.items() if isinstance(count, int)}


def _check(context: Context, to_do: bool) -> str:
    settings = context.section(ExportSettings)
    if to_do:
        read_card(settings.card)
    form = settings.precision if settings.quantization.plain else settings.form
    return f"{form}, {context.pack}"


def _run(context: Context, force: bool) -> StageResult:
    return run(
        context.section(ExportSettings),
        context.folder(STAGE.name),
        checkpoint=context.folder("distill") / "checkpoint",
        name=context.name,
        languages=context.languages,
        pairs=context.text,
        weights=context.weights,
        training_data=training_data(context.folder("corpus")),
        force=force,
    )


STAGE = Stage(
    name="export",
    settings=ExportSettings,
    run=_run,
    check=_check,
    help="Export the student of a recipe to a pack, checked against torch.",
    example="precision=fp32",
    needs=("onnx", "torch", "transformers"),
)
