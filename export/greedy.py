"""greedy.onnx: ids in, ids out, one sentence and one hypothesis, with as few nodes a step as it takes.

A step of the beam search (:mod:`mobilenmt.export.search`) runs some seventy small nodes after the logits, which for
one sentence take longer than the matrices. Here a step only picks a token; what the choice means (limits, forced ends,
scores) is worked out once, after the loop, on the tokens of all steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mobilenmt.export.candidates import Candidates, write_candidates, write_logits
from mobilenmt.export.decoder import cache_names, cache_shape, write_step
from mobilenmt.export.encoder import Encoded, rename, write_encoder
from mobilenmt.export.graph import BOOL, FLOAT, INT32, INT64, Graph
from mobilenmt.export.layers import ModelWriter, dimension
from mobilenmt.export.precision.protocol import Use

_NEVER = float("-inf")


def build_greedy(writer: ModelWriter, graph: Graph) -> Graph:
    """Emit greedy.onnx.

    Inputs: ``input_ids`` int64 [1, S]; ``max_length`` and ``min_length`` int64 [1], the start token counted, as in
    ``generate``; ``length_penalty`` fp32 [1]. Outputs: ``sequences`` int64 [1, 1, T], without the start token, filled
    up with the pad token; ``scores`` fp32 [1, 1]: the sum of log-probabilities (those of
    ``compute_transition_scores(normalize_logits=True)``, over the candidates' softmax) over (generated
    tokens)^length_penalty.
    """
    config = writer.checkpoint.config
    ids = graph.input("input_ids", INT64, [1, "source"])
    max_length = graph.input("max_length", INT64, [1])
    min_length = graph.input("min_length", INT64, [1])
    penalty = graph.input("length_penalty", FLOAT, [1])

    encoded = write_encoder(writer, graph, ids, "")
    most = steps_to_make(writer, graph, max_length)
    steps = graph.op("Squeeze", most)
    picker = Picker.of(writer, graph, ids, Use.STEP)
    end = graph.op("Reshape", picker.candidates.end, graph.i64(1, 1, 1))
    early = write_early(graph, steps, min_length)
    positions = writer.positions(graph, "decoder", most)
    start = graph.constant([[config.decoder_start_token_id]], np.int64)
    empty = graph.op("ConstantOfShape", graph.i64(1, *cache_shape(writer)))
    parts = cache_names(writer, "past")

    body = graph.body("step")
    iteration = body.input("iteration", INT64, [])
    body.input("go_on", BOOL, [])
    token, before = body.input("token", INT64), body.input("before", INT32)
    past = [body.input(part, FLOAT) for part in parts]
    after = body.op("Add", before, body.constant(1, np.int32))
    position, now = body.op("Gather", positions, iteration), body.op("Gather", early, iteration)
    picked = picker.write(body, encoded, token, position, past, (before, after), end, now)
    different = picked.token
    if config.eos_token_id:
        different = body.op("Sub", different, body.constant(config.eos_token_id, np.int64))
    going = body.op("Cast", different, to=BOOL)
    outputs = [going, picked.token, after, *picked.present, picked.index, picked.score]
    body.outputs(outputs, [BOOL, INT64, INT32, *(FLOAT for _ in parts), INT64, FLOAT])

    yes = graph.constant(True, np.bool_)
    state = [start, graph.constant([0], np.int32), *(empty for _ in parts)]
    results = graph.ops("Loop", steps, yes, *state, outputs=len(state) + 2, body=body.to_graph())
    tokens = picker.candidates.token(graph, graph.op("Reshape", results[-2], graph.i64(1, -1)))
    scores = graph.op("Reshape", results[-1], graph.i64(1, -1))
    write_results(writer, graph, tokens, scores, max_length, penalty)
    return graph


@dataclass(frozen=True)
class Picked:
    """What one step chose for B sentences: ``index`` int64 [B, 1] among the candidates, ``token`` int64 [B, 1], and its
    log-probability ``score`` fp32 [B, 1, 1]; ``present``, the keys and values of each layer, this step's included."""

    index: str
    token: str
    score: str
    present: list[str]


@dataclass(frozen=True)
class Picker:
    """Emits decoder steps that pick the likeliest candidate."""

    writer: ModelWriter
    use: Use
    candidates: Candidates
    rows: int
    """Rows of the output layer to compute, without a shortlist."""
    ban: str | None
    """fp32 [n]: -inf for the candidates that may never be generated; None if there are none."""

    @classmethod
    def of(cls, writer: ModelWriter, graph: Graph, ids: str, use: Use) -> Picker:
        """For int64 source ``ids`` [B, S]."""
        vocabulary = writer.checkpoint.config.decoder_vocab_size
        rows, banned = _usable_rows(vocabulary, writer.checkpoint.generation.bad_token_ids)
        candidates = write_candidates(writer, graph, ids, use, rows=rows)
        ban = None if writer.shortlist else write_ban(graph, banned, candidates)
        return cls(writer, use, candidates, rows, ban)

    def write(
        self,
        body: Graph,
        encoded: Encoded,
        token: str,
        position: str,
        past: Sequence[str],
        lengths: tuple[str, str],
        end: str,
        early: str,
    ) -> Picked:
        """Emit a step; the arguments are those of :func:`write_step`. ``early`` fp32 [B, 1, 1] is added to the logits
        of the candidates ``end`` int64 [B, 1, 1]."""
        writer, candidates = self.writer, self.candidates
        step = write_step(writer, body, token, position, past, encoded, self.use, lengths=lengths)
        logits = write_logits(writer, body, step.state, candidates, self.use, rows=self.rows)
        if self.ban:
            logits = body.op("Add", logits, self.ban)
        logits = body.op("ScatterElements", logits, end, early, axis=2, reduction="add")
        scores = body.op("LogSoftmax", logits, axis=-1)
        score, index = body.ops("TopK", scores, body.i64(1), outputs=2, axis=-1)
        index = body.op("Reshape", index, body.i64(-1, 1))
        token = body.op("Identity", index) if candidates.ids is None else candidates.token(body, index)
        return Picked(index, token, score, step.present)


def steps_to_make(writer: ModelWriter, graph: Graph, max_length: str) -> str:
    """int64 [1]: most steps of a search, for ``max_length`` [B]. Where the last token is forced there is nothing to
    choose for it; but one step is made in any case, so that there are results of a known shape."""
    longest = graph.op("ReduceMax", max_length, keepdims=1)
    if writer.checkpoint.generation.forced_eos_token_id is None:
        return graph.op("Sub", longest, graph.i64(1))
    return graph.op("Max", graph.op("Sub", longest, graph.i64(2)), graph.i64(1))


def write_results(writer: ModelWriter, graph: Graph, tokens: str, scores: str, max_length: str, penalty: str) -> None:
    """From the choices of every step, tokens [B, T] and log-probabilities [B, T], to sequences and scores."""
    config = writer.checkpoint.config
    forced = writer.checkpoint.generation.forced_eos_token_id
    if forced is not None:  # the step that was not made
        tokens, scores = (graph.op("Pad", part, graph.i64(0, 0, 0, 1)) for part in (tokens, scores))
    count = graph.op("Squeeze", dimension(graph, tokens, 1))
    one = graph.constant(1, np.int64)
    number = graph.op("Range", one, graph.op("Add", count, one), one)
    limit = graph.op("Unsqueeze", graph.op("Sub", max_length, graph.i64(1)), graph.i64(1))
    if forced is not None:
        at_limit = graph.op("Equal", number, limit)
        tokens = graph.op("Where", at_limit, graph.constant(forced, np.int64), tokens)
        scores = graph.op("Where", at_limit, graph.f32(0), scores)
    ends = graph.op("Cast", graph.op("Equal", tokens, graph.constant(config.eos_token_id, np.int64)), to=FLOAT)
    ended = graph.op("CumSum", ends, one, exclusive=1)
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


def write_ban(graph: Graph, banned: Sequence[int], candidates: Candidates) -> str | None:
    """fp32 [n]: -inf for the tokens that may never be generated; None if there are none."""
    if not banned:
        return None
    zeros = graph.op("ConstantOfShape", candidates.count)
    never = graph.constant([_NEVER] * len(banned), np.float32)
    return graph.op("ScatterElements", zeros, graph.i64(*banned), never, axis=0)


def write_early(graph: Graph, steps: str, min_length: str) -> str:
    """fp32 [steps, 1, 1, 1]: what to add to the end's logit in each step: -inf where a sentence would be shorter than
    int64 [1] ``min_length`` (start token counted), else 0; ``steps`` is an int64 scalar."""
    one = graph.constant(1, np.int64)
    lengths = graph.op("Range", one, graph.op("Add", steps, one), one)
    early = graph.op("Where", graph.op("Less", lengths, min_length), graph.f32(_NEVER), graph.f32(0))
    return graph.op("Unsqueeze", early, graph.i64(1, 2, 3))
