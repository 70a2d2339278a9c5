"""A study of one checkpoint: its model, the text it is looked at with, and the folder of what was found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from mobilenmt.compression.core.errors import CorpusError, PruneError, QuantizeError
from mobilenmt.compression.core.stage import file_digest
from mobilenmt.compression.evaluate.scoring import TestSet, read_test_sets
from mobilenmt.compression.prune.calibrate import Calibration, calibrate, read_texts, sample_texts
from mobilenmt.compression.prune.network import Network
from mobilenmt.compression.prune.pieces import Pieces
from mobilenmt.compression.quantize.gptq import hessians
from mobilenmt.compression.quantize.sensitivity import Probe
from mobilenmt.compression.quantize.store import Results, open_folder
from mobilenmt.export.checkpoint import Checkpoint, load_checkpoint
from mobilenmt.export.quantize.rounding import Array
from mobilenmt.export.quantize.settings import Quantization
from mobilenmt.export.shortlist import FILE_NAME as SHORTLIST

WEIGHTS = ("model.safetensors", "pytorch_model.bin")


@dataclass(frozen=True)
class StudySettings:
    """What results depend on."""

    dev: tuple[Path, ...]
    """TSV files: source, tab, reference."""
    text: tuple[Path, ...] = ()
    """Parallel text for logit distances and GPTQ; by default the dev text."""
    probe: int = 100
    """Pairs of it that distances are measured on."""
    sentences: int = 600
    """Further pairs that GPTQ and AWQ look at."""
    settings: Quantization = field(default_factory=lambda: Quantization(clipping="mse"))
    """How sensitivities and mixtures are clipped."""
    languages: tuple[str, str] = ("", "")
    """Codes, for packs, for scoring, and to refuse text in others."""

    def __post_init__(self) -> None:
        if not self.dev:
            raise QuantizeError("give dev text to score on: --dev FILE.tsv, source, tab, reference")
        for key in ("probe", "sentences"):
            if getattr(self, key) < 50:
                raise QuantizeError(f"{key}: at least 50 pairs are wanted, not {getattr(self, key)}")


class Study:
    """What commands of a study share. Made of a checkpoint folder and settings; ``folder`` keeps everything.

    Raises:
        QuantizeError: another study is in the folder, or the model is none that can be studied.
        CheckpointError, CorpusError, EvaluationError: the checkpoint or a text is missing or damaged.
    """

    def __init__(self, checkpoint: Path, settings: StudySettings, folder: Path) -> None:
        self.settings, self.folder = settings, folder
        self.loaded: Checkpoint = load_checkpoint(checkpoint)
        self.tests: list[TestSet] = read_test_sets(settings.dev)
        try:
            self.network = Network.of(self.loaded)
        except PruneError as error:
            raise QuantizeError(str(error).replace("cannot be pruned", "cannot be studied")) from None
        open_folder(folder, self._identity())
        self.results = Results(folder / "results.jsonl")

    @property
    def path(self) -> Path:
        """The checkpoint's folder."""
        return self.loaded.path

    @property
    def shortlist(self) -> bool:
        """Whether its packs have a shortlist."""
        return (self.path / SHORTLIST).is_file()

    @cached_property
    def probe(self) -> Probe:
        """Compares models on the text."""
        return Probe(self.network, self._texts[0].batches)

    @cached_property
    def calibration(self) -> Calibration:
        """The text that GPTQ and AWQ look at."""
        return self._texts[1]

    @cached_property
    def hessians(self) -> Mapping[str, Array]:
        """Of every matrix."""
        return hessians(self.network, self.calibration.batches)

    @cached_property
    def _texts(self) -> tuple[Calibration, Calibration]:
        s = self.settings
        count = s.probe + s.sentences
        try:
            if s.text:
                pairs: Sequence[tuple[str, str]] = read_texts(s.text, count)
            else:
                dev = [pair for test in self.tests for pair in zip(test.sources, test.references, strict=True)]
                pairs = sample_texts(dev, count)
            pieces = Pieces(self.path, self.loaded.config)
            probe = len(pairs) * s.probe // count
            parts = [pairs[place * len(pairs) // probe] for place in range(probe)] if probe else []
            chosen = set(parts)
            others = [pair for pair in pairs if pair not in chosen]
            first, second = (
                calibrate(part, pieces, self.loaded.config, languages=s.languages) for part in (parts, others)
            )
        except (PruneError, CorpusError) as error:
            raise QuantizeError(str(error)) from None
        return first, second

    def _identity(self) -> dict[str, Any]:
        s = self.settings
        weights = next(self.path / name for name in WEIGHTS if (self.path / name).is_file())
        return {
            "weights": file_digest(weights),
            "config": file_digest(self.path / "config.json"),
            "shortlist": file_digest(self.path / SHORTLIST) if self.shortlist else None,
            "dev": {test.name: file_digest(path) for test, path in zip(self.tests, s.dev, strict=True)},
            "text": [file_digest(path) for path in s.text],
            "probe": s.probe,
            "sentences": s.sentences,
            "settings": s.settings.to_dict(),
        }
