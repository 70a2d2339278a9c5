"""What is to be trained, on what and how: everything that training carries along."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobilenmt.compression.core.errors import TrainingError
from mobilenmt.compression.core.pack_forms import PackForms
from mobilenmt.compression.dataset.augment import AugmentSettings
from mobilenmt.compression.train.settings import DistillSettings, TrainSettings
from mobilenmt.compression.train.student import TOKENIZER_FILES, StudentShape, make_student
from mobilenmt.export.quantize.settings import Quantization

if TYPE_CHECKING:
    from transformers import MarianMTModel

NO_RESULT = ("save_every", "save_seconds", "teacher_tokens", "threads", "device")
"""Settings that change nothing in what the files that come out mean; they may change on the way, as machines do."""


_LATER: Mapping[str, Any] = {
    "optimizer": "adam",
    "muon_momentum": 0.95,
    "compiled": False,
    "hidden": 0.0,
    "hidden_loss": "mse",
    "hidden_every": 1,
    "hidden_schedule": "linear",
    "quantization_aware": False,
    "quantization_from": 1,
    "quantization_activations": "rows",
}
"""Settings that came later, with what trainers before them did: folders made then are not of other settings."""


def without_later(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by name, without those that came later and say what was done before."""
    return {key: value for key, value in values.items() if key not in _LATER or value != _LATER[key]}


@dataclass(frozen=True)
class TrainingJob:
    """A model to train.

    Raises TrainingError if sentences may be longer than the model has positions for.
    """

    shape: StudentShape
    """Its dimensions."""
    settings: TrainSettings
    """How it is trained."""
    pairs: Path
    """File of pairs: a teacher's text, or references."""
    vocabulary: Path
    """Folder with tokenizer.json, of the conventions of Marian checkpoints."""
    weights: Mapping[str, float] = field(default_factory=dict)
    """How often pairs go in, by tag."""
    augment: AugmentSettings | None = None
    """Shares of augmented copies."""
    seed: int = 1
    """The recipe's."""
    report: Callable[[str], None] = lambda line: None
    """Receives a line now and then."""
    pack: PackForms = field(default_factory=PackForms)
    """How its pack will store it, for ``quantization_aware = true``; with a form named there, only whether the pack has
    a shortlist counts."""
    make: Callable[..., MarianMTModel] = make_student
    """Makes the model: experiments have other ones of the same outer form (examples/paper), and each its own folder."""

    def __post_init__(self) -> None:
        longest, positions = self.settings.max_tokens, self.shape.max_position_embeddings
        if longest > positions:
            raise TrainingError(
                f"max_tokens {longest} exceeds max_position_embeddings {positions} of the model; "
                "lower the one or raise the other"
            )
        simulated = self.simulated
        if simulated is None:
            return
        quantization = simulated.quantization
        if {quantization.form, *quantization.matrices.values()} == {"fp32"}:
            raise TrainingError(
                "quantization_aware: its pack will be fp32, which rounds nothing; name a form, or leave it out"
            )

    @property
    def simulated(self) -> PackForms | None:
        """What training simulates; None for training as usual."""
        wanted = self.settings.quantization_aware if isinstance(self.settings, DistillSettings) else False
        if not wanted:
            return None
        return self.pack if wanted is True else dataclasses.replace(self.pack, quantization=Quantization(form=wanted))

    def described(self) -> dict[str, Any]:
        """The settings that the result depends on, as a stage's folder remembers them."""
        values = {item.name: getattr(self.settings, item.name) for item in dataclasses.fields(self.settings)}
        return {
            **{key: value for key, value in without_later(values).items() if key not in NO_RESULT},
            "student": self.shape,
            "weights": dict(self.weights),
            "augment": self.augment,
            **({} if self.simulated is None else {"pack": self.simulated.to_dict()}),
        }

    def inputs(self) -> dict[str, Path | str]:
        """The files and texts that the result depends on."""
        tokenizer, *beside = (self.vocabulary / name for name in TOKENIZER_FILES)
        inputs: dict[str, Path | str] = {"pairs": self.pairs, "vocabulary": tokenizer, "seed": str(self.seed)}
        # What else lies there does not count: its report has measured memory, which differs each time it is made.
        inputs |= {path.name: path for path in beside if path.exists() or not self.vocabulary.exists()}
        inputs |= {f"dev {path.name}": path for path in self.settings.dev}
        return inputs | self.checkpoints()

    def checkpoints(self) -> dict[str, Path]:
        """The checkpoints it starts or learns from, by the name of their setting."""
        found = {key: getattr(self.settings, key, None) for key in ("initial", "teacher")}
        return {key: path for key, path in found.items() if path is not None}
