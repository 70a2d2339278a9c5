"""The student's forward pass, from the parameters of a ``MarianMTModel``: its numbers in fewer passes over memory.

Weights are cast once a batch, states stay in the type of the matrix products between layers (statistics of norms and
sums in products are fp32), and gradients are those of :mod:`~mobilenmt.compression.train.layers`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from mobilenmt.compression.train.layers import add_norm, attend, linear, padded_length


def hidden_states(
    student: Any,
    source: torch.Tensor,
    source_mask: torch.Tensor | None,
    decoder_input: torch.Tensor,
    dtype: torch.dtype,
    make: Callable[[Any, torch.dtype], Pass] | None = None,
) -> torch.Tensor:
    """States of the last decoder layer, [B, T, D] of ``dtype``; arguments as of :func:`layer_states`."""
    return layer_states(student, source, source_mask, decoder_input, dtype, make)[1][-1].transpose(0, 1)


def layer_states(
    student: Any,
    source: torch.Tensor,
    source_mask: torch.Tensor | None,
    decoder_input: torch.Tensor,
    dtype: torch.dtype,
    make: Callable[[Any, torch.dtype], Pass] | None = None,
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """States behind every layer of the encoder, [S, B, D] of ``dtype``, and of the decoder, [T, B, D].

    Args:
        student: a ``MarianMTModel``; its training mode decides about dropout.
        source: int64 [B, S].
        source_mask: bool [B, S], False at padding; None without padding.
        decoder_input: int64 [B, T].
        dtype: type of the matrix products and of what lies between them.
        make: makes another pass of the student than a :class:`Pass`.
    """
    model, config = student.model, student.config
    run = (make or Pass)(student, dtype)
    own = run.padding_mask(source_mask, source.shape[1], config.encoder_attention_heads)
    memory = run.embed(model.encoder, source)
    encoded, decoded = [], []
    for layer in model.encoder.layers:
        memory = run.self_attention(memory, layer, own)
        memory = run.feed_forward(memory, layer)
        encoded.append(memory)
    if config.decoder_attention_heads != config.encoder_attention_heads:
        own = run.padding_mask(source_mask, source.shape[1], config.decoder_attention_heads)
    causal = run.causal_mask(decoder_input.shape[1])
    states = run.embed(model.decoder, decoder_input)
    for layer in model.decoder.layers:
        states = run.self_attention(states, layer, causal, causal=True)
        states = run.cross_attention(states, memory, layer, own)
        states = run.feed_forward(states, layer)
        decoded.append(states)
    return encoded, decoded


class Pass:
    """One pass: the model's settings, and its layers as functions of states [time, sentences, width]."""

    def __init__(self, student: Any, dtype: torch.dtype) -> None:
        self.config, self.dtype, self.training = student.config, dtype, student.training
        self.table = student.model.shared.weight
        self.attention_dropout = self.config.attention_dropout if self.training else 0.0
        self.empty = torch.empty(0, dtype=dtype, device=self.table.device)
        self.lowest = torch.finfo(dtype).min

    def embed(self, side: Any, ids: torch.Tensor) -> torch.Tensor:
        scale = self.config.d_model**0.5 if self.config.scale_embedding else 1.0
        states = functional.embedding(ids.t(), self.table, self.config.pad_token_id) * scale
        states += side.embed_positions.weight[: ids.shape[1], None]
        return self.dropped(states, self.config.dropout).to(self.dtype)

    def self_attention(
        self, states: torch.Tensor, layer: Any, mask: torch.Tensor | None, *, causal: bool = False
    ) -> torch.Tensor:
        heads = layer.self_attn
        packed = self.linear(states, heads.q_proj, heads.k_proj, heads.v_proj, scale=heads.scaling)
        packed = self.heads(packed, 3 * heads.num_heads)
        found = attend(packed, None, mask, heads.num_heads, causal=causal, dropout=self.attention_dropout)
        return self.add_norm(states, self.linear(found, heads.out_proj), layer.self_attn_layer_norm)

    def cross_attention(
        self, states: torch.Tensor, memory: torch.Tensor, layer: Any, mask: torch.Tensor | None
    ) -> torch.Tensor:
        heads = layer.encoder_attn
        queries = self.heads(self.linear(states, heads.q_proj, scale=heads.scaling), heads.num_heads)
        packed = self.heads(self.linear(memory, heads.k_proj, heads.v_proj), 2 * heads.num_heads)
        found = attend(queries, packed, mask, heads.num_heads, dropout=self.attention_dropout)
        return self.add_norm(states, self.linear(found, heads.out_proj), layer.encoder_attn_layer_norm)

    def feed_forward(self, states: torch.Tensor, layer: Any) -> torch.Tensor:
        relu = self.config.activation_function == "relu"
        inner = self.linear(states, layer.fc1, relu=relu)
        if not relu:
            inner = layer.activation_fn(inner)
        inner = self.dropped(inner, self.config.activation_dropout)
        return self.add_norm(states, self.linear(inner, layer.fc2), layer.final_layer_norm)

    def linear(self, states: torch.Tensor, *layers: nn.Linear, scale: float = 1.0, relu: bool = False) -> torch.Tensor:
        """Some linear layers side by side, the first one's output scaled."""
        states = self.read(states, layers[0])
        low = [(self.weight(layer), layer.bias.to(self.dtype)) for layer in layers]
        if scale != 1.0:
            low[0] = (low[0][0] * scale, low[0][1] * scale)
        weight, bias = (torch.cat(part) if len(low) > 1 else part[0] for part in zip(*low, strict=True))
        return linear(states.view(-1, states.shape[2]), weight, bias, relu=relu).view(*states.shape[:2], -1)

    def weight(self, layer: nn.Linear) -> torch.Tensor:
        """A layer's matrix, as products read it."""
        return layer.weight.to(self.dtype)

    def read(self, states: torch.Tensor, layer: nn.Linear) -> torch.Tensor:
        """What goes into a layer, and those beside it, as products read it."""
        return states

    def heads(self, packed: torch.Tensor, count: int) -> torch.Tensor:
        """Queries, keys or values of ``count`` heads side by side, as attention reads them."""
        return packed

    def add_norm(self, states: torch.Tensor, added: torch.Tensor, norm: nn.LayerNorm) -> torch.Tensor:
        return add_norm(states, self.dropped(added, self.config.dropout), norm.weight, norm.bias)

    def dropped(self, values: torch.Tensor, p: float) -> torch.Tensor:
        return functional.dropout(values, p, self.training) if p else values

    def padding_mask(self, kept: torch.Tensor | None, length: int, heads: int) -> torch.Tensor | None:
        """What is added to the scores of keys, [B * heads or 1, 1, S]; None if nothing is hidden."""
        padded = padded_length(length, self.empty)
        if kept is None and padded == length:
            return None
        mask = self.empty.new_zeros(1 if kept is None else len(kept), 1, padded)
        mask[:, :, length:] = self.lowest
        if kept is None:
            return mask
        mask[:, 0, :length].masked_fill_(~kept, self.lowest)
        return mask.repeat_interleave(heads, 0)

    def causal_mask(self, length: int) -> torch.Tensor:
        """[1, T, T], or a longer last dimension."""
        return self.empty.new_full((1, length, padded_length(length, self.empty)), self.lowest).triu_(1)
