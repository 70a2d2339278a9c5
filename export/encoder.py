"""The encoder: source ids -> encoder state, and the keys and values that every decoder layer attends to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mobilenmt.export.candidates import candidate_value, write_candidates
from mobilenmt.export.graph import FLOAT, INT32, INT64, Graph
from mobilenmt.export.layers import ModelWriter, attention, dimension, length_mask, split_heads
from mobilenmt.export.precision.protocol import Use


@dataclass(frozen=True)
class Encoded:
    """Names of what the encoder hands to the decoder.

    ``state`` [B, S, d_model]; ``mask`` int32 [B, S], empty where there is no padding; ``keys`` and ``values``, one
    [B, heads, S, head size] a layer.
    """

    state: str
    mask: str
    keys: list[str]
    values: list[str]


def write_encoder(writer: ModelWriter, graph: Graph, ids: str, lengths: str) -> Encoded:
    """Emit the encoder for int64 ``ids`` [B, S], padded on the right; their int64 ``lengths`` [B], or empty.

    Keys and values of cross-attention are projected once per sentence, for all decoder layers in one matmul
    (MobileNMT, section on the engine).
    """
    config = writer.checkpoint.config
    width = dimension(graph, ids, 1)
    mask = length_mask(graph, lengths, width) if lengths else ""
    x = writer.embed(graph, ids, "encoder", writer.positions(graph, "encoder", width))
    for index in range(config.encoder_layers):
        prefix = f"model.encoder.layers.{index}"
        names = [f"{prefix}.self_attn.{part}_proj" for part in "qkv"]
        query, key, value = graph.ops(
            "Split", writer.linear(graph, x, *names, use=Use.ENCODER), outputs=3, axis=-1, num_outputs=3
        )
        heads = config.encoder_attention_heads
        (attended,) = attention(graph, heads, query, key, value, *masked(mask))
        x = writer.residual(
            graph, x, attended, f"{prefix}.self_attn.out_proj", f"{prefix}.self_attn_layer_norm", Use.ENCODER
        )
        x = writer.feed_forward(graph, x, prefix, Use.ENCODER)
    keys: list[str] = []
    values: list[str] = []
    if config.decoder_layers:
        names = [
            f"model.decoder.layers.{index}.encoder_attn.{part}_proj"
            for index in range(config.decoder_layers)
            for part in "kv"
        ]
        count = len(names)
        projected = graph.ops(
            "Split", writer.linear(graph, x, *names, use=Use.ENCODER), outputs=count, axis=-1, num_outputs=count
        )
        heads = config.decoder_attention_heads
        split = [split_heads(graph, part, heads, config.d_model // heads) for part in projected]
        keys, values = split[0::2], split[1::2]
    return Encoded(x, mask, keys, values)


def in_turn(keys: Sequence[str], values: Sequence[str]) -> list[str]:
    """The first key and the first value, the second ones, and so on."""
    return [item for pair in zip(keys, values, strict=True) for item in pair]


def masked(mask: str) -> tuple[str, ...]:
    """The inputs of :func:`attention` that follow queries, keys and values."""
    return ("", mask) if mask else ()


def build_encoder(writer: ModelWriter, graph: Graph) -> Graph:
    """encoder.onnx: inputs ``input_ids`` [B, S] and ``lengths`` [B]; outputs as in :class:`Encoded`.

    With a shortlist also ``candidates`` int64 [n], the tokens that the logits of decoder.onnx stand for, and what
    decoder.onnx reads of the output layer (``CANDIDATE_VALUES``).
    """
    ids = graph.input("input_ids", INT64, ["batch", "source"])
    lengths = graph.input("lengths", INT64, ["batch"])
    encoded = write_encoder(writer, graph, ids, lengths)
    config = writer.checkpoint.config
    heads = config.decoder_attention_heads
    cross: list[int | str] = ["batch", heads, "source", config.d_model // heads]
    rename(graph, encoded.state, "encoder_state", FLOAT, ["batch", "source", config.d_model])
    rename(graph, encoded.mask, "source_mask", INT32, ["batch", "source"])
    for index, (key, value) in enumerate(zip(encoded.keys, encoded.values, strict=True)):
        rename(graph, key, f"cross_key.{index}", FLOAT, cross)
        rename(graph, value, f"cross_value.{index}", FLOAT, cross)
    if writer.shortlist is not None:
        candidates = write_candidates(writer, graph, ids, Use.STEP)
        values = {"candidates": candidates.ids, **candidates.operands}
        for name, output in values.items():
            if output is not None:
                rename(graph, output, name, *candidate_value(writer, name))
    return graph


def rename(graph: Graph, value: str, name: str, dtype: int, shape: list[int | str] | None = None) -> None:
    """Declare ``value`` as an output called ``name`` (which costs no copy: the producing node is renamed)."""
    graph.rename(value, name)
    graph.output(name, dtype, shape)
