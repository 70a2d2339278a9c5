"""Settings of training: what a run does, checked before it starts. Imports nothing heavy."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal

from mobilenmt.compression.core.errors import RecipeError
from mobilenmt.compression.core.settings import shown
from mobilenmt.compression.train.student import DROPOUT, StudentShape
from mobilenmt.export.quantize.forms import find_form
from mobilenmt.runtime.errors import InputError

DEFAULT_EPOCHS = 20


@dataclass(frozen=True)
class TrainSettings:
    """How a model is trained. Tokens are pieces of the vocabulary, the closing ``</s>`` of each sentence included."""

    steps: int | None = None
    """Updates to make."""
    epochs: int | None = None
    """Passes over the text; with ``steps`` given too, whichever comes first. Neither: 20 epochs."""
    batch_tokens: int = 8192
    """Target tokens of one update, over all processes."""
    accumulation: int = 4
    """Pieces an update is worked off in, each of about batch_tokens / accumulation tokens and of one length. Processes
    share the pieces if their number divides this one, else the sentences of each piece."""
    max_tokens: int = 128
    """Pairs with a longer side are left out."""
    optimizer: Literal["adam", "muon"] = "adam"
    """adam: for all weights. muon: Muon for the matrices of the layers (torch 2.9 or newer), Adam for embeddings,
    biases and norms; from random weights it needs fewer tokens at first, and a tenth more time an update of 8,192."""
    muon_momentum: float = 0.95
    """Decay of Muon's mean gradient."""
    learning_rate: float = 1e-3
    """Peak rate; Muon's steps are scaled to the size of Adam's."""
    warmup_steps: int = 1000
    """Updates in which the rate rises from 0 to its peak."""
    schedule: Literal["inverse_sqrt", "cosine", "constant"] = "inverse_sqrt"
    """Rate after the warm-up: peak * sqrt(warmup / step), half a cosine down to 0, or the peak."""
    final_decay: float = 0.0
    """Part of all updates, at the end, in which the rate is drawn linearly down to 0 on top of the schedule."""
    adam_beta1: float = 0.9
    """Decay of the mean gradient."""
    adam_beta2: float = 0.98
    """Decay of the mean squared gradient."""
    adam_epsilon: float = 1e-9
    """Added to the root of the mean squared gradient."""
    weight_decay: float = 0.0
    """Decoupled weight decay (AdamW) of the matrices; embeddings, biases and norms are spared."""
    clip_norm: float = 1.0
    """Largest norm of an update's gradient; 0 turns clipping off."""
    dropout: float = 0.1
    """Dropout of embeddings and of what each sublayer adds."""
    attention_dropout: float = 0.0
    """Dropout of attention weights (slow on a CPU)."""
    activation_dropout: float = 0.0
    """Dropout inside the feed-forward layers."""
    label_smoothing: float = 0.1
    """Part of the probability spread over all pieces but the padding."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Type of the matrix products; weights, sums and updates are always fp32. auto: bf16 where the processor has it."""
    compiled: bool = False
    """On a GPU, have torch.compile fuse the layers (takes a minute or more at the start, and a C compiler)."""
    ema_decay: float = 0.999
    """Decay of the exponential moving average of the weights, which is what is evaluated and kept; 0 turns it off."""
    average_last: int = 0
    """Average this many of the latest snapshots at the end (Vaswani et al. 2017, section 6.1); 0 turns it off."""
    average_every: int = 500
    """Updates between two snapshots."""
    dev: tuple[Path, ...] = ()
    """TSV files (source, target) to evaluate on while training; never a test set."""
    dev_lines: int = 500
    """Lines taken of each dev file, evenly spaced; 0 for all."""
    dev_every: int = 1000
    """Updates between two evaluations."""
    dev_metric: Literal["bleu", "chrf"] = "bleu"
    """The score, averaged over the dev files, that decides which weights are best."""
    patience: int = 0
    """Stop after this many evaluations without a better score; 0 never stops early."""
    save_every: int = 1000
    """Updates between two saved states to resume from; 0 to go by time alone."""
    save_seconds: float = 600.0
    """Seconds between two saved states; 0 to go by updates alone."""
    log_every: int = 50
    """Updates between two lines of log.jsonl."""
    bad_updates: int = 10
    """Stop after this many updates in a row whose loss or gradient is not finite (each is skipped)."""
    initial: Path | None = None
    """Checkpoint folder to start from, of the same width and vocabulary; None starts from random weights. Or the folder
    ``last`` of another run (or a state in it): its moving average comes along, and what its optimizer keeps, if it is
    the same one; so a run can go on with other text or other settings. Steps are counted anew.
    In a recipe with [prune] it is what comes out of that, unless something else is given."""
    initial_layers: Literal["same", "spread"] = "same"
    """same: the checkpoint of ``initial`` has the same number of layers. spread: layers are taken evenly from its, so
    that a student starts from some of its teacher's layers (in a recipe without ``initial``: of the teacher trained
    there), or a deep model from a shallow one."""
    device: Literal["auto", "cpu"] = "auto"
    """auto: what Accelerate finds (a GPU if there is one)."""
    threads: int = 0
    """CPU threads of one process; 0: as many as there are cores that nothing else uses at the start. Results are the
    same bit for bit for one number of threads. At most so many processes tokenize the text, 0 or more than there are
    cores: one a core."""

    def __post_init__(self) -> None:
        for least, names in _LEAST.items():
            for name in names.split():
                value = getattr(self, name)
                if value is not None and not value >= least:
                    raise RecipeError(f"{name}: must be at least {least}, found {value}")
        for item in fields(self):
            value, most = getattr(self, item.name), 1024 if item.name == "threads" else _MOST
            if isinstance(value, int) and value > most:
                raise RecipeError(f"{item.name}: must be at most {most:,}, found {shown(value)}")
        for name in _SHARES:
            if not 0 <= getattr(self, name) < 1:
                raise RecipeError(f"{name}: must be from 0 up to, not including, 1, found {getattr(self, name)}")
        for name in ("learning_rate", "adam_epsilon"):
            value = getattr(self, name)
            if not (value > 0 and math.isfinite(value)):
                raise RecipeError(f"{name}: must be above 0, found {value}")
        if not 0 <= self.final_decay <= 1:
            raise RecipeError(f"final_decay: must be from 0 to 1, found {self.final_decay}")
        if self.batch_tokens < self.max_tokens:
            raise RecipeError(
                f"batch_tokens: must hold a sentence of max_tokens ({self.max_tokens}), found {self.batch_tokens}"
            )
        if self.patience and not self.dev:
            raise RecipeError("patience: an early stop needs dev files; name some in dev")
        if not self.save_every and not self.save_seconds:
            raise RecipeError("save_every: 0 with save_seconds 0 would never save; give one of them")


@dataclass(frozen=True)
class DistillSettings(TrainSettings):
    """Training of a student on a teacher's text, with the teacher's distributions if ``word_level`` is above 0."""

    text: Literal["teacher", "references"] = "teacher"
    """In a recipe with a teacher: what the student learns to write. references: the teacher translates nothing, which
    saves hours on a processor, and teaches by ``word_level`` alone."""
    word_level: float = 0.0
    """Weight of word-level distillation, KL(teacher || student); the cross-entropy has 1 minus this."""
    temperature: float = 1.0
    """Both distributions are softened by it; the loss is multiplied by its square (Hinton et al. 2015, section 2)."""
    top_k: int = 8
    """Pieces of the teacher's distribution that count, renormalized; 0 takes all (only with soft_targets = live)."""
    soft_targets: Literal["stored", "live"] = "stored"
    """stored: the teacher reads all text once, before training, and top_k is kept (4 bytes for each of them and token,
    6 for a vocabulary above 65,536). live: it runs beside the student, again in each epoch."""
    hidden: float = 0.0
    """Weight of a loss of hidden states: how far those behind the student's layers are from those behind the matched
    layers of the teacher, as a mean over the layers of each side, beside that of the words. If the student starts from
    what pruning left of this teacher, layers and residual channels are those that stayed; else layers are matched
    evenly, and a fixed projection stands between different widths."""
    hidden_loss: Literal["mse", "cosine"] = "mse"
    """mse: the squared difference, a mean over the channels. cosine: 1 minus the cosine of the two."""
    hidden_every: int = 1
    """Every so-many-th layer is compared, counted from the last one of each side."""
    hidden_schedule: Literal["constant", "linear", "cosine"] = "linear"
    """The weight over the updates: the same in all, or falling from ``hidden`` to 0 linearly or along half a cosine."""
    teacher: Path | None = None
    """Checkpoint folder of the teacher of word_level and hidden; its vocabulary must be the student's."""
    quantization_aware: bool | Literal["int8", "int8-wide", "int4-16", "int4-32", "int4-64", "int4-128"] = False
    """true: train with the pack's rounding simulated, as [export] says it will be stored; or name a form of all its
    matrices. The weights that are kept are those before rounding: the exporter's rounding makes the simulated ones."""
    quantization_from: int = 1
    """The update from which on rounding is simulated; before it, training is as usual."""
    quantization_activations: Literal["rows", "clipped", "none"] = "rows"
    """rows: what goes into a matrix is rounded to INT8 row by row, as the engine does. clipped: the input of each
    matrix has one range, which is learned, and what lies outside is clipped; the checkpoint gets a ranges.json. none:
    weights alone are rounded."""
    teacher_tokens: int = 8192
    """Tokens (padding counted) the teacher reads at once when distributions are stored."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.word_level <= 1:
            raise RecipeError(f"word_level: must be from 0 to 1, found {self.word_level}")
        if not (self.temperature > 0 and math.isfinite(self.temperature)):
            raise RecipeError(f"temperature: must be above 0, found {self.temperature}")
        if not 0 <= self.top_k <= 1024:
            raise RecipeError(f"top_k: must be from 0 to 1024, found {self.top_k}")
        if self.teacher_tokens < self.max_tokens:
            raise RecipeError(f"teacher_tokens: must hold a sentence of max_tokens ({self.max_tokens})")
        if not (self.hidden >= 0 and math.isfinite(self.hidden)):
            raise RecipeError(f"hidden: must be 0 or more, found {self.hidden}")
        if not 1 <= self.hidden_every <= 1024:
            raise RecipeError(f"hidden_every: must be from 1 to 1024, found {self.hidden_every}")
        if self.hidden and self.teacher is None:
            raise RecipeError("hidden: hidden states are the teacher's; name its checkpoint in teacher")
        if self.word_level and self.teacher is None:
            raise RecipeError("word_level: word-level distillation needs the teacher's checkpoint; name it in teacher")
        self._check_quantization()
        if self.word_level and self.soft_targets == "stored" and not self.top_k:
            raise RecipeError("top_k: all pieces cannot be stored; give a number, or soft_targets = 'live'")

    def _check_quantization(self) -> None:
        wanted = self.quantization_aware
        if not isinstance(wanted, bool):
            try:
                form = find_form(wanted)
            except InputError as error:
                raise RecipeError(f"quantization_aware: {error}") from None
            if form.kind == "fp32":
                raise RecipeError("quantization_aware: fp32 rounds nothing; name another form, or leave it out")
        if self.quantization_activations not in ("rows", "clipped", "none"):
            found = shown(self.quantization_activations)
            raise RecipeError(f"quantization_activations: expected rows, clipped or none, found {found}")
        if self.quantization_from < 1:
            raise RecipeError(f"quantization_from: must be at least 1, found {self.quantization_from}")
        if wanted and self.steps is not None and self.quantization_from > self.steps:
            raise RecipeError(
                f"quantization_from: update {self.quantization_from:,} never comes, as steps is {self.steps:,}"
            )
        if wanted and self.compiled:
            raise RecipeError("compiled: cannot be compiled with quantization_aware; leave one of them out")

    @property
    def reads_teacher(self) -> bool:
        """Whether a teacher's checkpoint runs beside the training, or before it."""
        return bool(self.word_level or self.hidden)


@dataclass(frozen=True)
class TeacherModelSettings(TrainSettings):
    """Training of a teacher from text, with the student's trainer: a Transformer of any shape."""

    shape: StudentShape = field(
        default_factory=lambda: StudentShape(
            d_model=512,
            encoder_layers=6,
            decoder_layers=6,
            encoder_attention_heads=8,
            decoder_attention_heads=8,
            encoder_ffn_dim=2048,
            decoder_ffn_dim=2048,
        )
    )
    """Dimensions; the default is Transformer-base (Vaswani et al. 2017)."""


_SHARES = (*DROPOUT, "label_smoothing", "adam_beta1", "adam_beta2", "muon_momentum", "ema_decay")
_LEAST = {
    0: "warmup_steps weight_decay clip_norm average_last dev_lines patience save_every save_seconds threads",
    1: "steps epochs batch_tokens accumulation average_every dev_every log_every bad_updates",
    2: "max_tokens",
}
_MOST = 999_999_999
"""Of any number: what the names of states and snapshots have room for."""
