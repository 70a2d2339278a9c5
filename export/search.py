"""One step of greedy and of beam search as ONNX nodes; semantics of transformers' ``generate`` (4.57)."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from mobilenmt.export.checkpoint import Checkpoint
from mobilenmt.export.graph import BOOL, FLOAT, INT32, INT64, Graph
from mobilenmt.export.layers import dimension, join

_DEAD = -1.0e9  # what transformers adds to the score of a hypothesis that may not be chosen
_NEVER = float("-inf")


@dataclass(frozen=True)
class State:
    """What a step hands to the next: B sentences, K hypotheses each, ``length`` tokens so far (the start counted).

    ``tokens`` int64 [B, K], the last tokens; ``running`` int64 [B, K, length] with ``running_scores`` fp32 [B, K], sums
    of log-probabilities; ``finished`` int64 [B, K, length] with ``finished_scores`` fp32 [B, K], length-normalized, and
    ``is_finished`` bool [B, K]; ``active`` bool [B], false where nothing can improve any more.
    """

    tokens: str
    running: str
    running_scores: str
    finished: str
    finished_scores: str
    is_finished: str
    active: str

    def names(self) -> list[str]:
        """The values in the order of the fields."""
        return [getattr(self, item.name) for item in fields(self)]


STATE_TYPES = (INT64, INT64, FLOAT, INT64, FLOAT, BOOL, BOOL)


@dataclass(frozen=True)
class Limits:
    """Names of what steers a search.

    int64 [B] ``max_length`` and ``min_length`` (start token counted), int64 [1] ``beams``, fp32 [1] ``length_penalty``;
    and ``length``, int64 scalar: tokens before this step.
    """

    max_length: str
    min_length: str
    beams: str
    length_penalty: str
    length: str


@dataclass(frozen=True)
class SearchWriter:
    """Emits search steps for the generation defaults of one checkpoint."""

    checkpoint: Checkpoint

    def greedy(self, graph: Graph, state: State, limits: Limits, logits: str) -> tuple[State, str]:
        """Most probable token for each row; returns the next state and the scalar bool "go on".

        The score is that of ``compute_transition_scores(normalize_logits=True)``, summed and length-normalized.
        """
        eos = graph.constant(self.checkpoint.config.eos_token_id, np.int64)
        allowed = self._ban(graph, logits, limits)
        token = graph.op("ArgMax", allowed, axis=-1, keepdims=0)
        score = graph.op("ReduceMax", graph.op("LogSoftmax", allowed, axis=-1), graph.i64(-1), keepdims=0)
        forced = self._forced(graph, limits)
        if forced:
            token = graph.op("Where", forced, self._forced_token(graph), token)
            score = graph.op("Where", forced, graph.f32(0), score)
        active = graph.op("Unsqueeze", state.active, graph.i64(1))
        pad = graph.constant(self.checkpoint.config.pad_token_id, np.int64)
        token = graph.op("Where", active, token, pad)
        total = graph.op("Add", state.running_scores, graph.op("Where", active, score, graph.f32(0)))
        running = graph.op("Concat", state.running, graph.op("Unsqueeze", token, graph.i64(2)), axis=2)
        ends = graph.op("Or", graph.op("Equal", token, eos), self._at_limit(graph, limits))
        going = graph.op("And", active, graph.op("Not", ends))
        mean = graph.op("Div", total, self._normalizer(graph, limits))
        finished_scores = graph.op("Where", active, mean, state.finished_scores)
        after = State(
            token,
            running,
            total,
            graph.op("Identity", running),
            finished_scores,
            graph.op("Not", going),
            graph.op("Squeeze", going, graph.i64(1)),
        )
        return after, _any(graph, going)

    def beam(self, graph: Graph, state: State, limits: Limits, logits: str) -> tuple[State, str, str]:
        """One step of ``GenerationMixin._beam_search``.

        Returns the next state, the rows [B * K] of the caches that its hypotheses continue, and the bool "go on".
        """
        eos = graph.constant(self.checkpoint.config.eos_token_id, np.int64)
        scores, beams, tokens = self._candidates(graph, state, limits, logits)
        length = graph.op("Unsqueeze", limits.length, graph.i64(0))
        batch = dimension(graph, state.running, 0)
        first_row = graph.op("Mul", _counter(graph, batch), limits.beams)
        rows = graph.op("Add", beams, graph.op("Unsqueeze", first_row, graph.i64(1)))
        histories = graph.op("Reshape", state.running, join(graph, graph.i64(-1), length))
        candidates = graph.op("Gather", histories, rows)
        candidates = graph.op("Concat", candidates, graph.op("Unsqueeze", tokens, graph.i64(2)), axis=2)
        ends = graph.op("Or", graph.op("Equal", tokens, eos), self._at_limit(graph, limits))

        alive = graph.op("Add", scores, _penalty(graph, ends))
        running_scores, chosen = graph.ops("TopK", alive, limits.beams, outputs=2, axis=1)
        next_rows = graph.op("GatherElements", rows, chosen, axis=1)
        running = self._gather_beams(graph, candidates, chosen)
        next_tokens = graph.op("GatherElements", tokens, chosen, axis=1)

        finished, finished_scores, is_finished = self._finish(graph, state, limits, scores, candidates, ends)
        active = self._improvable(graph, state, limits, running_scores, finished_scores, is_finished)
        going = graph.op("And", _any(graph, active), graph.op("Not", _all(graph, ends)))
        if self.checkpoint.generation.early_stopping is True:
            going = graph.op("And", going, graph.op("Not", _all(graph, is_finished)))
        after = State(next_tokens, running, running_scores, finished, finished_scores, is_finished, active)
        return after, graph.op("Reshape", next_rows, graph.i64(-1)), going

    # -- parts of a beam step -------------------------------------------------------------------------------------

    def _candidates(self, graph: Graph, state: State, limits: Limits, logits: str) -> tuple[str, str, str]:
        """The 2K best continuations of each sentence: scores, hypotheses and tokens, each [B, 2K]."""
        vocabulary = self.checkpoint.config.decoder_vocab_size
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
            shape = graph.op("Shape", state.running_scores)
            none = graph.op("Expand", graph.f32(_NEVER), shape)
            only = graph.op("Concat", state.running_scores, none, axis=1)
            start = graph.op("Mul", _counter(graph, double), graph.i64(vocabulary))
            start = graph.op("Mod", start, graph.op("Mul", limits.beams, graph.i64(vocabulary)))
            only_index = graph.op("Add", start, self._forced_token(graph))
            scores = graph.op("Where", forced, only, scores)
            index = graph.op("Where", forced, only_index, index)
        size = graph.constant(vocabulary, np.int64)
        return scores, graph.op("Div", index, size), graph.op("Mod", index, size)

    def _finish(
        self, graph: Graph, state: State, limits: Limits, scores: str, candidates: str, ends: str
    ) -> tuple[str, str, str]:
        """Merge candidates that just ended into the K best finished hypotheses (``_update_finished_beams``)."""
        double = graph.op("Mul", limits.beams, graph.i64(2))
        counter = graph.op("Unsqueeze", _counter(graph, double), graph.i64(0))
        ended = graph.op("And", ends, graph.op("Less", counter, limits.beams))
        scores = graph.op("Div", scores, self._normalizer(graph, limits))
        if self.checkpoint.generation.early_stopping is True:
            full = graph.op("ReduceMin", graph.op("Cast", state.is_finished, to=INT32), graph.i64(1))
            scores = graph.op("Add", scores, graph.op("Mul", graph.op("Cast", full, to=FLOAT), graph.f32(_DEAD)))
        closed = graph.op("Unsqueeze", graph.op("Not", state.active), graph.i64(1))
        scores = graph.op("Add", scores, _penalty(graph, closed))
        scores = graph.op("Add", scores, _penalty(graph, graph.op("Not", ended)))
        merged = graph.op("Concat", state.finished_scores, scores, axis=1)
        finished_scores, chosen = graph.ops("TopK", merged, limits.beams, outputs=2, axis=1)
        flags = graph.op("Concat", state.is_finished, ended, axis=1)
        flags = graph.op("GatherElements", flags, chosen, axis=1)
        pad = graph.constant([[[self.checkpoint.config.pad_token_id]]], np.int64)
        shape = join(graph, graph.op("Shape", state.running_scores), graph.i64(1))
        column = graph.op("Expand", pad, shape)
        longer = graph.op("Concat", state.finished, column, axis=2)
        sequences = graph.op("Concat", longer, candidates, axis=1)
        return self._gather_beams(graph, sequences, chosen), finished_scores, flags

    def _improvable(
        self, graph: Graph, state: State, limits: Limits, running: str, finished: str, is_finished: str
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
        worst = graph.op("Where", is_finished, worst, graph.f32(_DEAD))
        better = graph.op("Cast", graph.op("Greater", best, worst), to=INT32)
        possible = graph.op("Cast", graph.op("ReduceMax", better, graph.i64(1), keepdims=0), to=BOOL)
        return graph.op("And", state.active, possible)

    # -- parts of both --------------------------------------------------------------------------------------------

    def _ban(self, graph: Graph, scores: str, limits: Limits) -> str:
        """-inf for the tokens that may never be generated, and for the end while a row is shorter than min_length."""
        bad = self.checkpoint.generation.bad_token_ids
        end = self.checkpoint.config.eos_token_id
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

    def _forced_token(self, graph: Graph) -> str:
        return graph.constant(self.checkpoint.generation.forced_eos_token_id, np.int64)

    def _at_limit(self, graph: Graph, limits: Limits) -> str:
        """bool [B, 1]: the token of this step is the last that max_length allows."""
        longer = graph.op("Add", limits.length, graph.constant(1, np.int64))
        reached = graph.op("GreaterOrEqual", longer, limits.max_length)
        return graph.op("Unsqueeze", reached, graph.i64(1))

    def _normalizer(self, graph: Graph, limits: Limits) -> str:
        """(generated tokens)^length_penalty after this step; the start token is not generated."""
        return graph.op("Pow", graph.op("Cast", limits.length, to=FLOAT), limits.length_penalty)

    def _gather_beams(self, graph: Graph, sequences: str, chosen: str) -> str:
        """``sequences`` [B, n, length], ``chosen`` int64 [B, m] below n -> [B, m, length]."""
        count = dimension(graph, sequences, 1)
        batch = dimension(graph, sequences, 0)
        first = graph.op("Unsqueeze", graph.op("Mul", _counter(graph, batch), count), graph.i64(1))
        flat = graph.op("Reshape", sequences, join(graph, graph.i64(-1), dimension(graph, sequences, 2)))
        return graph.op("Gather", flat, graph.op("Add", chosen, first))


def _penalty(graph: Graph, condition: str) -> str:
    return graph.op("Mul", graph.op("Cast", condition, to=FLOAT), graph.f32(_DEAD))


def _any(graph: Graph, flags: str) -> str:
    highest = graph.op("ReduceMax", graph.op("Cast", flags, to=INT32), keepdims=0)
    return graph.op("Cast", highest, to=BOOL)


def _all(graph: Graph, flags: str) -> str:
    lowest = graph.op("ReduceMin", graph.op("Cast", flags, to=INT32), keepdims=0)
    return graph.op("Cast", lowest, to=BOOL)


def _counter(graph: Graph, count: str) -> str:
    """0, 1, … below the 1-D int64 ``count`` of one element."""
    zero, one = graph.constant(0, np.int64), graph.constant(1, np.int64)
    return graph.op("Range", zero, graph.op("Squeeze", count), one)
