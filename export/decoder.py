"""The decoder: one step over a batch of rows, with the keys and values of the steps before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mobilenmt.export.candidates import Candidates, candidate_value, write_candidates, write_logits
from mobilenmt.export.encoder import Encoded, in_turn, masked, rename
from mobilenmt.export.graph import FLOAT, INT32, INT64, Graph
from mobilenmt.export.layers import ModelWriter, attention, dimension
from mobilenmt.export.precision.protocol import Use

_GROUPED_HEAD_SIZE = 16  # GroupQueryAttention takes multiples of it


@dataclass(frozen=True)
class Step:
    """What one step yields: ``state`` [B, K, d_model] as the output layer wants it
    (:meth:`ModelWriter.output_shift`), and the caches with this step's keys and values appended, in turn."""

    state: str
    present: list[str]
    queries: list[str]
    """What each layer asks the source, [B, K, d_model]."""


def cache_names(writer: ModelWriter, prefix: str) -> list[str]:
    """Names for the keys and values of each decoder layer in turn."""
    layers = range(writer.checkpoint.config.decoder_layers)
    return [f"{prefix}_{part}.{index}" for index in layers for part in ("key", "value")]


def cache_shape(writer: ModelWriter) -> tuple[int, int, int]:
    """Heads, tokens and head size of the keys and values before the first step."""
    config = writer.checkpoint.config
    return config.decoder_attention_heads, 0, config.d_model // config.decoder_attention_heads


def write_step(
    writer: ModelWriter,
    graph: Graph,
    tokens: str,
    position: str,
    past: Sequence[str],
    encoded: Encoded,
    use: Use,
    *,
    ancestry: str = "",
    lengths: tuple[str, str] | None = None,
) -> Step:
    """Emit one decoder step.

    Args:
        tokens: int64 [B, K], the last token of each of the K hypotheses of each of B sentences.
        position: fp32 [d_model] or [1, d_model], the position vector of this step.
        past: keys and values of each layer in turn, [B, heads, K * steps so far, head size], those of a step side by
            side.
        encoded: the encoder's result for B sentences. The K hypotheses of a sentence attend to it together, as K
            queries of one sentence, so that its keys and values are neither copied nor read K times.
        use: which kernels suit the number of rows.
        ancestry: fp32 [B, 1, K, K * (steps so far + 1)], 0 where a hypothesis continues what was cached there, else
            -inf; empty if K is 1. So a beam that changes places moves a few numbers instead of its keys and values.
        lengths: if K is 1, int32 [B] with the number of steps before this one, and one more as one int32: where the
            head size allows it they let a leaner kernel take the three projections as they come.
    """
    config = writer.checkpoint.config
    heads = config.decoder_attention_heads
    x = writer.embed(graph, tokens, "decoder", position)
    present: list[str] = []
    queries: list[str] = []
    for index in range(config.decoder_layers):
        prefix = f"model.decoder.layers.{index}"
        names = [f"{prefix}.self_attn.{part}_proj" for part in "qkv"]
        projected = writer.linear(graph, x, *names, use=use)
        caches = past[2 * index : 2 * index + 2]
        if lengths and config.d_model // heads % _GROUPED_HEAD_SIZE == 0:
            kinds = {"num_heads": heads, "kv_num_heads": heads}
            attended, key, value = graph.ops(
                "GroupQueryAttention", projected, "", "", *caches, *lengths, outputs=3, **kinds
            )
        else:
            query, key, value = graph.ops("Split", projected, outputs=3, axis=-1, num_outputs=3)
            attended, key, value = attention(graph, heads, query, key, value, "", "", ancestry, *caches, outputs=3)
        present += [key, value]
        x = writer.residual(graph, x, attended, f"{prefix}.self_attn.out_proj", f"{prefix}.self_attn_layer_norm", use)
        query = writer.linear(graph, x, f"{prefix}.encoder_attn.q_proj", use=use)
        queries.append(query)
        memory = (encoded.keys[index], encoded.values[index])
        (attended,) = attention(graph, heads, query, *memory, *masked(encoded.mask))
        norm = f"{prefix}.encoder_attn_layer_norm"
        x = writer.residual(graph, x, attended, f"{prefix}.encoder_attn.out_proj", norm, use)
        last = index == config.decoder_layers - 1
        x = writer.feed_forward(graph, x, prefix, use, writer.output_shift(use) if last else 0.0)
    return Step(x, present, queries)


def build_decoder(writer: ModelWriter, graph: Graph) -> Graph:
    """decoder.onnx, one step for streaming, constraints and phones.

    Inputs: ``input_ids`` int64 [B, 1], the last tokens; ``position`` int64 [1], the number of steps before;
    ``source_mask``, ``cross_key.N``, ``cross_value.N`` from encoder.onnx; ``past_key.N``, ``past_value.N``
    [B, heads, position, head size]; with a shortlist also what encoder.onnx gives of the output
    layer (``CANDIDATE_VALUES``). Outputs: ``logits`` [B, 1, V], with a shortlist one for each candidate;
    ``present_key.N``, ``present_value.N``; ``cross_query.N`` [B, 1, d_model], from which a host that wants an alignment
    works out where each head looks.
    """
    config = writer.checkpoint.config
    heads, _, size = cache_shape(writer)
    layers = range(config.decoder_layers)
    ids = graph.input("input_ids", INT64, ["batch", 1])
    position = graph.input("position", INT64, [1])
    mask = graph.input("source_mask", INT32, ["batch", "source"])
    cross: list[int | str] = ["batch", heads, "source", size]
    past: list[int | str] = ["batch", heads, "past", size]
    cross_keys = [graph.input(f"cross_key.{index}", FLOAT, cross) for index in layers]
    cross_values = [graph.input(f"cross_value.{index}", FLOAT, cross) for index in layers]
    past_keys = [graph.input(f"past_key.{index}", FLOAT, past) for index in layers]
    past_values = [graph.input(f"past_value.{index}", FLOAT, past) for index in layers]
    after = graph.op("Add", position, graph.i64(1))
    table = writer.positions(graph, "decoder", after)
    row = graph.op("Slice", table, position, after, graph.i64(0))
    before = graph.op("Cast", position, to=INT32)
    lengths = (
        graph.op("Expand", before, dimension(graph, ids, 0)),
        graph.op("Squeeze", graph.op("Cast", after, to=INT32)),
    )
    encoded = Encoded("", mask, cross_keys, cross_values)
    caches = in_turn(past_keys, past_values)
    step = write_step(writer, graph, ids, row, caches, encoded, Use.STEP, lengths=lengths)
    if writer.shortlist is None:
        count: int | str = config.decoder_vocab_size
        candidates = write_candidates(writer, graph, "", Use.STEP)
    else:
        count = "candidates"
        offset = writer.output_bias is not None or writer.output_shift(Use.STEP) != 0.0
        names = writer.precision.operands(writer.table_name("output_embedding"), bias=offset)
        for name in names:
            graph.input(name, *candidate_value(writer, name))
        candidates = Candidates("", "", operands={name: name for name in names})
    logits = write_logits(writer, graph, step.state, candidates, Use.STEP)
    rename(graph, logits, "logits", FLOAT, ["batch", 1, count])
    present: list[int | str] = ["batch", heads, "present", size]
    for value, name in zip(step.present, cache_names(writer, "present"), strict=True):
        rename(graph, value, name, FLOAT, present)
    for index, query in enumerate(step.queries):
        rename(graph, query, f"cross_query.{index}", FLOAT, ["batch", 1, config.d_model])
    return graph
