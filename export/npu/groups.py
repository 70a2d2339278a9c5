"""The matrices of a model as its static graphs multiply by them: what shares an input is one product."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mobilenmt.export.checkpoint import Checkpoint
from mobilenmt.export.layers import stacked_name
from mobilenmt.export.quantize.forms import FORMS
from mobilenmt.export.quantize.rounding import round_matrix
from mobilenmt.export.weights import Array

OUTPUT = "output"
"""What the product with the output layer is called."""


@dataclass(frozen=True)
class Group:
    """Projections that are multiplied as one matrix, stacked along their outputs."""

    names: tuple[str, ...]
    """As in the checkpoint, without ``.weight``."""
    wide: bool
    """Whether it meets a whole sentence: the CPU's graphs store those turned round."""

    @property
    def name(self) -> str:
        """What the pack calls the matrix."""
        return stacked_name(self.names)

    def weight(self, checkpoint: Checkpoint) -> Array:
        """fp32 [out, in]."""
        if self.names == (OUTPUT,):
            return checkpoint["output_embedding"]
        found: Array = np.concatenate([checkpoint[f"{name}.weight"] for name in self.names])
        return found

    def bias(self, checkpoint: Checkpoint) -> Array:
        """fp32 [out]."""
        if self.names == (OUTPUT,):
            return checkpoint["final_logits_bias"].reshape(-1)
        found: Array = np.concatenate([checkpoint[f"{name}.bias"] for name in self.names])
        return found

    def rounded(self, checkpoint: Checkpoint, *, shortlist: bool) -> tuple[Array, Array]:
        """int8 [out, in] and fp32 scales [out], those that the CPU's graphs have."""
        table = self.names == (OUTPUT,) and not shortlist
        return rounded_rows(self.weight(checkpoint), wide=table)


def rounded_rows(weight: Array, *, wide: bool) -> tuple[Array, Array]:
    """int8 [out, in] and fp32 scales [out] of a plain INT8 pack; ``wide`` for tables that are read whole."""
    found = round_matrix(weight, FORMS["int8-wide" if wide else "int8"])
    return found.values, found.scales


def attention_group(prefix: str, *, wide: bool) -> Group:
    """Queries, keys and values of self-attention."""
    return Group(tuple(f"{prefix}.self_attn.{part}_proj" for part in "qkv"), wide)


def cross_group(layers: int) -> Group:
    """Keys and values that all decoder layers make of the encoder's result."""
    return Group(
        tuple(f"model.decoder.layers.{index}.encoder_attn.{part}_proj" for index in range(layers) for part in "kv"),
        wide=True,
    )


def groups(checkpoint: Checkpoint) -> list[Group]:
    """All products, in the order in which a sentence meets them."""
    config = checkpoint.config
    found = []
    for index in range(config.encoder_layers):
        prefix = f"model.encoder.layers.{index}"
        found.append(attention_group(prefix, wide=True))
        found += [Group((f"{prefix}.{part}",), wide=True) for part in ("self_attn.out_proj", "fc1", "fc2")]
    found.append(cross_group(config.decoder_layers))
    for index in range(config.decoder_layers):
        prefix = f"model.decoder.layers.{index}"
        found.append(attention_group(prefix, wide=False))
        parts = ("self_attn.out_proj", "encoder_attn.q_proj", "encoder_attn.out_proj", "fc1", "fc2")
        found += [Group((f"{prefix}.{part}",), wide=False) for part in parts]
    found.append(Group((OUTPUT,), wide=False))
    return found
