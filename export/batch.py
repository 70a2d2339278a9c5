"""batch.onnx: as greedy.onnx for many sentences together; those that have ended leave the batch.

Sentences of one length end at very different lengths, and a step costs nearly as much as it has rows. So the search
runs in phases: one ends when a third of its sentences has, and the next goes on with the others.
"""

from __future__ import annotations

import numpy as np

from mobilenmt.export.decoder import cache_names, cache_shape
from mobilenmt.export.encoder import Encoded, in_turn, write_encoder
from mobilenmt.export.graph import BOOL, FLOAT, INT32, INT64, Graph
from mobilenmt.export.greedy import Picker, steps_to_make, write_early, write_results
from mobilenmt.export.layers import ModelWriter, dimension, join
from mobilenmt.export.precision.protocol import Use

_STAY = (2, 3)  # a phase goes on while more than this share of its sentences has not ended


def build_batch(writer: ModelWriter, graph: Graph) -> Graph:
    """Emit batch.onnx.

    Inputs: ``input_ids`` int64 [B, S] padded on the right, ``lengths`` int64 [B]; ``max_length`` int64 [B] and
    ``min_length`` int64 [1], the start token counted; ``length_penalty`` fp32 [1]. Outputs: ``sequences`` int64
    [B, 1, T] and ``scores`` fp32 [B, 1], as greedy.onnx has them.
    """
    return _Batch(writer, graph).write()


class _Batch:
    """batch.onnx in the making. Made with what is computed once; B sentences are in the batch, b of them left."""

    def __init__(self, writer: ModelWriter, graph: Graph) -> None:
        self.writer, self.graph = writer, graph
        self.config = config = writer.checkpoint.config
        ids = graph.input("input_ids", INT64, ["batch", "source"])
        lengths = graph.input("lengths", INT64, ["batch"])
        self.max_length = graph.input("max_length", INT64, ["batch"])
        min_length = graph.input("min_length", INT64, [1])
        self.penalty = graph.input("length_penalty", FLOAT, [1])

        encoded = write_encoder(writer, graph, ids, lengths)
        self.picker = Picker.of(writer, graph, ids, Use.STEPS)
        self.most = steps_to_make(writer, graph, self.max_length)
        self.steps = graph.op("Squeeze", self.most)
        self.positions = writer.positions(graph, "decoder", self.most)
        self.early = write_early(graph, self.steps, min_length)
        self.batch = dimension(graph, ids, 0)
        column = join(graph, self.batch, graph.i64(1))
        self.zero, self.one = graph.constant(0, np.int64), graph.constant(1, np.int64)
        start = graph.op("Expand", graph.constant(config.decoder_start_token_id, np.int64), column)
        unseen = graph.op("Expand", self.one, column)
        rows = graph.op("Range", self.zero, graph.op("Squeeze", self.batch), self.one)
        empty = graph.op("ConstantOfShape", join(graph, self.batch, graph.i64(*cache_shape(writer))))
        size = join(graph, graph.op("Mul", self.most, self.batch))
        self.tokens = graph.op("Expand", graph.constant(config.pad_token_id, np.int64), size)
        self.scores = graph.op("Expand", graph.f32(0), size)
        self.caches = cache_names(writer, "past")
        self.memory = cache_names(writer, "cross")
        attended = in_turn(encoded.keys, encoded.values)
        # What every sentence has a row of, with its element type; a phase begins with the rows of those left.
        self.per_row = {
            "token": (start, INT64),
            "seen": (unseen, INT64),
            "row": (rows, INT64),
            "mask": (encoded.mask, INT32),
            **dict.fromkeys(self.caches, (empty, FLOAT)),
            **{name: (value, FLOAT) for name, value in zip(self.memory, attended, strict=True)},
        }

    def write(self) -> Graph:
        """Emit the loop over phases, and the results."""
        graph = self.graph
        phase = self._phase()
        initial = [self.zero, self.tokens, self.scores, *(value for value, _ in self.per_row.values())]
        yes = graph.constant(True, np.bool_)
        final = graph.ops("Loop", self.steps, yes, *initial, outputs=len(initial), body=phase.to_graph())
        shape = join(graph, self.most, self.batch)
        tokens, scores = (graph.op("Transpose", graph.op("Reshape", part, shape), perm=[1, 0]) for part in final[1:3])
        write_results(self.writer, graph, tokens, scores, self.max_length, self.penalty)
        return graph

    def _phase(self) -> Graph:
        """Steps of the same sentences, then their choices put among those of all, and the rows of those that go on."""
        phase = self.graph.body("phase", home=True)
        phase.input("phase_number", INT64, [])
        phase.input("phase_go_on", BOOL, [])
        done = phase.input("done", INT64, [])
        all_tokens, all_scores = phase.input("all_tokens", INT64), phase.input("all_scores", FLOAT)
        state = {name: phase.input(name, kind) for name, (_, kind) in self.per_row.items()}
        count = dimension(phase, state["row"], 0)
        stay = phase.op("Div", phase.op("Mul", count, phase.i64(_STAY[0])), phase.i64(_STAY[1]))
        stay = phase.op("Cast", phase.op("Squeeze", stay), to=FLOAT)
        end = phase.op("Expand", self.picker.candidates.end, join(phase, count, phase.i64(1, 1)))
        before = phase.op("Expand", phase.op("Cast", done, to=INT32), count)
        body = self._step(phase, state, done, stay, end)
        yes = phase.constant(True, np.bool_)
        inputs = [state["token"], state["seen"], before, *(state[name] for name in self.caches)]
        left = phase.op("Sub", self.steps, done)
        results = phase.ops("Loop", left, yes, *inputs, outputs=len(inputs) + 2, body=body.to_graph())
        made = dimension(phase, results[-2], 0)
        until = phase.op("Add", done, phase.op("Squeeze", made))
        times = phase.op("Unsqueeze", phase.op("Range", done, until, self.one), phase.i64(1))
        target = phase.op("Add", phase.op("Mul", times, self.batch), state["row"])  # [steps of this phase, b]
        target = phase.op("Reshape", target, phase.i64(-1))
        chosen = self.picker.candidates.token(phase, phase.op("Reshape", results[-2], phase.i64(-1)))
        all_tokens = phase.op("ScatterElements", all_tokens, target, chosen, axis=0)
        value = phase.op("Reshape", results[-1], phase.i64(-1))
        all_scores = phase.op("ScatterElements", all_scores, target, value, axis=0)
        state.update(zip(("token", "seen"), results[:2], strict=True))
        state.update(zip(self.caches, results[3:-2], strict=True))
        keep = phase.op("Squeeze", phase.op("NonZero", phase.op("Squeeze", state["seen"], phase.i64(1))), phase.i64(0))
        more = phase.op("Greater", phase.op("Squeeze", dimension(phase, keep, 0)), self.zero)
        going = phase.op("And", more, phase.op("Less", until, self.steps))
        phase.outputs([going, until, all_tokens, all_scores], [BOOL, INT64, INT64, FLOAT])
        for name, value in state.items():
            phase.output(phase.op("Gather", value, keep, axis=0), self.per_row[name][1])
        return phase

    def _step(self, phase: Graph, state: dict[str, str], done: str, stay: str, end: str) -> Graph:
        """One token more for each of b sentences.

        Args:
            state: the phase's rows, of which the step reads the encoder's results.
            done: int64 scalar, steps of the phases before.
            stay: fp32 scalar; the phase ends when no more sentences than this are still going.
            end: int64 [b, 1, 1], the candidate that is the end token.
        """
        body = phase.body("step")
        iteration = body.input("iteration", INT64, [])
        body.input("go_on", BOOL, [])
        token, seen = body.input("step_token", INT64), body.input("step_seen", INT64)
        number = body.input("before", INT32)
        past = [body.input(f"step_{name}", FLOAT) for name in self.caches]
        place = body.op("Add", iteration, done)
        position, now = body.op("Gather", self.positions, place), body.op("Gather", self.early, place)
        now = body.op("Expand", now, body.op("Shape", end))
        after = body.op("Add", number, body.constant(1, np.int32))
        counts = (number, body.op("ReduceMax", after, keepdims=0))
        memory = [state[name] for name in self.memory]
        held = Encoded("", state["mask"], memory[0::2], memory[1::2])
        picked = self.picker.write(body, held, token, position, past, counts, end, now)
        still = self._still(body, seen, picked.token)
        active = body.op("Cast", body.op("Cast", still, to=BOOL), to=FLOAT)
        going = body.op("Greater", body.op("ReduceSum", active, keepdims=0), stay)
        outputs = [going, picked.token, still, after, *picked.present, picked.index, picked.score]
        body.outputs(outputs, [BOOL, INT64, INT64, INT32, *(FLOAT for _ in self.caches), INT64, FLOAT])
        return body

    def _still(self, body: Graph, seen: str, token: str) -> str:
        """int64 [b, 1]: 0 for sentences that have ended, now or before."""
        eos = self.config.eos_token_id
        if eos == 0:  # the end is the smallest id, so the minimum of all tokens so far tells
            return body.op("Min", seen, token)
        return body.op("Where", body.op("Equal", token, body.constant(eos, np.int64)), self.zero, seen)
