"""translator.onnx: ids in, ids out. The encoder, and the whole greedy or beam search as one ONNX ``Loop``."""

from __future__ import annotations

import numpy as np

from mobilenmt.export.decoder import write_step
from mobilenmt.export.encoder import rename, write_encoder
from mobilenmt.export.graph import BOOL, FLOAT, INT64, Graph
from mobilenmt.export.layers import ModelWriter, dimension, join
from mobilenmt.export.search import STATE_TYPES, Limits, SearchWriter, State


def build_translator(writer: ModelWriter, graph: Graph) -> Graph:
    """Emit translator.onnx.

    Inputs: ``input_ids`` int64 [B, S] padded on the right, ``lengths`` int64 [B]; ``max_length`` and ``min_length``
    int64 [B], the start token counted, as in ``generate``; ``beam_size`` int64 [1] (1: greedy); ``length_penalty`` fp32
    [1]. Outputs: ``sequences`` int64 [B, K, T], best first, without the start token, filled up with the pad token;
    ``scores`` fp32 [B, K]: the sum of log-probabilities over (generated tokens)^length_penalty.

    Greedy and beam search share one decoder inside the loop, so its weights are held in memory once.
    """
    config = writer.checkpoint.config
    layers = range(config.decoder_layers)
    ids = graph.input("input_ids", INT64, ["batch", "source"])
    lengths = graph.input("lengths", INT64, ["batch"])
    max_length = graph.input("max_length", INT64, ["batch"])
    min_length = graph.input("min_length", INT64, ["batch"])
    beams = graph.input("beam_size", INT64, [1])
    penalty = graph.input("length_penalty", FLOAT, [1])

    encoded = write_encoder(writer, graph, ids, lengths)
    steps = graph.op("Sub", graph.op("ReduceMax", max_length, keepdims=1), graph.i64(1))
    positions = writer.positions(graph, "decoder", steps)
    batch = dimension(graph, ids, 0)
    grouped = join(graph, batch, beams, graph.i64(config.d_model))
    use_beams = graph.op("Squeeze", graph.op("Greater", beams, graph.i64(1)))
    initial = _initial_state(graph, config.decoder_start_token_id, batch, beams)
    rows = graph.op("Mul", batch, beams)
    heads = config.decoder_attention_heads
    empty_shape = join(graph, rows, graph.i64(heads, 0, config.d_model // heads))
    empty = graph.op("ConstantOfShape", empty_shape, value=_scalar_tensor(0.0))
    caches = [empty for _ in layers for _ in "kv"]

    body = graph.body("step")
    iteration = body.input("iteration", INT64, [])
    body.input("go_on", BOOL, [])
    state = State(*(body.input(f"state_{name}", kind) for name, kind in zip(_names(), STATE_TYPES, strict=True)))
    past = [body.input(f"past_{part}.{index}", FLOAT) for index in layers for part in ("key", "value")]
    tokens = body.op("Reshape", state.tokens, body.i64(-1, 1))
    position = body.op("Gather", positions, body.op("Unsqueeze", iteration, body.i64(0)))
    step = write_step(writer, body, tokens, position, past[0::2], past[1::2], encoded, grouped)
    present = [value for pair in zip(step.keys, step.values, strict=True) for value in pair]
    length = body.op("Add", iteration, body.constant(1, np.int64))
    limits = Limits(max_length, min_length, beams, penalty, length)
    results = _choose(writer, body, use_beams, state, limits, step.logits, present)
    kinds = (BOOL, *STATE_TYPES, *(FLOAT for _ in present))
    for value, kind in zip(results, kinds, strict=True):
        body.output(value, kind)

    final = graph.ops(
        "Loop",
        graph.op("Squeeze", steps),
        graph.constant(True, np.bool_),
        *initial.names(),
        *caches,
        outputs=len(STATE_TYPES) + len(caches),
        body=body.to_graph(),
    )
    last = State(*final[: len(STATE_TYPES)])
    sequences = graph.op("Slice", last.finished, graph.i64(1), graph.i64(2**31), graph.i64(2))
    rename(graph, sequences, "sequences", INT64, ["batch", "beams", "target"])
    rename(graph, last.finished_scores, "scores", FLOAT, ["batch", "beams"])
    return graph


def _choose(
    writer: ModelWriter, body: Graph, use_beams: str, state: State, limits: Limits, logits: str, present: list[str]
) -> list[str]:
    """Emit If(beams > 1): beam step, else greedy step. Returns "go on", the next state and the caches."""
    search = SearchWriter(writer.checkpoint)
    kinds = (BOOL, *STATE_TYPES, *(FLOAT for _ in present))

    beam = body.body("beam_step")
    after, rows, going = search.beam(beam, state, limits, logits)
    caches = [beam.op("Gather", cache, rows) for cache in present]
    for value, kind in zip((going, *after.names(), *caches), kinds, strict=True):
        beam.output(value, kind)

    greedy = body.body("greedy_step")
    after, going = search.greedy(greedy, state, limits, logits)
    caches = [greedy.op("Identity", cache) for cache in present]
    for value, kind in zip((going, *after.names(), *caches), kinds, strict=True):
        greedy.output(value, kind)
    return body.ops("If", use_beams, outputs=len(kinds), then_branch=beam.to_graph(), else_branch=greedy.to_graph())


def _initial_state(graph: Graph, start: int, batch: str, beams: str) -> State:
    """Every hypothesis is the start token; only the first of each sentence has a score above -1e9."""
    shape = join(graph, batch, beams)
    longer = join(graph, shape, graph.i64(1))
    tokens = graph.op("Expand", graph.constant(start, np.int64), shape)
    running = graph.op("Expand", graph.constant(start, np.int64), longer)
    counter = graph.op("Range", graph.constant(0, np.int64), graph.op("Squeeze", beams), graph.constant(1, np.int64))
    first = graph.op("Where", graph.op("Equal", counter, graph.i64(0)), graph.f32(0), graph.f32(-1.0e9))
    scores = graph.op("Expand", first, shape)
    finished_scores = graph.op("Expand", graph.f32(-1.0e9), shape)
    no = graph.op("Expand", graph.constant(False, np.bool_), shape)
    active = graph.op("Expand", graph.constant(True, np.bool_), batch)
    return State(tokens, running, scores, running, finished_scores, no, active)


def _names() -> list[str]:
    return list(State.__dataclass_fields__)


def _scalar_tensor(value: float) -> object:
    from onnx import numpy_helper

    return numpy_helper.from_array(np.array([value], np.float32))
