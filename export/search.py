"""One step of beam search as ONNX nodes; semantics of transformers' ``generate`` (4.57)."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from mobilenmt.export.checkpoint import Checkpoint
from mobilenmt.export.graph import BOOL, FLOAT, INT32, INT64, Graph
from mobilenmt.export.layers import dimension, join
from mobilenmt.export.shortlist import Candidates

_DEAD = -1.0e9  # what transformers adds to the score of a hypothesis that may not be chosen
_NEVER = float("-inf")


@dataclass(frozen=True)
class State:
    """What a step hands to the next: B sentences, K hypotheses each.

    ``tokens`` int64 [B, K], the last tokens; ``running_scores`` fp32 [B, K], sums of log-probabilities; ``ended`` int64
    [B, K], where finished hypotheses ended (:meth:`SearchWriter._code`), with ``ended_scores`` fp32 [B, K],
    length-normalized, and ``is_ended`` bool [B, K]; ``active`` bool [B], false where nothing can improve any more.
    """

    tokens: str
    running_scores: str
    ended: str
    ended_scores: str
    is_ended: str
    active: str

    def names(self) -> list[str]:
        """The values in the order of the fields."""
        return [getattr(self, item.name) for item in fields(self)]


STATE_TYPES = (INT64, FLOAT, INT64, FLOAT, BOOL, BOOL)


@dataclass(frozen=True)
class Choice:
    """What a step decides: the next ``state``, the hypotheses ``parents`` int64 [B, K] (of the K of the sentence) that
    its hypotheses continue, and the scalar bool ``going``, whether the search goes on."""

    state: State
    parents: str
    going: str


@dataclass(frozen=True)
class Limits:
    """Names of what steers a search.

    int64 [B] ``max_length`` and ``min_length`` (start token counted), int64 [1] ``beams``, fp32 [1] ``length_penalty``;
    and ``length``, int64 scalar: tokens before this step; ``first`` bool [1, 2K], true for the first K.
    Where there is a shortlist, ``early`` fp32 [B, K, 1], -inf while the end is too early, else 0. Where a token is
    forced
    at the limit, ``only`` int64 [2K], that token after each hypothesis as a candidate, and ``only_scores`` fp32 [B, K],
    -inf.
    """

    max_length: str
    min_length: str
    beams: str
    length_penalty: str
    length: str
    first: str
    early: str = ""
    only: str = ""
    only_scores: str = ""


@dataclass(frozen=True)
class SearchWriter:
    """Emits search steps for the generation defaults of one checkpoint."""

    checkpoint: Checkpoint
    candidates: Candidates

    def beam(self, graph: Graph, state: State, limits: Limits, logits: str) -> Choice:
        """One step of ``GenerationMixin._beam_search``."""
        eos = graph.constant(self.checkpoint.config.eos_token_id, np.int64)
        scores, beams, tokens = self._candidates(graph, state, limits, logits)
        ends = graph.op("Or", graph.op("Equal", tokens, eos), self._at_limit(graph, limits))

        alive = graph.op("Add", scores, _penalty(graph, ends))
        running_scores, chosen = graph.ops("TopK", alive, limits.beams, outputs=2, axis=1)
        parents = graph.op("GatherElements", beams, chosen, axis=1)
        next_tokens = graph.op("GatherElements", tokens, chosen, axis=1)

        ended, ended_scores, is_ended = self._finish(graph, state, limits, scores, beams, tokens, ends)
        active = self._improvable(graph, state, limits, running_scores, ended_scores, is_ended)
        going = graph.op("And", _any(graph, active), graph.op("Not", _all(graph, ends)))
        if self.checkpoint.generation.early_stopping is True:
            going = graph.op("And", going, graph.op("Not", _all(graph, is_ended)))
        after = State(next_tokens, running_scores, ended, ended_scores, is_ended, active)
        return Choice(after, parents, going)

    # -- parts of a beam step -------------------------------------------------------------------------------------

    def _candidates(self, graph: Graph, state: State, limits: Limits, logits: str) -> tuple[str, str, str]:
        """The 2K best continuations of each sentence: scores, hypotheses and tokens, each [B, 2K]."""
        size = self.candidates.count
        scores = self._ban(graph, graph.op("LogSoftmax", logits, axis=-1), limits)
        if self.checkpoint.generation.renormalize_logits:
            scores = graph.op("LogSoftmax", scores, axis=-1)
        scores = graph.op("Add", scores, graph.op("Unsqueeze", state.running_scores, graph.i64(2)))
        scores = graph.op("Reshape", scores, graph.i64(0, -1))
        double = graph.op("Mul", limits.beams, graph.i64(2))
        scores, index = graph.ops("TopK", scores, double, outputs=2, axis=1)
        forced = self._forced(graph, limits)
        if forced:
            # All tokens but one have probability 0, and that one 1: each hypothesis goes on with it, in its order.
            only = graph.op("Concat", state.running_scores, limits.only_scores, axis=1)
            scores = graph.op("Where", forced, only, scores)
            index = graph.op("Where", forced, limits.only, index)
        return scores, graph.op("Div", index, size), self.candidates.token(graph, graph.op("Mod", index, size))

    def _finish(
        self, graph: Graph, state: State, limits: Limits, scores: str, beams: str, tokens: str, ends: str
    ) -> tuple[str, str, str]:
        """Merge candidates that just ended into the K best finished hypotheses (``_update_finished_beams``)."""
        ended = graph.op("And", ends, limits.first)
        scores = graph.op("Div", scores, self._normalizer(graph, limits))
        if self.checkpoint.generation.early_stopping is True:
            full = graph.op("ReduceMin", graph.op("Cast", state.is_ended, to=INT32), graph.i64(1))
            scores = graph.op("Add", scores, graph.op("Mul", graph.op("Cast", full, to=FLOAT), graph.f32(_DEAD)))
        open_ = graph.op("And", ended, graph.op("Unsqueeze", state.active, graph.i64(1)))
        scores = graph.op("Add", scores, _penalty(graph, graph.op("Not", open_)))
        merged = graph.op("Concat", state.ended_scores, scores, axis=1)
        ended_scores, chosen = graph.ops("TopK", merged, limits.beams, outputs=2, axis=1)
        flags = graph.op("Concat", state.is_ended, ended, axis=1)
        codes = graph.op("Concat", state.ended, self._code(graph, limits, beams, tokens), axis=1)
        return (
            graph.op("GatherElements", codes, chosen, axis=1),
            ended_scores,
            graph.op("GatherElements", flags, chosen, axis=1),
        )

    def _improvable(
        self, graph: Graph, state: State, limits: Limits, running: str, finished: str, is_ended: str
    ) -> str:
        """bool [B]: could a running hypothesis still beat a finished one? (``_check_early_stop_heuristic``)"""
        length = graph.op("Cast", limits.length, to=FLOAT)
        if self.checkpoint.generation.early_stopping == "never":
            longest = graph.op("Sub", graph.op("Cast", limits.max_length, to=FLOAT), graph.f32(1))
            positive = graph.op("Greater", limits.length_penalty, graph.f32(0))
            length = graph.op("Unsqueeze", graph.op("Where", positive, longest, length), graph.i64(1))
        best = graph.op("Slice", running, graph.i64(0), graph.i64(1), graph.i64(1))
        best = graph.op("Div", best, graph.op("Pow", length, limits.length_penalty))
        worst = graph.op("ReduceMin", finished, graph.i64(1))
        worst = graph.op("Where", is_ended, worst, graph.f32(_DEAD))
        better = graph.op("Cast", graph.op("Greater", best, worst), to=INT32)
        possible = graph.op("Cast", graph.op("ReduceMax", better, graph.i64(1), keepdims=0), to=BOOL)
        return graph.op("And", state.active, possible)

    # -- parts of both --------------------------------------------------------------------------------------------

    def _ban(self, graph: Graph, scores: str, limits: Limits) -> str:
        """-inf for the tokens that may never be generated, and for the end while a row is shorter than min_length."""
        bad = self.checkpoint.generation.bad_token_ids
        end = self.checkpoint.config.eos_token_id
        if limits.early:  # bad tokens are no candidates
            index = graph.op("Expand", self.candidates.end, graph.op("Shape", limits.early))
            return graph.op("ScatterElements", scores, index, limits.early, axis=2, reduction="add")
        if end in bad:
            columns, penalty = list(bad), graph.constant([[[_NEVER] * len(bad)]], np.float32)
        else:
            columns = [*bad, end]
            early = graph.op("Less", limits.length, limits.min_length)
            penalty = graph.op("Where", early, graph.f32(_NEVER), graph.f32(0))
            penalty = graph.op("Unsqueeze", penalty, graph.i64(1, 2))
            if bad:
                never = graph.op(
                    "Expand",
                    graph.constant([[[_NEVER] * len(bad)]], np.float32),
                    join(graph, graph.op("Shape", penalty, end=2), graph.i64(len(bad))),
                )
                penalty = graph.op("Concat", never, penalty, axis=2)
        chosen = graph.op("Gather", scores, graph.i64(*columns), axis=2)
        index = graph.op("Expand", graph.constant([[columns]], np.int64), graph.op("Shape", chosen))
        return graph.op("ScatterElements", scores, index, graph.op("Add", chosen, penalty), axis=2)

    def _forced(self, graph: Graph, limits: Limits) -> str | None:
        """bool [B, 1]: is this the last step of the row, at which generation_config forces a token?"""
        if self.checkpoint.generation.forced_eos_token_id is None:
            return None
        return self._at_limit(graph, limits)

    def prepare(self, graph: Graph, batch: str, beams: str, min_length: str, steps: str) -> tuple[str, str, str]:
        """Emit what no step needs to compute again: ``early`` for all ``steps`` [T, B, K, 1], and ``only``,
        ``only_scores`` of :class:`Limits`; each empty where it is not needed."""
        early = only = only_scores = ""
        if self.candidates.ids is not None:
            early = write_early(graph, graph.op("Squeeze", steps), min_length)
            early = graph.op("Expand", early, join(graph, steps, batch, beams, graph.i64(1)))
        token = self.checkpoint.generation.forced_eos_token_id
        if token is not None:  # with a shortlist it is the end token
            forced = graph.i64(token) if self.candidates.ids is None else self.candidates.end
            size = graph.op("Squeeze", self.candidates.count)
            start = graph.op("Mul", _counter(graph, graph.op("Mul", beams, graph.i64(2))), size)
            only = graph.op("Add", graph.op("Mod", start, graph.op("Mul", beams, size)), forced)
            only_scores = graph.op("Expand", graph.f32(_NEVER), join(graph, batch, beams))
        return early, only, only_scores

    def _at_limit(self, graph: Graph, limits: Limits) -> str:
        """bool [B, 1]: the token of this step is the last that max_length allows."""
        longer = graph.op("Add", limits.length, graph.constant(1, np.int64))
        reached = graph.op("GreaterOrEqual", longer, limits.max_length)
        return graph.op("Unsqueeze", reached, graph.i64(1))

    def _normalizer(self, graph: Graph, limits: Limits) -> str:
        """(generated tokens)^length_penalty after this step; the start token is not generated."""
        return graph.op("Pow", graph.op("Cast", limits.length, to=FLOAT), limits.length_penalty)

    def _code(self, graph: Graph, limits: Limits, parents: str, tokens: str) -> str:
        """One number for "``tokens`` after hypothesis ``parents`` at this step"; :func:`write_sequences` reads it."""
        size = graph.constant(self.checkpoint.config.decoder_vocab_size, np.int64)
        before = graph.op("Sub", limits.length, graph.constant(1, np.int64))
        rows = graph.op("Add", parents, graph.op("Mul", before, limits.beams))
        return graph.op("Add", graph.op("Mul", rows, size), tokens)


def write_sequences(checkpoint: Checkpoint, graph: Graph, codes: str, tokens: str, parents: str, beams: str) -> str:
    """Follow finished hypotheses back to their start: int64 [B, K, T], filled up with the pad token.

    ``codes`` [B, K] as in :class:`State`, ``tokens`` and ``parents`` [T, B, K] of every step. So no step has to carry,
    reorder and compare whole sequences.
    """
    size = graph.constant(checkpoint.config.decoder_vocab_size, np.int64)
    pad = graph.constant(checkpoint.config.pad_token_id, np.int64)
    last, place = graph.op("Mod", codes, size), graph.op("Div", codes, size)
    step, parent = graph.op("Div", place, beams), graph.op("Mod", place, beams)
    count = graph.op("Squeeze", dimension(graph, tokens, 0))
    body = graph.body("back")
    iteration = body.input("back_iteration", INT64, [])
    go_on = body.input("back_go_on", BOOL, [])
    current = body.input("current", INT64)
    one = body.constant(1, np.int64)
    index = body.op("Sub", body.op("Sub", count, one), iteration)
    inside = body.op("Less", index, step)
    found = body.op("GatherElements", body.op("Gather", tokens, index), current, axis=1)
    found = body.op("Where", inside, found, pad)
    found = body.op("Where", body.op("Equal", index, step), last, found)
    before = body.op("GatherElements", body.op("Gather", parents, index), current, axis=1)
    body.output(body.op("Identity", go_on), BOOL)
    body.output(body.op("Where", inside, before, current), INT64)
    body.output(found, INT64)
    inputs = [count, graph.constant(True, np.bool_), parent]
    _, backwards = graph.ops("Loop", *inputs, outputs=2, body=body.to_graph())
    turned = graph.op("Transpose", backwards, perm=[1, 2, 0])
    ends = (graph.i64(-1), graph.i64(-(2**31)), graph.i64(2), graph.i64(-1))
    return graph.op("Slice", turned, *ends)


def _penalty(graph: Graph, condition: str) -> str:
    return graph.op("Mul", graph.op("Cast", condition, to=FLOAT), graph.f32(_DEAD))


def _any(graph: Graph, flags: str) -> str:
    highest = graph.op("ReduceMax", graph.op("Cast", flags, to=INT32), keepdims=0)
    return graph.op("Cast", highest, to=BOOL)


def _all(graph: Graph, flags: str) -> str:
    lowest = graph.op("ReduceMin", graph.op("Cast", flags, to=INT32), keepdims=0)
    return graph.op("Cast", lowest, to=BOOL)


def write_early(graph: Graph, steps: str, min_length: str) -> str:
    """fp32 [steps, B, 1, 1]: what to add to the end's logit in each step: -inf where a sentence would be shorter than
    int64 [B] ``min_length`` (start token counted), else 0; ``steps`` is an int64 scalar."""
    one = graph.constant(1, np.int64)
    lengths = graph.op("Range", one, graph.op("Add", steps, one), one)
    early = graph.op("Less", graph.op("Unsqueeze", lengths, graph.i64(1)), min_length)
    early = graph.op("Where", early, graph.f32(_NEVER), graph.f32(0))
    return graph.op("Unsqueeze", early, graph.i64(2, 3))


def _counter(graph: Graph, count: str) -> str:
    """0, 1, … below the 1-D int64 ``count`` of one element."""
    zero, one = graph.constant(0, np.int64), graph.constant(1, np.int64)
    return graph.op("Range", zero, graph.op("Squeeze", count), one)
