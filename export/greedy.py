"""greedy.onnx: ids in, ids out, one hypothesis a sentence, with as few nodes a step as it takes.

A step of the general search (:mod:`mobilenmt.export.loop`) runs fifty small nodes after the logits, which for one
sentence take as long as the matrices. Here a step only picks a token; what the choice means (limits, forced ends,
scores) is worked out once, after the loop, on the tokens of all steps.
"""

from __future__ import annotations

import numpy as np

from mobilenmt.export.decoder import write_step
from mobilenmt.export.encoder import rename, write_encoder
from mobilenmt.export.graph import BOOL, FLOAT, INT32, INT64, Graph
from mobilenmt.export.layers import ModelWriter, dimension, join
from mobilenmt.export.precision import Use
from mobilenmt.export.search import write_early
from mobilenmt.export.shortlist import Candidates, write_candidates, write_logits

_NEVER = float("-inf")


def build_greedy(writer: ModelWriter, graph: Graph) -> Graph:
    """Emit greedy.onnx: the inputs and outputs of translator.onnx without ``beam_size``, for K = 1.

    Scores are those of ``compute_transition_scores(normalize_logits=True)``, summed over the candidates' softmax.
    """
    config, generation = writer.checkpoint.config, writer.checkpoint.generation
    ids = graph.input("input_ids", INT64, ["batch", "source"])
    lengths = graph.input("lengths", INT64, ["batch"])
    max_length = graph.input("max_length", INT64, ["batch"])
    min_length = graph.input("min_length", INT64, ["batch"])
    penalty = graph.input("length_penalty", FLOAT, [1])

    encoded = write_encoder(writer, graph, ids, lengths)
    rows, banned = _usable_rows(config.decoder_vocab_size, generation.bad_token_ids)
    candidates = write_candidates(writer, graph, ids, rows=rows)
    last = graph.op("Sub", graph.op("ReduceMax", max_length, keepdims=1), graph.i64(1))
    positions = writer.positions(graph, "decoder", last)
    steps = graph.op("Squeeze", last)
    one, zero = graph.constant(1, np.int64), graph.constant(0, np.int64)
    counter = graph.op("Unsqueeze", graph.op("Range", zero, steps, one), graph.i64(1))
    batch = dimension(graph, ids, 0)
    column = join(graph, batch, graph.i64(1))
    early = write_early(graph, steps, min_length)
    number = graph.op("Cast", counter, to=INT32)
    before = graph.op("Expand", number, join(graph, last, batch))  # [steps, B]
    after = graph.op("Squeeze", graph.op("Add", number, graph.constant(1, np.int32)), graph.i64(1))
    end = graph.op("Expand", candidates.end, join(graph, batch, graph.i64(1, 1)))
    ban = None if writer.shortlist else _ban(graph, banned, candidates)
    start = graph.op("Expand", graph.constant(config.decoder_start_token_id, np.int64), column)
    unseen = graph.op("Expand", graph.constant(1, np.int64), column)
    heads = config.decoder_attention_heads
    empty = graph.op("ConstantOfShape", join(graph, batch, graph.i64(heads, 0, config.d_model // heads)))
    layers = range(config.decoder_layers)

    body = graph.body("step")
    iteration = body.input("iteration", INT64, [])
    body.input("go_on", BOOL, [])
    token, seen = body.input("token", INT64), body.input("seen", INT64)
    past = [body.input(f"past_{part}.{index}", FLOAT) for index in layers for part in ("key", "value")]
    position = body.op("Gather", positions, iteration)
    counts = (body.op("Gather", before, iteration), body.op("Gather", after, iteration))
    step = write_step(writer, body, token, position, past[0::2], past[1::2], encoded, Use.STEP, lengths=counts)
    logits = write_logits(writer, body, step.state, candidates, rows=rows)
    if ban:
        logits = body.op("Add", logits, ban)
    logits = body.op("ScatterElements", logits, end, body.op("Gather", early, iteration), axis=2, reduction="add")
    scores = body.op("LogSoftmax", logits, axis=-1)
    score, index = body.ops("TopK", scores, body.i64(1), outputs=2, axis=-1)
    chosen = candidates.token(body, body.op("Reshape", index, body.i64(-1, 1)))
    if config.eos_token_id == 0:  # the end is the smallest id, so the minimum of all tokens so far tells
        still = body.op("Min", seen, chosen)
    else:
        still = body.op("Where", body.op("Equal", chosen, body.constant(config.eos_token_id, np.int64)), zero, seen)
    going = body.op("Cast", body.op("ReduceMax", still, keepdims=0), to=BOOL)
    present = [value for pair in zip(step.keys, step.values, strict=True) for value in pair]
    outputs = [going, chosen, still, *present, body.op("Identity", chosen), score]
    kinds = [BOOL, INT64, INT64, *(FLOAT for _ in present), INT64, FLOAT]
    for value, kind in zip(outputs, kinds, strict=True):
        body.output(value, kind)

    caches = [empty for _ in present]
    results = graph.ops(
        "Loop",
        steps,
        graph.constant(True, np.bool_),
        start,
        unseen,
        *caches,
        outputs=len(caches) + 4,
        body=body.to_graph(),
    )
    _write_results(writer, graph, results[-2], results[-1], max_length, penalty)
    return graph


def _write_results(writer: ModelWriter, graph: Graph, tokens: str, scores: str, max_length: str, penalty: str) -> None:
    """From the choices of every step, tokens [T, B, 1] and log-probabilities [T, B, 1, 1], to sequences and scores."""
    config = writer.checkpoint.config
    flat = graph.i64(0, -1)
    tokens = graph.op("Transpose", graph.op("Reshape", tokens, flat), perm=[1, 0])  # [B, T]
    scores = graph.op("Transpose", graph.op("Reshape", scores, flat), perm=[1, 0])
    count = graph.op("Squeeze", dimension(graph, tokens, 1))
    number = graph.op(
        "Range",
        graph.constant(1, np.int64),
        graph.op("Add", count, graph.constant(1, np.int64)),
        graph.constant(1, np.int64),
    )
    limit = graph.op("Unsqueeze", graph.op("Sub", max_length, graph.i64(1)), graph.i64(1))
    forced = writer.checkpoint.generation.forced_eos_token_id
    if forced is not None:
        at_limit = graph.op("Equal", number, limit)
        tokens = graph.op("Where", at_limit, graph.constant(forced, np.int64), tokens)
        scores = graph.op("Where", at_limit, graph.f32(0), scores)
    ends = graph.op("Cast", graph.op("Equal", tokens, graph.constant(config.eos_token_id, np.int64)), to=FLOAT)
    ended = graph.op("CumSum", ends, graph.constant(1, np.int64), exclusive=1)
    inside = graph.op("Equal", ended, graph.f32(0))
    inside = graph.op("And", inside, graph.op("LessOrEqual", number, limit))
    sequences = graph.op("Where", inside, tokens, graph.constant(config.pad_token_id, np.int64))
    total = graph.op("ReduceSum", graph.op("Where", inside, scores, graph.f32(0)), graph.i64(1))
    generated = graph.op("ReduceSum", graph.op("Cast", inside, to=FLOAT), graph.i64(1))
    mean = graph.op("Div", total, graph.op("Pow", generated, penalty))
    sequences = graph.op("Unsqueeze", sequences, graph.i64(1))
    rename(graph, sequences, "sequences", INT64, ["batch", 1, "target"])
    rename(graph, mean, "scores", FLOAT, ["batch", 1])


def _usable_rows(vocabulary: int, bad: tuple[int, ...]) -> tuple[int, tuple[int, ...]]:
    """How many rows of the output layer to compute, and which of them may not be chosen: bad tokens at its end are left
    out."""
    rows, banned = vocabulary, set(bad)
    while rows - 1 in banned and rows > 1:
        rows -= 1
        banned.discard(rows)
    return rows, tuple(sorted(banned))


def _ban(graph: Graph, banned: tuple[int, ...], candidates: Candidates) -> str | None:
    """fp32 [n]: -inf for the tokens that may never be generated; None if there are none."""
    if not banned:
        return None
    zeros = graph.op("ConstantOfShape", candidates.count)
    never = graph.constant([_NEVER] * len(banned), np.float32)
    return graph.op("ScatterElements", zeros, graph.i64(*banned), never, axis=0)
