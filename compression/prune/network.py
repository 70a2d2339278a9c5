"""A Marian Transformer as a function of its weights: every place where something can be pruned can be listened to.

The numbers are those of transformers' ``MarianMTModel`` in evaluation mode, fp32. Its modules would do for a forward
pass; pruning needs each step of a layer for itself, of two models side by side, and gradients by units.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from mobilenmt.compression.core.errors import PruneError
from mobilenmt.export.checkpoint import Checkpoint, MarianConfig, sinusoidal_positions

Tensor = torch.Tensor
Weights = dict[str, Tensor]
Tap = Callable[[str, Tensor, Tensor], Tensor]
"""Called with a place's name, what flows through it [B, T, units], and which tokens count [B, T]; returns what flows
on. Places are ``encoder.in``, and for each sublayer (``encoder.0.self_attn``, ``decoder.1.ffn``) its units
(``NAME.q``, ``NAME.k``, ``NAME.heads``, ``NAME.inner``) and the states behind it (``NAME.state``)."""

EMBEDDING, BIAS = "embedding", "final_logits_bias"
SIDES = ("encoder", "decoder")
_EPSILON = 1e-5  # of torch's layer norm, which transformers leaves as it is
_ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "relu": functional.relu,
    "gelu": functional.gelu,
    "swish": functional.silu,
    "silu": functional.silu,
}


@dataclass(frozen=True)
class Batch:
    """Sentences of about one length, padded."""

    source: Tensor
    """int64 [B, S], ``</s>`` at the end of each."""
    source_mask: Tensor
    """bool [B, S], False at padding."""
    decoder_input: Tensor
    """int64 [B, T]: the start token, then the target without its ``</s>``."""
    labels: Tensor
    """int64 [B, T]: the target, ``</s>`` included; -100 at padding."""

    @property
    def target_mask(self) -> Tensor:
        """bool [B, T], False at padding."""
        return self.labels >= 0


def listen_to_nothing(name: str, values: Tensor, mask: Tensor) -> Tensor:
    """A tap that lets everything pass."""
    return values


@dataclass(frozen=True)
class Network:
    """A model: its configuration and its weights, fp32. Places and layers are named as in :data:`Tap`."""

    config: MarianConfig
    weights: Weights
    """Names as in the checkpoint, and :data:`EMBEDDING` for the tied table."""

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> Network:
        """The network of a checkpoint; the arrays are shared, not copied.

        Raises PruneError if the model is one that a student cannot hold.
        """
        stored = checkpoint.tensors
        told = f"{checkpoint.path}: cannot be pruned: "
        if any(stored[name] is not stored["source_embedding"] for name in ("target_embedding", "output_embedding")):
            raise PruneError(f"{told}its embeddings and output layer are not one table, as those of a student are")
        if any(f"{side}_positions" in stored for side in SIDES):
            raise PruneError(f"{told}its positions are not the usual sinusoids")
        if checkpoint.config.activation_function not in _ACTIVATIONS:
            raise PruneError(f"{told}no activation {checkpoint.config.activation_function!r} is known here")
        weights = {name: torch.from_numpy(value) for name, value in stored.items() if not name.endswith("_embedding")}
        weights[EMBEDDING] = torch.from_numpy(stored["source_embedding"])
        return cls(checkpoint.config, weights)

    @property
    def parameters(self) -> int:
        """Number of trained values, as checkpoints count them: a zero bias of the output is none."""
        return sum(value.numel() for name, value in self.weights.items() if name != BIAS or bool(value.any()))

    def layers(self, side: str) -> int:
        """Number of layers of a side."""
        return int(getattr(self.config, f"{side}_layers"))

    def heads(self, side: str) -> int:
        """Heads of each attention of a side."""
        return int(getattr(self.config, f"{side}_attention_heads"))

    def without(self, side: str, layer: int) -> Network:
        """The network with one layer left out, those behind it renumbered; weights are shared."""
        kept = [index for index in range(self.layers(side)) if index != layer]
        return self.with_layers({side: kept})

    def with_layers(self, kept: Mapping[str, Sequence[int]]) -> Network:
        """The network of some layers of its sides."""
        sides = tuple(f"model.{side}.layers." for side in kept)
        weights = {name: value for name, value in self.weights.items() if not name.startswith(sides)}
        for side, layers in kept.items():
            for new, old in enumerate(layers):
                before = f"model.{side}.layers.{old}."
                weights |= {
                    f"model.{side}.layers.{new}.{name.removeprefix(before)}": value
                    for name, value in self.weights.items()
                    if name.startswith(before)
                }
        depth: dict[str, Any] = {f"{side}_layers": len(layers) for side, layers in kept.items()}
        return Network(replace(self.config, **depth), weights)

    # -- steps -----------------------------------------------------------------------------------------------------

    def embed(self, ids: Tensor) -> Tensor:
        """States in front of the first layer, [B, T, D]."""
        states = functional.embedding(ids, self.weights[EMBEDDING]) * self.config.embedding_scale
        return states + torch.from_numpy(sinusoidal_positions(ids.shape[1], self.config.d_model))

    def linear(self, name: str, states: Tensor) -> Tensor:
        """A linear layer."""
        return functional.linear(states, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

    def norm(self, name: str, states: Tensor) -> Tensor:
        """A layer norm."""
        return functional.layer_norm(
            states, states.shape[-1:], self.weights[f"{name}.weight"], self.weights[f"{name}.bias"], _EPSILON
        )

    def activation(self, values: Tensor) -> Tensor:
        """The activation of the feed-forward layers."""
        return _ACTIVATIONS[self.config.activation_function](values)

    def attend(self, side: str, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
        """What the heads of an attention give, side by side, [B, T, D].

        Args:
            side: whose number of heads counts.
            queries: [B, T, D], not yet scaled.
            keys: [B, S, D].
            values: [B, S, D].
            mask: bool [B, S] of keys; None: each query sees those up to its own place.
        """
        q, k, v = (
            part.reshape(*part.shape[:2], self.heads(side), -1).transpose(1, 2) for part in (queries, keys, values)
        )
        seen = None if mask is None else mask[:, None, None, :]
        found = functional.scaled_dot_product_attention(q, k, v, attn_mask=seen, is_causal=mask is None)
        return found.transpose(1, 2).flatten(-2)

    def logits(self, states: Tensor) -> Tensor:
        """Of the last decoder layer's states, [..., V]."""
        return functional.linear(states, self.weights[EMBEDDING], self.weights[BIAS][0])

    # -- passes ----------------------------------------------------------------------------------------------------

    def states(self, batch: Batch, tap: Tap = listen_to_nothing) -> Tensor:
        """States of the last decoder layer, [B, T, D]."""
        return self.decode(batch, self.encode(batch, tap), tap)

    def encode(
        self, batch: Batch, tap: Tap = listen_to_nothing, *, first: int = 0, states: Tensor | None = None
    ) -> Tensor:
        """States of the last encoder layer, [B, S, D]; computed on from ``states`` in front of the layer ``first``, if
        they are given."""
        source = batch.source_mask
        memory = tap("encoder.in", self.embed(batch.source), source) if states is None else states
        for layer in range(first, self.layers("encoder")):
            memory = self._attention("encoder", layer, "self_attn", memory, memory, source, source, source, tap)
            memory = self._feed_forward("encoder", layer, memory, source, tap)
        return memory

    def decode(self, batch: Batch, memory: Tensor, tap: Tap = listen_to_nothing) -> Tensor:
        """States of the last decoder layer, [B, T, D], from those of the last encoder layer."""
        source, target = batch.source_mask, batch.target_mask
        states = tap("decoder.in", self.embed(batch.decoder_input), target)
        for layer in range(self.layers("decoder")):
            states = self._attention("decoder", layer, "self_attn", states, states, None, target, target, tap)
            states = self._attention("decoder", layer, "encoder_attn", states, memory, source, target, source, tap)
            states = self._feed_forward("decoder", layer, states, target, tap)
        return states

    def _attention(
        self,
        side: str,
        layer: int,
        kind: str,
        states: Tensor,
        others: Tensor,
        mask: Tensor | None,
        counted: Tensor,
        others_counted: Tensor,
        tap: Tap,
    ) -> Tensor:
        place, prefix = f"{side}.{layer}.{kind}", f"model.{side}.layers.{layer}.{kind}"
        queries = tap(f"{place}.q", self.linear(f"{prefix}.q_proj", states), counted)
        keys = tap(f"{place}.k", self.linear(f"{prefix}.k_proj", others), others_counted)
        values = self.linear(f"{prefix}.v_proj", others)
        found = tap(f"{place}.heads", self.attend(side, queries, keys, values, mask), counted)
        added = self.norm(f"{prefix}_layer_norm", states + self.linear(f"{prefix}.out_proj", found))
        return tap(f"{place}.state", added, counted)

    def _feed_forward(self, side: str, layer: int, states: Tensor, counted: Tensor, tap: Tap) -> Tensor:
        place, prefix = f"{side}.{layer}.ffn", f"model.{side}.layers.{layer}"
        inner = tap(f"{place}.inner", self.activation(self.linear(f"{prefix}.fc1", states)), counted)
        added = self.norm(f"{prefix}.final_layer_norm", states + self.linear(f"{prefix}.fc2", inner))
        return tap(f"{place}.state", added, counted)

    def sentence_losses(self, states: Tensor, labels: Tensor) -> Tensor:
        """Negative log-likelihood of each sentence, summed over its tokens, [B]."""
        found = functional.cross_entropy(self.logits(states).flatten(0, 1), labels.flatten(), reduction="none")
        return found.view(labels.shape).sum(1)

    def loss(self, batches: Sequence[Batch]) -> float:
        """Negative log-likelihood in nats a token, ``</s>`` included."""
        with torch.inference_mode():
            total = sum(float(self.sentence_losses(self.states(batch), batch.labels).sum()) for batch in batches)
        return total / sum(int(batch.target_mask.sum()) for batch in batches)


def sublayers(network: Network) -> Iterator[tuple[str, str, str]]:
    """(side, place, kind) of every sublayer, in the order they are computed; kind is the last part of the place."""
    for side in SIDES:
        kinds = ("self_attn", "ffn") if side == "encoder" else ("self_attn", "encoder_attn", "ffn")
        for layer in range(network.layers(side)):
            for kind in kinds:
                yield side, f"{side}.{layer}.{kind}", kind


def prefix_of(place: str) -> str:
    """Beginning of the names of a sublayer's weights: ``model.encoder.layers.0.self_attn``, or ``….0`` for ``ffn``."""
    side, layer, kind = place.split(".")
    return f"model.{side}.layers.{layer}" + ("" if kind == "ffn" else f".{kind}")


def padded(rows: Sequence[Sequence[int]], fill: int) -> Tensor:
    """int64 [rows, longest]."""
    out = np.full((len(rows), max(map(len, rows))), fill, np.int64)
    for row, ids in zip(out, rows, strict=True):
        row[: len(ids)] = ids
    return torch.from_numpy(out)
