"""Models that the product does not have: factorized embeddings and layers that share their weights.

They train as the student does (``TrainingJob.make``) and are saved as plain Marian checkpoints, with the table
multiplied out and each layer written as often as it is used. So every tool opens them, but the bytes they save are
saved in training alone; the weights as they are trained lie in the run's ``last``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import MarianMTModel

from mobilenmt.compression.core.errors import RecipeError
from mobilenmt.compression.train.size import count_parameters
from mobilenmt.compression.train.student import StudentShape, make_student
from mobilenmt.compression.vocabulary.vocabulary import Vocabulary


@dataclass(frozen=True)
class Variant:
    """What is unlike the student's model; nothing by default."""

    factor: int = 0
    """Inner width e of an embedding V x e times e x d (Lan et al. 2020, ALBERT); 0: one table V x d."""
    tied: bool = True
    """The output layer reads the factorized table by the same matrix e x d; False: by one of its own."""
    encoder_sets: int = 0
    """Sets of encoder weights that the layers take in turn (Takase & Kiyono 2021, "cycle"); 0: each has its own."""

    def __post_init__(self) -> None:
        for name in ("factor", "encoder_sets"):
            if getattr(self, name) < 0:
                raise RecipeError(f"{name}: must be at least 0, found {getattr(self, name)}")
        if not self.tied and not self.factor:
            raise RecipeError("tied: only a factorized embedding can be untied here; give factor")

    @property
    def plain(self) -> bool:
        """Whether it is the student's model."""
        return not self.factor and not self.encoder_sets


def count(shape: StudentShape, vocabulary: int, variant: Variant) -> int:
    """Trained weights of a variant, each once: its bytes in INT8, but for scales.

    Raises RecipeError if there are more sets of weights than layers.
    """
    total, d, e = count_parameters(shape, vocabulary), shape.d_model, variant.factor
    if e:
        total += vocabulary * (e - d) + e * d * (1 if variant.tied else 2)
    if variant.encoder_sets:
        if variant.encoder_sets > shape.encoder_layers:
            raise RecipeError(f"encoder_sets: {variant.encoder_sets} for {shape.encoder_layers} layers")
        layer = 4 * d * d + 2 * d * shape.encoder_ffn_dim + 4 * d + shape.encoder_ffn_dim + d + 4 * d
        total -= (shape.encoder_layers - variant.encoder_sets) * layer
    return total


class FactorizedEmbedding(nn.Module):
    """A table of V x e times e x d, with the face of ``nn.Embedding``; both factors are the caller's tied weights.

    The product's entries begin with the deviation d^-0.5 of the student's table.
    """

    def __init__(self, pieces: int, factor: int, width: int, pad: int, *, tied: bool) -> None:
        super().__init__()
        self.padding_idx = pad
        self.pieces = nn.Parameter(torch.randn(pieces, factor) * factor**-0.5)
        self.projection = nn.Parameter(torch.randn(factor, width) * width**-0.5)
        self.output_projection = None if tied else nn.Parameter(torch.randn(factor, width) * width**-0.5)
        with torch.no_grad():
            self.pieces[pad].zero_()  # and it stays: neither the input nor the loss gives it a gradient

    @property
    def weight(self) -> torch.Tensor:
        """Rows of the input, [V, d]."""
        return self.pieces @ self.projection

    @property
    def output_weight(self) -> torch.Tensor:
        """Rows of the output layer, [V, d]."""
        return self.pieces @ (self.projection if self.output_projection is None else self.output_projection)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return functional.embedding(ids, self.weight, self.padding_idx)


class _Output(nn.Module):
    """Output layer of a factorized embedding, with the face of ``nn.Linear`` without bias."""

    def __init__(self, embedding: FactorizedEmbedding) -> None:
        super().__init__()
        self.embedding = embedding

    @property
    def weight(self) -> torch.Tensor:
        return self.embedding.output_weight

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return functional.linear(states, self.weight)


class VariantModel(MarianMTModel):  # type: ignore[no-untyped-call]  # transformers' own hooks have no types
    """A Marian model with some weights factorized or shared."""

    def __init__(self, student: MarianMTModel, variant: Variant) -> None:
        super().__init__(student.config)
        self.load_state_dict(student.state_dict())
        self.generation_config = student.generation_config
        parts: Any = self.model
        if variant.encoder_sets:
            layers = parts.encoder.layers
            for number in range(variant.encoder_sets, len(layers)):
                layers[number] = layers[number % variant.encoder_sets]
        if variant.factor:
            pieces, width = parts.shared.weight.shape
            pad = parts.shared.padding_idx
            table = FactorizedEmbedding(pieces, variant.factor, width, pad, tied=variant.tied)
            parts.shared = parts.encoder.embed_tokens = parts.decoder.embed_tokens = table
            self.lm_head: Any = _Output(table)
            # Named here, the projections are matrices like those of the layers to the optimizer, the pieces a table.
            self.projection, self.output_projection = table.projection, table.output_projection

    def multiplied_out(self) -> MarianMTModel:
        """The same function as a plain Marian model, its weights copied."""
        config = type(self.config).from_dict(self.config.to_dict())
        shared: Any = self.model.shared
        factorized = isinstance(shared, FactorizedEmbedding)
        config.tie_word_embeddings = not (factorized and shared.output_projection is not None)
        model: Any = MarianMTModel(config)
        wanted = {name for name in model.state_dict() if "embed_tokens" not in name}
        state = {name: value for name, value in self.state_dict().items() if name in wanted}
        with torch.no_grad():
            state["model.shared.weight"] = shared.weight.clone()
            state["lm_head.weight"] = self.lm_head.weight.clone()
        model.load_state_dict(state, strict=False)
        model.tie_weights()
        model.generation_config = self.generation_config
        model.train(self.training)
        plain: MarianMTModel = model
        return plain

    def save_pretrained(self, *args: Any, **kwargs: Any) -> None:
        """Write the model as :meth:`multiplied_out` gives it."""
        self.multiplied_out().save_pretrained(*args, **kwargs)


def make_variant(
    variant: Variant, shape: StudentShape, vocabulary: Vocabulary, *, seed: int, **dropout: float
) -> MarianMTModel:
    """As ``make_student``, which makes all that the variant leaves as it is."""
    student = make_student(shape, vocabulary, seed=seed, **dropout)
    if variant.plain:
        return student
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = VariantModel(student, variant)
    model.train()
    return model


def maker(variant: Variant) -> partial[MarianMTModel]:
    """``make_variant`` of one variant, for ``TrainingJob.make``."""
    return partial(make_variant, variant)


def load_plain(folder: Path) -> MarianMTModel:
    """A checkpoint that a run left, for evaluation."""
    model: MarianMTModel = MarianMTModel.from_pretrained(folder, local_files_only=True)
    model.train(False)
    return model
