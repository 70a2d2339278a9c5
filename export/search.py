"""translator.onnx: ids in, ids out, one sentence and a beam; semantics of transformers' ``generate`` (4.57).

The whole search is one ONNX ``Loop``. A step does only what the next one depends on: it picks the hypotheses that go
on, and keeps the scores of those that ended, for the rule when to stop. Which hypotheses ended where, and what they
consist of, is worked out once, after the loop, on the choices of all steps. Several sentences would need masks for
limits and ends in every step, and wait for the longest; so each goes through alone.
"""

from __future__ import annotations

import numpy as np

from mobilenmt.export.candidates import write_candidates, write_logits
from mobilenmt.export.decoder import Step, cache_names, cache_shape, write_step
from mobilenmt.export.encoder import write_encoder
from mobilenmt.export.graph import BOOL, FLOAT, INT64, Graph
from mobilenmt.export.greedy import steps_to_make, write_ban, write_early
from mobilenmt.export.hypotheses import NEVER, Steps, write_results
from mobilenmt.export.layers import ModelWriter, dimension, join
from mobilenmt.export.precision.protocol import Use

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
    return _Beam(writer, graph).write()


class _Beam:
    """translator.onnx in the making. Made with what is computed once; K hypotheses, n candidates."""

    def __init__(self, writer: ModelWriter, graph: Graph) -> None:
        self.writer, self.graph = writer, graph
        self.generation = generation = writer.checkpoint.generation
        ids = graph.input("input_ids", INT64, [1, "source"])
        max_length = graph.input("max_length", INT64, [1])
        min_length = graph.input("min_length", INT64, [1])
        self.beams = graph.input("beam_size", INT64, [1])
        self.penalty = graph.input("length_penalty", FLOAT, [1])

        self.encoded = write_encoder(writer, graph, ids, "")
        self.candidates = write_candidates(writer, graph, ids, Use.STEPS)
        self.ban = None if writer.shortlist else write_ban(graph, generation.bad_token_ids, self.candidates)
        self.last = graph.op("Sub", max_length, graph.i64(1))  # T: most tokens to generate
        most = steps_to_make(writer, graph, max_length)
        self.steps = graph.op("Squeeze", most)
        self.positions = writer.positions(graph, "decoder", most)
        self.double = graph.op("Mul", self.beams, graph.i64(2))
        self.zero, self.one = graph.constant(0, np.int64), graph.constant(1, np.int64)
        ranks = graph.op("Range", self.zero, graph.op("Squeeze", self.double), self.one)
        self.first = graph.op("Less", ranks, self.beams)  # [2K]
        early = write_early(graph, self.steps, min_length)
        self.end = graph.op("Expand", self.candidates.end, join(graph, graph.i64(1), self.beams, graph.i64(1)))
        self.early = graph.op("Expand", early, join(graph, most, graph.i64(1), self.beams, graph.i64(1)))
        self.norms, self.bounds = _norms(graph, self.steps, self.last, self.penalty, generation.early_stopping)
        self.own = _own_entries(graph, self.beams)
        self.names = ["tokens", "running", "ended", "ancestors", *cache_names(writer, "past")]
        self.kinds = [INT64, *(FLOAT for _ in self.names[1:])]

    def write(self) -> Graph:
        """Emit the loop over phases, and the results."""
        graph, beams = self.graph, self.beams
        state = self._initial_state()
        phase = self._phase()
        sizes = (self.double, self.double, beams, beams)
        none = [graph.op("ConstantOfShape", join(graph, graph.i64(0), size)) for size in sizes]
        none[1:] = [graph.op("Cast", value, to=INT64) for value in none[1:]]
        inputs = [self.zero, *none, *state]
        yes = graph.constant(True, np.bool_)
        final = graph.ops("Loop", self.steps, yes, *inputs, outputs=len(inputs), body=phase.to_graph())
        found = Steps(*final[1:5])
        open_ = self._still_open(final[6], final[7], state[1], found)
        write_results(self.writer, graph, found, open_, self.candidates, self.first, self.last, self.penalty)
        return graph

    def _initial_state(self) -> list[str]:
        """Values for the names of the state: one hypothesis of the start token, which the others may not be."""
        graph, beams = self.graph, self.beams
        counter = graph.op("Range", self.zero, graph.op("Squeeze", beams), self.one)
        running = graph.op("Where", graph.op("Equal", counter, self.zero), graph.f32(0), graph.f32(_DEAD))  # [K]
        start = graph.constant(self.writer.checkpoint.config.decoder_start_token_id, np.int64)
        tokens = graph.op("Expand", start, join(graph, graph.i64(1), beams))
        ended = graph.op("Expand", graph.f32(_DEAD), beams)
        ancestors = graph.op("ConstantOfShape", join(graph, graph.i64(1, 1), beams, graph.i64(0)))
        empty = graph.op("ConstantOfShape", graph.i64(1, *cache_shape(self.writer)))
        return [tokens, running, ended, ancestors, *(empty for _ in self.names[4:])]

    def _phase(self) -> Graph:
        """Some steps, whose choices are put behind those of the steps before; then dead ends are let go."""
        phase = self.graph.body("phase", home=True)
        phase.input("phase_number", INT64, [])
        phase.input("phase_go_on", BOOL, [])
        done = phase.input("done", INT64, [])
        before = [phase.input(f"all_{name}", kind) for name, kind in zip(_CHOSEN, _CHOSEN_KINDS, strict=True)]
        held = [phase.input(f"held_{name}", kind) for name, kind in zip(self.names, self.kinds, strict=True)]
        body = self._step(phase, done)
        yes = phase.constant(True, np.bool_)
        count = phase.op("Min", phase.op("Sub", self.steps, done), phase.constant(_PHASE, np.int64))
        results = phase.ops("Loop", count, yes, *held, outputs=len(held) + len(before), body=body.to_graph())
        state, new = results[: len(held)], results[len(held) :]
        after = [phase.op("Concat", *pair, axis=0) for pair in zip(before, new, strict=True)]
        until = phase.op("Squeeze", dimension(phase, after[0], 0))
        bound = phase.op("Gather", self.bounds, phase.op("Sub", until, self.one))
        going = self._improvable(phase, state[1], state[2], bound)
        going = phase.op("And", going, phase.op("Less", until, self.steps))
        phase.outputs([going, until, *after], [BOOL, INT64, *_CHOSEN_KINDS])
        # What no hypothesis continues any more is let go: the beam's K entries a step are mostly dead ends.
        live = phase.op("Greater", phase.op("ReduceMax", state[3], phase.i64(0, 1, 2), keepdims=0), phase.f32(-1))
        live = phase.op("Squeeze", phase.op("NonZero", live), phase.i64(0))
        kept = [phase.op("Gather", state[3], live, axis=3)]
        kept += [phase.op("Gather", cache, live, axis=2) for cache in state[4:]]
        phase.outputs([*state[:3], *kept], self.kinds)
        return phase

    def _step(self, phase: Graph, done: str) -> Graph:
        """One token more for each hypothesis, after the int64 scalar ``done`` steps of the phases before."""
        candidates, beams = self.candidates, self.beams
        body = phase.body("step")
        iteration = body.input("iteration", INT64, [])
        body.input("go_on", BOOL, [])
        tokens, running, ended, ancestors, *past = (
            body.input(name, kind) for name, kind in zip(self.names, self.kinds, strict=True)
        )
        place = body.op("Add", iteration, done)
        ancestors = body.op("Concat", ancestors, self.own, axis=3)
        step, scores = self._scores(body, tokens, running, ancestors, past, place)
        scores, index = body.ops("TopK", body.op("Reshape", scores, body.i64(-1)), self.double, outputs=2, axis=0)
        candidate = body.op("Mod", index, candidates.count)
        ends = body.op("Equal", candidate, candidates.end)  # [2K]
        alive = body.op("Where", ends, body.f32(_DEAD), scores)
        running, chosen = body.ops("TopK", alive, beams, outputs=2, axis=0)
        following = candidates.token(body, body.op("Gather", candidate, chosen))
        parents = body.op("Div", body.op("Gather", index, chosen), candidates.count)
        # The K best that have ended so far, for the rule when to stop.
        norm = body.op("Gather", self.norms, place)
        finished = body.op("Where", body.op("And", ends, self.first), body.op("Div", scores, norm), body.f32(_DEAD))
        ended, _ = body.ops("TopK", body.op("Concat", ended, finished, axis=0), beams, outputs=2, axis=0)
        bound = norm if self.bounds == self.norms else body.op("Gather", self.bounds, place)
        going = self._improvable(body, running, ended, bound)
        moved = body.op("Gather", ancestors, parents, axis=2)
        state = [body.op("Unsqueeze", following, body.i64(0)), running, ended, moved, *step.present]
        body.outputs([going, *state, scores, index, following, parents], [BOOL, *self.kinds, *_CHOSEN_KINDS])
        return body

    def _scores(
        self, body: Graph, tokens: str, running: str, ancestors: str, past: list[str], place: str
    ) -> tuple[Step, str]:
        """The decoder's step number ``place``, and fp32 [1, K, n]: what each hypothesis would score with each token."""
        position = body.op("Gather", self.positions, place)
        writer = self.writer
        step = write_step(writer, body, tokens, position, past, self.encoded, Use.STEPS, ancestry=ancestors)
        logits = write_logits(writer, body, step.state, self.candidates, Use.STEPS)
        scores = body.op("LogSoftmax", logits, axis=-1)
        scores = body.op("Add", scores, self.ban) if self.ban else scores
        now = body.op("Gather", self.early, place)
        scores = body.op("ScatterElements", scores, self.end, now, axis=2, reduction="add")
        if self.generation.renormalize_logits:
            scores = body.op("LogSoftmax", scores, axis=-1)
        return step, body.op("Add", scores, body.op("Unsqueeze", running, body.i64(0, 2)))

    def _improvable(self, graph: Graph, running: str, ended: str, bound: str) -> str:
        """bool [1]: could a running hypothesis still beat the worst of those that ended (fp32 [K] both, best first)?"""
        best = graph.op("Div", graph.op("Gather", running, graph.i64(0)), bound)
        worst = graph.op("Gather", ended, graph.i64(-1))
        better = graph.op("Greater", best, worst)
        if self.generation.early_stopping is not True:
            return better
        return graph.op("And", better, graph.op("Less", worst, graph.f32(_DEAD / 2)))  # not before there are K

    def _still_open(self, running: str, ended: str, initial: str, found: Steps) -> str:
        """fp32 [K]: sums of log-probabilities of the hypotheses that the limit ends, -inf if it was over before."""
        graph = self.graph
        made = dimension(graph, found.scores, 0)
        at_limit = graph.op("Equal", made, graph.op("Sub", self.last, graph.i64(1)))
        bound = graph.op("Gather", self.bounds, graph.op("Sub", made, graph.i64(1)))
        going = graph.op("And", at_limit, self._improvable(graph, running, ended, bound))
        only = graph.op("Equal", self.last, graph.i64(1))  # nothing but the forced token is generated
        return graph.op("Where", only, initial, graph.op("Where", going, running, graph.f32(NEVER)))


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
