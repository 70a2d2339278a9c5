"""batch.onnx: as greedy.onnx for many sentences together; those that have ended leave the batch.

Sentences of one length end at very different lengths, and a step costs nearly as much as it has rows. So the search
runs in phases: one ends when a third of its sentences has, and the next goes on with the others.
"""

from __future__ import annotations

import numpy as np

from mobilenmt.export.encoder import Encoded, write_encoder
from mobilenmt.export.graph import BOOL, FLOAT, INT32, INT64, Graph
from mobilenmt.export.greedy import Picker, cache_shape, steps_to_make, write_early, write_results
from mobilenmt.export.layers import ModelWriter, dimension, join
from mobilenmt.export.precision import Use

_STAY = (2, 3)  # a phase goes on while more than this share of its sentences has not ended


def build_batch(writer: ModelWriter, graph: Graph) -> Graph:
    """Emit batch.onnx.

    Inputs: ``input_ids`` int64 [B, S] padded on the right, ``lengths`` int64 [B]; ``max_length`` int64 [B] and
    ``min_length`` int64 [1], the start token counted; ``length_penalty`` fp32 [1]. Outputs: ``sequences`` int64
    [B, 1, T] and ``scores`` fp32 [B, 1], as greedy.onnx has them.
    """
    config = writer.checkpoint.config
    ids = graph.input("input_ids", INT64, ["batch", "source"])
    lengths = graph.input("lengths", INT64, ["batch"])
    max_length = graph.input("max_length", INT64, ["batch"])
    min_length = graph.input("min_length", INT64, [1])
    penalty = graph.input("length_penalty", FLOAT, [1])

    encoded = write_encoder(writer, graph, ids, lengths)
    picker = Picker.of(writer, graph, ids, Use.STEPS)
    most = steps_to_make(writer, graph, max_length)
    steps = graph.op("Squeeze", most)
    positions = writer.positions(graph, "decoder", most)
    early = write_early(graph, steps, min_length)
    batch = dimension(graph, ids, 0)
    column = join(graph, batch, graph.i64(1))
    zero, one = graph.constant(0, np.int64), graph.constant(1, np.int64)
    start = graph.op("Expand", graph.constant(config.decoder_start_token_id, np.int64), column)
    unseen = graph.op("Expand", one, column)
    rows = graph.op("Range", zero, graph.op("Squeeze", batch), one)
    empty = graph.op("ConstantOfShape", join(graph, batch, graph.i64(*cache_shape(writer))))
    size = join(graph, graph.op("Mul", most, batch))
    tokens = graph.op("Expand", graph.constant(config.pad_token_id, np.int64), size)
    scores = graph.op("Expand", graph.f32(0), size)
    caches = [f"past_{part}.{index}" for index in range(config.decoder_layers) for part in ("key", "value")]
    memory = [f"cross_{part}.{index}" for index in range(config.decoder_layers) for part in ("key", "value")]
    attended = [value for pair in zip(encoded.keys, encoded.values, strict=True) for value in pair]
    per_row = {
        "token": (start, INT64),
        "seen": (unseen, INT64),
        "row": (rows, INT64),
        "mask": (encoded.mask, INT32),
        **dict.fromkeys(caches, (empty, FLOAT)),
        **{name: (value, FLOAT) for name, value in zip(memory, attended, strict=True)},
    }

    phase = graph.body("phase", home=True)
    phase.input("phase_number", INT64, [])
    phase.input("phase_go_on", BOOL, [])
    done = phase.input("done", INT64, [])
    all_tokens, all_scores = phase.input("all_tokens", INT64), phase.input("all_scores", FLOAT)
    state = {name: phase.input(name, kind) for name, (_, kind) in per_row.items()}
    held = Encoded("", state["mask"], [state[name] for name in memory[0::2]], [state[name] for name in memory[1::2]])
    count = dimension(phase, state["row"], 0)
    stay = phase.op("Div", phase.op("Mul", count, phase.i64(_STAY[0])), phase.i64(_STAY[1]))
    stay = phase.op("Cast", phase.op("Squeeze", stay), to=FLOAT)
    end = phase.op("Expand", picker.candidates.end, join(phase, count, phase.i64(1, 1)))
    before = phase.op("Expand", phase.op("Cast", done, to=INT32), count)

    body = phase.body("step")
    iteration = body.input("iteration", INT64, [])
    body.input("go_on", BOOL, [])
    token, seen = body.input("step_token", INT64), body.input("step_seen", INT64)
    number = body.input("before", INT32)
    past = [body.input(f"step_{name}", FLOAT) for name in caches]
    place = body.op("Add", iteration, done)
    position, now = body.op("Gather", positions, place), body.op("Gather", early, place)
    now = body.op("Expand", now, body.op("Shape", end))
    after = body.op("Add", number, body.constant(1, np.int32))
    counts = (number, body.op("ReduceMax", after, keepdims=0))
    picked = picker.write(body, held, token, position, past, counts, end, now)
    if config.eos_token_id == 0:  # the end is the smallest id, so the minimum of all tokens so far tells
        still = body.op("Min", seen, picked.token)
    else:
        ended = body.op("Equal", picked.token, body.constant(config.eos_token_id, np.int64))
        still = body.op("Where", ended, zero, seen)
    active = body.op("Cast", body.op("Cast", still, to=BOOL), to=FLOAT)
    going = body.op("Greater", body.op("ReduceSum", active, keepdims=0), stay)
    outputs = [going, picked.token, still, after, *picked.present, picked.index, picked.score]
    kinds = [BOOL, INT64, INT64, INT32, *(FLOAT for _ in caches), INT64, FLOAT]
    for value, kind in zip(outputs, kinds, strict=True):
        body.output(value, kind)

    yes = graph.constant(True, np.bool_)
    inputs = [state["token"], state["seen"], before, *(state[name] for name in caches)]
    left = phase.op("Sub", steps, done)
    results = phase.ops("Loop", left, yes, *inputs, outputs=len(inputs) + 2, body=body.to_graph())
    made = dimension(phase, results[-2], 0)
    until = phase.op("Add", done, phase.op("Squeeze", made))
    times = phase.op("Unsqueeze", phase.op("Range", done, until, one), phase.i64(1))
    target = phase.op("Add", phase.op("Mul", times, batch), state["row"])  # [steps of this phase, B]
    target = phase.op("Reshape", target, phase.i64(-1))
    chosen = picker.candidates.token(phase, phase.op("Reshape", results[-2], phase.i64(-1)))
    all_tokens = phase.op("ScatterElements", all_tokens, target, chosen, axis=0)
    value = phase.op("Reshape", results[-1], phase.i64(-1))
    all_scores = phase.op("ScatterElements", all_scores, target, value, axis=0)
    state.update(zip(("token", "seen"), results[:2], strict=True))
    state.update(zip(caches, results[3:-2], strict=True))
    keep = phase.op("Squeeze", phase.op("NonZero", phase.op("Squeeze", state["seen"], phase.i64(1))), phase.i64(0))
    more = phase.op("Greater", phase.op("Squeeze", dimension(phase, keep, 0)), zero)
    phase.output(phase.op("And", more, phase.op("Less", until, steps)), BOOL)
    phase.output(until, INT64)
    phase.output(all_tokens, INT64)
    phase.output(all_scores, FLOAT)
    for name, value in state.items():
        phase.output(phase.op("Gather", value, keep, axis=0), per_row[name][1])

    initial = [zero, tokens, scores, *(value for value, _ in per_row.values())]
    final = graph.ops("Loop", steps, yes, *initial, outputs=len(initial), body=phase.to_graph())
    shape = join(graph, most, batch)
    tokens, scores = (graph.op("Transpose", graph.op("Reshape", part, shape), perm=[1, 0]) for part in final[1:3])
    write_results(writer, graph, tokens, scores, max_length, penalty)
    return graph
