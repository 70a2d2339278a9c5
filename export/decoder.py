"""The decoder: one step over a batch of rows, with the keys and values of the steps before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mobilenmt.export.encoder import Encoded, rename
from mobilenmt.export.graph import FLOAT, INT32, INT64, Graph
from mobilenmt.export.layers import ModelWriter, attention, dimension, join


@dataclass(frozen=True)
class Step:
    """What one step yields: ``logits`` [B, K, V], and the caches with this step's keys and values appended."""

    logits: str
    keys: list[str]
    values: list[str]


def write_step(
    writer: ModelWriter,
    graph: Graph,
    tokens: str,
    position: str,
    past_keys: Sequence[str],
    past_values: Sequence[str],
    encoded: Encoded,
    grouped: str,
) -> Step:
    """Emit one decoder step.

    Args:
        tokens: int64 [B * K, 1], the last token of each of the K hypotheses of each of B sentences.
        position: fp32 [1, d_model], the position vector of this step.
        past_keys, past_values: one [B * K, heads, steps so far, head size] a layer.
        encoded: the encoder's result for B sentences. The K hypotheses of a sentence attend to it together, as K
            queries of one sentence, so that its keys and values are neither copied nor read K times.
        grouped: 1-D int64 shape [B, K, d_model].
    """
    config = writer.checkpoint.config
    heads = config.decoder_attention_heads
    x = writer.embed(graph, tokens, "decoder", position)
    flat = graph.i64(-1, 1, config.d_model)
    keys: list[str] = []
    values: list[str] = []
    for index in range(config.decoder_layers):
        prefix = f"model.decoder.layers.{index}"
        names = [f"{prefix}.self_attn.{part}_proj" for part in "qkv"]
        query, key, value = graph.ops("Split", writer.linear(graph, x, *names), outputs=3, axis=-1, num_outputs=3)
        past = ("", "", "", past_keys[index], past_values[index])
        attended, key, value = attention(graph, heads, query, key, value, *past, outputs=3)
        keys.append(key)
        values.append(value)
        x = writer.residual(graph, x, attended, f"{prefix}.self_attn.out_proj", f"{prefix}.self_attn_layer_norm")
        query = graph.op("Reshape", writer.linear(graph, x, f"{prefix}.encoder_attn.q_proj"), grouped)
        (attended,) = attention(graph, heads, query, encoded.keys[index], encoded.values[index], "", encoded.mask)
        attended = graph.op("Reshape", attended, flat)
        x = writer.residual(graph, x, attended, f"{prefix}.encoder_attn.out_proj", f"{prefix}.encoder_attn_layer_norm")
        x = writer.feed_forward(graph, x, prefix)
    x = graph.op("Reshape", x, grouped)
    return Step(writer.logits(graph, x), keys, values)


def build_decoder(writer: ModelWriter, graph: Graph) -> Graph:
    """decoder.onnx, one step for streaming, constraints and phones.

    Inputs: ``input_ids`` int64 [B, K], the last tokens; ``position`` int64 [1], the number of steps before;
    ``source_mask``, ``cross_key.N``, ``cross_value.N`` from encoder.onnx; ``past_key.N``, ``past_value.N``
    [B * K, heads, position, head size]. Outputs: ``logits`` [B, K, V]; ``present_key.N``, ``present_value.N``.
    """
    config = writer.checkpoint.config
    heads, layers = config.decoder_attention_heads, range(config.decoder_layers)
    size = config.d_model // heads
    ids = graph.input("input_ids", INT64, ["batch", "beams"])
    position = graph.input("position", INT64, [1])
    mask = graph.input("source_mask", INT32, ["batch", "source"])
    cross: list[int | str] = ["batch", heads, "source", size]
    past: list[int | str] = ["rows", heads, "past", size]
    cross_keys = [graph.input(f"cross_key.{index}", FLOAT, cross) for index in layers]
    cross_values = [graph.input(f"cross_value.{index}", FLOAT, cross) for index in layers]
    past_keys = [graph.input(f"past_key.{index}", FLOAT, past) for index in layers]
    past_values = [graph.input(f"past_value.{index}", FLOAT, past) for index in layers]
    after = graph.op("Add", position, graph.i64(1))
    table = writer.positions(graph, "decoder", after)
    row = graph.op("Slice", table, position, after, graph.i64(0))
    grouped = join(graph, dimension(graph, ids, 0), dimension(graph, ids, 1), graph.i64(config.d_model))
    tokens = graph.op("Reshape", ids, graph.i64(-1, 1))
    encoded = Encoded("", mask, cross_keys, cross_values)
    step = write_step(writer, graph, tokens, row, past_keys, past_values, encoded, grouped)
    rename(graph, step.logits, "logits", FLOAT, ["batch", "beams", config.decoder_vocab_size])
    present: list[int | str] = ["rows", heads, "present", size]
    for index in layers:
        rename(graph, step.keys[index], f"present_key.{index}", FLOAT, present)
        rename(graph, step.values[index], f"present_value.{index}", FLOAT, present)
    return graph
