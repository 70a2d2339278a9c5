"""The two static graphs of a bucket: the encoder, and one step of the decoder with caches of a fixed size."""

from __future__ import annotations

from mobilenmt.export.encoder import rename
from mobilenmt.export.graph import FLOAT, INT32, UINT8, Graph
from mobilenmt.export.npu.groups import OUTPUT, Group, attention_group, cross_group
from mobilenmt.export.npu.writer import StaticWriter, allowed


def build_static_encoder(writer: StaticWriter, graph: Graph, source: int) -> Graph:
    """Inputs: ``input_ids`` int32 [1, source], filled up with the end token; ``source_mask`` fp32 [1, 1, 1, source],
    0 for tokens and a large negative number for what fills up.

    Outputs: ``cross_key.N`` [1, heads, head size, source], ``cross_value.N`` [1, heads, source, head size]; with a
    shortlist ``allowed`` uint8 [V], 1 for the tokens it allows.
    """
    writer.rounded.clear()
    config = writer.checkpoint.config
    heads = config.encoder_attention_heads
    ids = graph.input("input_ids", INT32, [1, source])
    mask = graph.input("source_mask", FLOAT, [1, 1, 1, source])
    x = writer.embed(graph, ids, "encoder")
    x = graph.op("Add", x, writer.positions(graph, "encoder", source))
    for index in range(config.encoder_layers):
        prefix = f"model.encoder.layers.{index}"
        projected = writer.linear(graph, x, attention_group(prefix, wide=True))
        query, key, value = graph.ops("Split", projected, outputs=3, axis=-1, num_outputs=3)
        query = _heads(graph, writer.scaled_query(graph, query, heads), source, heads, [0, 2, 1, 3])
        key = _heads(graph, key, source, heads, [0, 2, 3, 1])
        value = _heads(graph, value, source, heads, [0, 2, 1, 3])
        attended = writer.attend(graph, query, key, value, mask, heads)
        attended = graph.op("Transpose", attended, perm=[0, 2, 1, 3])
        attended = graph.op("Reshape", attended, graph.i64(source, config.d_model))
        norm = f"{prefix}.self_attn_layer_norm"
        x = writer.residual(graph, x, attended, f"{prefix}.self_attn.out_proj", norm, wide=True)
        x = writer.feed_forward(graph, x, prefix, wide=True)
    count = 2 * config.decoder_layers
    projected = writer.linear(graph, x, cross_group(config.decoder_layers))
    parts = graph.ops("Split", projected, outputs=count, axis=-1, num_outputs=count)
    heads = config.decoder_attention_heads
    size = config.d_model // heads
    for index in range(config.decoder_layers):
        key = _heads(graph, parts[2 * index], source, heads, [0, 2, 3, 1])
        value = _heads(graph, parts[2 * index + 1], source, heads, [0, 2, 1, 3])
        rename(graph, key, f"cross_key.{index}", FLOAT, [1, heads, size, source])
        rename(graph, value, f"cross_value.{index}", FLOAT, [1, heads, source, size])
    if writer.shortlist:
        chosen = allowed(graph, ids, source, writer.model)
        rename(graph, chosen, "allowed", UINT8, [config.decoder_vocab_size])
    return graph


def build_static_decoder(writer: StaticWriter, graph: Graph, source: int, target: int) -> Graph:
    """One step of one hypothesis, with room for ``target`` of them.

    Inputs: ``input_ids`` int32 [1, 1], the last token; ``position`` int32 [1, 1], the number of steps before;
    ``slot`` fp32 [1, 1, 1, target], 1 at the position and 0 elsewhere; ``target_mask`` fp32 [1, 1, 1, target], 0 up to
    the position and a large negative number behind it; ``source_mask``, ``cross_key.N``, ``cross_value.N`` as the
    encoder has them; ``past_key.N`` [1, heads, head size, target] and ``past_value.N`` [1, heads, target, head size],
    zeros before the first step. Outputs: ``logits`` [1, V]; ``present_key.N`` and ``present_value.N``, the same with
    this step's at the position.

    What a step adds is written where zeros are: a product with ``slot`` and a sum, which every provider has.
    """
    writer.rounded.clear()
    config = writer.checkpoint.config
    heads, width = config.decoder_attention_heads, config.d_model
    size = width // heads
    layers = range(config.decoder_layers)
    ids = graph.input("input_ids", INT32, [1, 1])
    position = graph.input("position", INT32, [1, 1])
    slot = graph.input("slot", FLOAT, [1, 1, 1, target])
    mask = graph.input("target_mask", FLOAT, [1, 1, 1, target])
    source_mask = graph.input("source_mask", FLOAT, [1, 1, 1, source])
    cross = [
        (
            graph.input(f"cross_key.{index}", FLOAT, [1, heads, size, source]),
            graph.input(f"cross_value.{index}", FLOAT, [1, heads, source, size]),
        )
        for index in layers
    ]
    past = [
        (
            graph.input(f"past_key.{index}", FLOAT, [1, heads, size, target]),
            graph.input(f"past_value.{index}", FLOAT, [1, heads, target, size]),
        )
        for index in layers
    ]
    column = graph.op("Reshape", slot, graph.i64(1, 1, target, 1))
    table = writer.positions(graph, "decoder", target)
    where = graph.op("Reshape", graph.op("Gather", table, position), graph.i64(1, width))
    x = graph.op("Add", writer.embed(graph, ids, "decoder"), where)
    presents = []
    for index in layers:
        prefix = f"model.decoder.layers.{index}"
        projected = writer.linear(graph, x, attention_group(prefix, wide=False))
        query, key, value = graph.ops("Split", projected, outputs=3, axis=-1, num_outputs=3)
        row = graph.i64(1, heads, 1, size)
        query = graph.op("Reshape", writer.scaled_query(graph, query, heads), row)
        key = graph.op("Mul", graph.op("Reshape", key, graph.i64(1, heads, size, 1)), slot)
        value = graph.op("Mul", graph.op("Reshape", value, row), column)
        keys, values = graph.op("Add", past[index][0], key), graph.op("Add", past[index][1], value)
        presents += [(keys, f"present_key.{index}", [1, heads, size, target])]
        presents += [(values, f"present_value.{index}", [1, heads, target, size])]
        attended = writer.attend(graph, query, keys, values, mask, heads)
        attended = graph.op("Reshape", attended, graph.i64(1, width))
        norm = f"{prefix}.self_attn_layer_norm"
        x = writer.residual(graph, x, attended, f"{prefix}.self_attn.out_proj", norm, wide=False)
        query = writer.linear(graph, x, Group((f"{prefix}.encoder_attn.q_proj",), wide=False))
        query = graph.op("Reshape", writer.scaled_query(graph, query, heads), row)
        attended = writer.attend(graph, query, *cross[index], source_mask, heads)
        attended = graph.op("Reshape", attended, graph.i64(1, width))
        norm = f"{prefix}.encoder_attn_layer_norm"
        x = writer.residual(graph, x, attended, f"{prefix}.encoder_attn.out_proj", norm, wide=False)
        x = writer.feed_forward(graph, x, prefix, wide=False)
    logits = writer.linear(graph, x, Group((OUTPUT,), wide=False))
    rename(graph, logits, "logits", FLOAT, [1, config.decoder_vocab_size])
    for value, name, shape in presents:
        rename(graph, value, name, FLOAT, list(shape))
    return graph


def _heads(graph: Graph, x: str, tokens: int, heads: int, order: list[int]) -> str:
    """[tokens, d_model] -> [1, tokens, heads, size], its axes in another order."""
    return graph.op("Transpose", graph.op("Reshape", x, graph.i64(1, tokens, heads, -1)), perm=order)
