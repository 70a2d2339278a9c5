"""translator.onnx: ids in, ids out. The encoder, and the whole beam search as one ONNX ``Loop``."""

from __future__ import annotations

import numpy as np

from mobilenmt.export.decoder import write_step
from mobilenmt.export.encoder import rename, write_encoder
from mobilenmt.export.graph import BOOL, FLOAT, INT64, Graph
from mobilenmt.export.layers import ModelWriter, dimension, join
from mobilenmt.export.precision import Use
from mobilenmt.export.search import STATE_TYPES, Limits, SearchWriter, State, write_sequences
from mobilenmt.export.shortlist import write_candidates, write_logits


def build_translator(writer: ModelWriter, graph: Graph) -> Graph:
    """Emit translator.onnx.

    Inputs: ``input_ids`` int64 [B, S] padded on the right, ``lengths`` int64 [B]; ``max_length`` and ``min_length``
    int64 [B], the start token counted, as in ``generate``; ``beam_size`` int64 [1], 2 at least; ``length_penalty`` fp32
    [1]. Outputs: ``sequences`` int64 [B, K, T], best first, without the start token, filled up with the pad token;
    ``scores`` fp32 [B, K]: the sum of log-probabilities over (generated tokens)^length_penalty.

    One hypothesis is the business of greedy.onnx (:mod:`mobilenmt.export.greedy`): to choose between both in every
    step would cost a tenth of its time.
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
    candidates = write_candidates(writer, graph, ids)
    batch = dimension(graph, ids, 0)
    initial = _initial_state(graph, config.decoder_start_token_id, batch, beams)
    heads = config.decoder_attention_heads
    empty_shape = join(graph, batch, graph.i64(heads, 0, config.d_model // heads))
    empty = graph.op("ConstantOfShape", empty_shape, value=_scalar_tensor(0.0))
    caches = [empty for _ in layers for _ in "kv"]
    ancestry = graph.op(
        "ConstantOfShape", join(graph, batch, graph.i64(1), beams, graph.i64(0)), value=_scalar_tensor(0.0)
    )
    own = _own_entries(graph, batch, beams)

    double = graph.op("Mul", beams, graph.i64(2))
    zero, one = graph.constant(0, np.int64), graph.constant(1, np.int64)
    first = graph.op("Less", graph.op("Range", zero, graph.op("Squeeze", double), one), beams)
    first = graph.op("Unsqueeze", first, graph.i64(0))

    search = SearchWriter(writer.checkpoint, candidates)
    early, only, only_scores = search.prepare(graph, batch, beams, min_length, steps)

    body = graph.body("step")
    iteration = body.input("iteration", INT64, [])
    body.input("go_on", BOOL, [])
    state = State(*(body.input(f"state_{name}", kind) for name, kind in zip(_names(), STATE_TYPES, strict=True)))
    ancestors = body.input("ancestors", FLOAT)
    past = [body.input(f"past_{part}.{index}", FLOAT) for index in layers for part in ("key", "value")]
    position = body.op("Gather", positions, iteration)
    ancestors = body.op("Concat", ancestors, own, axis=3)
    keys, values = past[0::2], past[1::2]
    step = write_step(writer, body, state.tokens, position, keys, values, encoded, Use.STEPS, ancestry=ancestors)
    logits = write_logits(writer, body, step.state, candidates)
    length = body.op("Add", iteration, one)
    early = early and body.op("Gather", early, iteration)
    limits = Limits(max_length, min_length, beams, penalty, length, first, early, only, only_scores)
    choice = search.beam(body, state, limits, logits)
    moved = _move(body, ancestors, choice.parents)
    present = [value for pair in zip(step.keys, step.values, strict=True) for value in pair]
    after = choice.state.names()
    results = [choice.going, *after, moved, *present, body.op("Identity", after[0]), choice.parents]
    kinds = (BOOL, *STATE_TYPES, FLOAT, *(FLOAT for _ in present), INT64, INT64)
    for value, kind in zip(results, kinds, strict=True):
        body.output(value, kind)

    final = graph.ops(
        "Loop",
        graph.op("Squeeze", steps),
        graph.constant(True, np.bool_),
        *initial.names(),
        ancestry,
        *caches,
        outputs=len(results) - 1,
        body=body.to_graph(),
    )
    last = State(*final[: len(STATE_TYPES)])
    sequences = write_sequences(writer.checkpoint, graph, last.ended, final[-2], final[-1], beams)
    rename(graph, sequences, "sequences", INT64, ["batch", "beams", "target"])
    rename(graph, last.ended_scores, "scores", FLOAT, ["batch", "beams"])
    return graph


def _move(graph: Graph, ancestors: str, parents: str) -> str:
    """The ancestry [B, 1, K, n] of the hypotheses that continue ``parents`` [B, K]."""
    shape = graph.op("Shape", ancestors)
    index = graph.op("Expand", graph.op("Unsqueeze", parents, graph.i64(1, 3)), shape)
    return graph.op("GatherElements", ancestors, index, axis=2)


def _initial_state(graph: Graph, start: int, batch: str, beams: str) -> State:
    """Every hypothesis is the start token; only the first of each sentence has a score above -1e9."""
    shape = join(graph, batch, beams)
    tokens = graph.op("Expand", graph.constant(start, np.int64), shape)
    counter = graph.op("Range", graph.constant(0, np.int64), graph.op("Squeeze", beams), graph.constant(1, np.int64))
    first = graph.op("Where", graph.op("Equal", counter, graph.i64(0)), graph.f32(0), graph.f32(-1.0e9))
    scores = graph.op("Expand", first, shape)
    ended = graph.op("Expand", graph.constant(0, np.int64), shape)
    ended_scores = graph.op("Expand", graph.f32(-1.0e9), shape)
    no = graph.op("Expand", graph.constant(False, np.bool_), shape)
    active = graph.op("Expand", graph.constant(True, np.bool_), batch)
    return State(tokens, scores, ended, ended_scores, no, active)


def _own_entries(graph: Graph, batch: str, beams: str) -> str:
    """What a step adds to the ancestry, [B, 1, K, K]: each hypothesis continues its own entry of this step."""
    zero = graph.op("ConstantOfShape", join(graph, beams, beams), value=_scalar_tensor(0.0))
    own = graph.op("Greater", graph.op("EyeLike", zero), graph.f32(0.5))
    square = graph.op("Where", own, graph.f32(0), graph.f32(float("-inf")))
    return graph.op("Expand", square, join(graph, batch, graph.i64(1), beams, beams))


def _names() -> list[str]:
    return list(State.__dataclass_fields__)


def _scalar_tensor(value: float) -> object:
    from onnx import numpy_helper

    return numpy_helper.from_array(np.array([value], np.float32))
