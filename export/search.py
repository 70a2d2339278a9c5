"""translator.onnx: ids in, ids out, one sentence and a beam; semantics of transformers' ``generate`` (4.57).

The whole search is one ONNX ``Loop``. A step does only what the next one depends on: it picks the hypotheses that go
on, and keeps the scores of those that ended, for the rule when to stop. Which hypotheses ended where, and what they
consist of, is worked out once, after the loop, on the choices of all steps. Several sentences would need masks for
limits and ends in every step, and wait for the longest; so each goes through alone.
"""

from __future__ import annotations

import numpy as np

from mobilenmt.export.candidates import write_candidates, write_logits
from mobilenmt.export.decoder import write_step
from mobilenmt.export.encoder import write_encoder
from mobilenmt.export.graph import BOOL, FLOAT, INT64, Graph
from mobilenmt.export.greedy import cache_shape, steps_to_make, write_ban, write_early
from mobilenmt.export.hypotheses import NEVER, Steps, write_results
from mobilenmt.export.layers import ModelWriter, dimension, join
from mobilenmt.export.precision import Use

_DEAD = -1.0e9  # the score transformers gives to a hypothesis that may not be chosen
_PHASE = 8
"""Steps after which keys and values that no hypothesis continues are let go."""
_CHOSEN = ("scores", "index", "chosen", "parents")
_CHOSEN_KINDS = (FLOAT, INT64, INT64, INT64)


def build_translator(writer: ModelWriter, graph: Graph) -> Graph:
    """Emit translator.onnx.

    Inputs: ``input_ids`` int64 [1, S]; ``max_length`` and ``min_length`` int64 [1], the start token counted, as in
    ``generate``; ``beam_size`` int64 [1], 2 at least; ``length_penalty`` fp32 [1]. Outputs: ``sequences`` int64
    [1, K, T], best first, without the start token, filled up with the pad token; ``scores`` fp32 [1, K]: the sum of
    log-probabilities over (generated tokens)^length_penalty.

    One hypothesis is the business of greedy.onnx (:mod:`mobilenmt.export.greedy`).
    """
    config, generation = writer.checkpoint.config, writer.checkpoint.generation
    ids = graph.input("input_ids", INT64, [1, "source"])
    max_length = graph.input("max_length", INT64, [1])
    min_length = graph.input("min_length", INT64, [1])
    beams = graph.input("beam_size", INT64, [1])
    penalty = graph.input("length_penalty", FLOAT, [1])

    encoded = write_encoder(writer, graph, ids, "")
    candidates = write_candidates(writer, graph, ids, Use.STEPS)
    ban = None if writer.shortlist else write_ban(graph, generation.bad_token_ids, candidates)
    last = graph.op("Sub", max_length, graph.i64(1))  # T: most tokens to generate
    most = steps_to_make(writer, graph, max_length)
    steps = graph.op("Squeeze", most)
    positions = writer.positions(graph, "decoder", most)
    double = graph.op("Mul", beams, graph.i64(2))
    zero, one = graph.constant(0, np.int64), graph.constant(1, np.int64)
    first = graph.op("Less", graph.op("Range", zero, graph.op("Squeeze", double), one), beams)  # [2K]
    early = write_early(graph, steps, min_length)
    end = graph.op("Expand", candidates.end, join(graph, graph.i64(1), beams, graph.i64(1)))
    early = graph.op("Expand", early, join(graph, most, graph.i64(1), beams, graph.i64(1)))
    norms, bounds = _norms(graph, steps, last, penalty, generation.early_stopping)
    own = _own_entries(graph, beams)
    parts = [f"past_{part}.{index}" for index in range(config.decoder_layers) for part in ("key", "value")]

    counter = graph.op("Range", zero, graph.op("Squeeze", beams), one)
    initial = graph.op("Where", graph.op("Equal", counter, zero), graph.f32(0), graph.f32(_DEAD))  # [K]
    start = graph.op(
        "Expand", graph.constant(config.decoder_start_token_id, np.int64), join(graph, graph.i64(1), beams)
    )
    dead = graph.op("Expand", graph.f32(_DEAD), beams)
    ancestry = graph.op("ConstantOfShape", join(graph, graph.i64(1, 1), beams, graph.i64(0)))
    empty = graph.op("ConstantOfShape", graph.i64(1, *cache_shape(writer)))

    initial_state = [start, initial, dead, ancestry, *(empty for _ in parts)]
    names = ["tokens", "running", "ended", "ancestors", *parts]
    kinds = [INT64, *(FLOAT for _ in names[1:])]

    phase = graph.body("phase", home=True)
    phase.input("phase_number", INT64, [])
    phase.input("phase_go_on", BOOL, [])
    done = phase.input("done", INT64, [])
    before = [phase.input(f"all_{name}", kind) for name, kind in zip(_CHOSEN, _CHOSEN_KINDS, strict=True)]
    held = [phase.input(f"held_{name}", kind) for name, kind in zip(names, kinds, strict=True)]

    body = phase.body("step")
    iteration = body.input("iteration", INT64, [])
    body.input("go_on", BOOL, [])
    tokens, running, ended, ancestors, *past = (body.input(name, kind) for name, kind in zip(names, kinds, strict=True))
    place = body.op("Add", iteration, done)
    ancestors = body.op("Concat", ancestors, own, axis=3)
    position = body.op("Gather", positions, place)
    step = write_step(writer, body, tokens, position, past[0::2], past[1::2], encoded, Use.STEPS, ancestry=ancestors)
    scores = body.op("LogSoftmax", write_logits(writer, body, step.state, candidates, Use.STEPS), axis=-1)
    scores = body.op("Add", scores, ban) if ban else scores
    now = body.op("Gather", early, place)
    scores = body.op("ScatterElements", scores, end, now, axis=2, reduction="add")
    if generation.renormalize_logits:
        scores = body.op("LogSoftmax", scores, axis=-1)
    scores = body.op("Add", scores, body.op("Unsqueeze", running, body.i64(0, 2)))  # [1, K, n]
    scores, index = body.ops("TopK", body.op("Reshape", scores, body.i64(-1)), double, outputs=2, axis=0)
    candidate = body.op("Mod", index, candidates.count)
    ends = body.op("Equal", candidate, candidates.end)  # [2K]
    alive = body.op("Where", ends, body.f32(_DEAD), scores)
    running, chosen = body.ops("TopK", alive, beams, outputs=2, axis=0)
    following = candidates.token(body, body.op("Gather", candidate, chosen))
    parents = body.op("Div", body.op("Gather", index, chosen), candidates.count)
    # The K best that have ended so far, for the rule when to stop.
    norm = body.op("Gather", norms, place)
    finished = body.op("Where", body.op("And", ends, first), body.op("Div", scores, norm), body.f32(_DEAD))
    ended, _ = body.ops("TopK", body.op("Concat", ended, finished, axis=0), beams, outputs=2, axis=0)
    bound = norm if bounds == norms else body.op("Gather", bounds, place)
    body.output(_improvable(body, running, ended, bound, generation.early_stopping), BOOL)
    moved = body.op("Gather", ancestors, parents, axis=2)
    present = [value for pair in zip(step.keys, step.values, strict=True) for value in pair]
    state = [body.op("Unsqueeze", following, body.i64(0)), running, ended, moved, *present]
    for value, kind in zip([*state, scores, index, following, parents], [*kinds, *_CHOSEN_KINDS], strict=True):
        body.output(value, kind)

    yes = graph.constant(True, np.bool_)
    count = phase.op("Min", phase.op("Sub", steps, done), phase.constant(_PHASE, np.int64))
    results = phase.ops("Loop", count, yes, *held, outputs=len(held) + len(before), body=body.to_graph())
    after = [phase.op("Concat", old, new, axis=0) for old, new in zip(before, results[-len(before) :], strict=True)]
    until = phase.op("Squeeze", dimension(phase, after[0], 0))
    bound = phase.op("Gather", bounds, phase.op("Sub", until, one))
    going = _improvable(phase, results[1], results[2], bound, generation.early_stopping)
    phase.output(phase.op("And", going, phase.op("Less", until, steps)), BOOL)
    phase.output(until, INT64)
    for value, kind in zip(after, _CHOSEN_KINDS, strict=True):
        phase.output(value, kind)
    # What no hypothesis continues any more is let go: the beam's K entries a step are mostly dead ends.
    live = phase.op("Greater", phase.op("ReduceMax", results[3], phase.i64(0, 1, 2), keepdims=0), phase.f32(-1))
    live = phase.op("Squeeze", phase.op("NonZero", live), phase.i64(0))
    kept = [phase.op("Gather", results[3], live, axis=3)]
    kept += [phase.op("Gather", cache, live, axis=2) for cache in results[4 : len(held)]]
    for value, kind in zip([*results[:3], *kept], kinds, strict=True):
        phase.output(value, kind)

    none = [graph.op("ConstantOfShape", join(graph, graph.i64(0), size)) for size in (double, double, beams, beams)]
    none[1:] = [graph.op("Cast", value, to=INT64) for value in none[1:]]
    final = graph.ops(
        "Loop", steps, yes, zero, *none, *initial_state, outputs=1 + len(none) + len(held), body=phase.to_graph()
    )
    found = Steps(*final[1:5])
    open_ = _still_open(graph, final[6], final[7], initial, found, last, bounds, generation.early_stopping)
    write_results(writer, graph, found, open_, candidates, first, last, penalty)
    return graph


def _norms(graph: Graph, steps: str, last: str, penalty: str, early_stopping: bool | str) -> tuple[str, str]:
    """For each of the scalar ``steps``, fp32 [steps]: (generated tokens)^penalty, and the same for the best that a
    hypothesis may still become (``_check_early_stop_heuristic``)."""
    one = graph.constant(1, np.int64)
    counts = graph.op("Cast", graph.op("Range", one, graph.op("Add", steps, one), one), to=FLOAT)
    norms = graph.op("Pow", counts, penalty)
    if early_stopping != "never":
        return norms, norms
    positive = graph.op("Greater", penalty, graph.f32(0))
    longest = graph.op("Where", positive, graph.op("Cast", last, to=FLOAT), counts)
    return norms, graph.op("Pow", longest, penalty)


def _own_entries(graph: Graph, beams: str) -> str:
    """What a step adds to the ancestry, [1, 1, K, K]: each hypothesis continues its own entry of this step."""
    zero = graph.op("ConstantOfShape", join(graph, beams, beams))
    own = graph.op("Greater", graph.op("EyeLike", zero), graph.f32(0.5))
    return graph.op("Unsqueeze", graph.op("Where", own, graph.f32(0), graph.f32(NEVER)), graph.i64(0, 1))


def _improvable(graph: Graph, running: str, ended: str, bound: str, early_stopping: bool | str) -> str:
    """bool [1]: could a running hypothesis still beat the worst of the K that ended (fp32 [K] both, best first)?"""
    best = graph.op("Div", graph.op("Gather", running, graph.i64(0)), bound)
    worst = graph.op("Gather", ended, graph.i64(-1))
    better = graph.op("Greater", best, worst)
    if early_stopping is not True:
        return better
    return graph.op("And", better, graph.op("Less", worst, graph.f32(_DEAD / 2)))  # not before there are K


def _still_open(
    graph: Graph,
    running: str,
    ended: str,
    initial: str,
    found: Steps,
    last: str,
    bounds: str,
    early_stopping: bool | str,
) -> str:
    """fp32 [K]: sums of log-probabilities of the hypotheses that the limit ends, -inf if the search was over before."""
    made = dimension(graph, found.scores, 0)
    at_limit = graph.op("Equal", made, graph.op("Sub", last, graph.i64(1)))
    bound = graph.op("Gather", bounds, graph.op("Sub", made, graph.i64(1)))
    going = graph.op("And", at_limit, _improvable(graph, running, ended, bound, early_stopping))
    only = graph.op("Equal", last, graph.i64(1))  # nothing but the forced token is generated
    return graph.op("Where", only, initial, graph.op("Where", going, running, graph.f32(NEVER)))
