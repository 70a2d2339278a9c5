"""The matrices that a pack stores, by the exporter's names, and what they are made of in a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from mobilenmt.compression.prune.network import EMBEDDING, Network, Weights
from mobilenmt.compression.train.quantized.rounding import round_rows
from mobilenmt.export.checkpoint import MarianConfig
from mobilenmt.export.layers import stacked_name, stacks
from mobilenmt.export.precision.int8 import TABLE_LEVELS
from mobilenmt.export.quantize.quantizer import round_named
from mobilenmt.export.quantize.rounding import Rounded
from mobilenmt.export.quantize.settings import Quantization

Array = npt.NDArray[Any]
TABLE = "source_embedding"
"""The one table of a tied model."""


@dataclass(frozen=True)
class Matrix:
    """One matrix of a pack."""

    name: str
    """The exporter's."""
    members: tuple[str, ...]
    """What is stacked in it along its outputs: linear layers, or :data:`EMBEDDING`."""
    rows: int
    columns: int

    @property
    def pattern(self) -> str:
        """A name for settings. Keys and values of the source are one matrix, called after all layers: cut short."""
        kept, _, rest = self.name.partition("encoder_attn.k_proj+v_proj")
        return f"{kept}encoder_attn.k_proj+v_proj*" if rest or kept != self.name else self.name


def matrices(config: MarianConfig) -> list[Matrix]:
    """All matrices of a tied model, the table first, then in the order they are computed."""
    d, sides = config.d_model, ("encoder", "decoder")
    inner = {f"model.{side}": getattr(config, f"{side}_ffn_dim") for side in sides}
    found = [Matrix(TABLE, (EMBEDDING,), config.decoder_vocab_size, d)]
    for names in stacks(config.encoder_layers, config.decoder_layers):
        side, _, place = names[0].partition(".layers.")
        rows = inner[side] if place.endswith("fc1") else len(names) * d
        columns = inner[side] if place.endswith("fc2") else d
        found.append(Matrix(stacked_name(names), tuple(names), rows, columns))
    return found


def stacked(weights: Weights, matrix: Matrix) -> Array:
    """fp32 [rows, columns] of a matrix."""
    parts = [weights[_key(member)].numpy() for member in matrix.members]
    return np.concatenate(parts) if len(parts) > 1 else parts[0]


def put(matrix: Matrix, value: Array) -> Weights:
    """The weights that a matrix [rows, columns] consists of."""
    parts = np.split(np.ascontiguousarray(value, np.float32), len(matrix.members))
    return {_key(member): torch.from_numpy(part) for member, part in zip(matrix.members, parts, strict=True)}


def round_as(weights: Weights, matrix: Matrix, settings: Quantization, *, shortlist: bool = False) -> Rounded | None:
    """A matrix as the exporter would round it; None if it stays fp32.

    Args:
        weights: the model's.
        matrix: which one.
        settings: forms and clipping.
        shortlist: whether the pack has one: then a table of 8 bits has the levels of the other matrices.
    """
    form = settings.form_of(matrix.name)
    if form.kind == "fp32":
        return None
    wide = matrix.name == TABLE and form.kind == "int8" and not shortlist
    return round_named(settings, matrix.name, stacked(weights, matrix), TABLE_LEVELS if wide else None)


def round_all(network: Network, settings: Quantization, *, shortlist: bool = False) -> dict[str, Rounded]:
    """Every matrix that does not stay fp32, by name."""
    found = {
        matrix.name: round_as(network.weights, matrix, settings, shortlist=shortlist)
        for matrix in matrices(network.config)
    }
    return {name: value for name, value in found.items() if value is not None}


@dataclass(frozen=True)
class StoredNetwork(Network):
    """A network with some matrices as a pack stores them, which computes as the C core does: what goes into a product
    with a stored matrix is rounded to 8 bits of its row's own largest magnitude (``quantize`` in kernels/body.h)."""

    stored: frozenset[str] = frozenset()
    """Members of matrices that are not fp32."""

    @classmethod
    def build(cls, network: Network, rounded: Mapping[str, Rounded]) -> StoredNetwork:
        """``network`` with the matrices that ``rounded`` names."""
        weights, stored = dict(network.weights), set[str]()
        for matrix in matrices(network.config):
            if matrix.name in rounded:
                weights |= put(matrix, rounded[matrix.name].weights())
                stored |= set(matrix.members)
        return cls(network.config, weights, frozenset(stored))

    def linear(self, name: str, states: torch.Tensor) -> torch.Tensor:
        """A linear layer."""
        if name in self.stored:
            positive = name.endswith(".fc2") and self.config.activation_function == "relu"
            states = round_rows(states, positive=positive)
        return super().linear(name, states)

    def logits(self, states: torch.Tensor) -> torch.Tensor:
        """Of the last decoder layer's states, [..., V]."""
        return super().logits(round_rows(states) if EMBEDDING in self.stored else states)


def with_weights(network: Network, changed: Weights) -> Network:
    """The network with some weights replaced."""
    return replace(network, weights={**network.weights, **changed})


def _key(member: str) -> str:
    return member if member == EMBEDDING else f"{member}.weight"
