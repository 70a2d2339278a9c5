"""What a beam search ends with: the best hypotheses, followed back through the choices of all its steps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mobilenmt.export.candidates import Candidates
from mobilenmt.export.encoder import rename
from mobilenmt.export.graph import BOOL, FLOAT, INT64, Graph
from mobilenmt.export.layers import ModelWriter, dimension

NEVER = float("-inf")
"""The score of what may not be chosen at the end."""


@dataclass(frozen=True)
class Steps:
    """What the steps of a search chose, t of them: ``scores`` fp32 [t, 2K] and ``index`` int64 [t, 2K] of the best
    continuations, hypothesis * n + candidate; ``tokens`` and ``parents`` int64 [t, K] of those that went on."""

    scores: str
    index: str
    tokens: str
    parents: str


def write_results(
    writer: ModelWriter,
    graph: Graph,
    found: Steps,
    open_: str,
    candidates: Candidates,
    first: str,
    last: str,
    penalty: str,
) -> None:
    """The K best of all hypotheses that ended, as ``sequences`` and ``scores``."""
    forced = writer.checkpoint.generation.forced_eos_token_id
    zero, one, flat = graph.constant(0, np.int64), graph.constant(1, np.int64), graph.i64(-1)
    beams = dimension(graph, found.tokens, 1)
    made = graph.op("Squeeze", dimension(graph, found.scores, 0))
    number = graph.op("Unsqueeze", graph.op("Range", zero, made, one), graph.i64(1))  # [t, 1]
    candidate = graph.op("Mod", found.index, candidates.count)
    ends = graph.op("Equal", candidate, candidates.end)
    longest = graph.op("Sub", last, graph.i64(1))
    if forced is None:
        ends = graph.op("Or", ends, graph.op("Equal", number, longest))
    else:
        ends = graph.op("And", ends, graph.op("Less", number, longest))
    ends = graph.op("And", ends, first)
    norm = graph.op("Pow", graph.op("Cast", graph.op("Add", number, one), to=FLOAT), penalty)
    ended = graph.op("Where", ends, graph.op("Div", found.scores, norm), graph.f32(NEVER))
    ended = graph.op("Reshape", ended, flat)
    token = graph.op("Reshape", candidates.token(graph, candidate), flat)
    parent = graph.op("Reshape", graph.op("Div", found.index, candidates.count), flat)
    step = graph.op("Reshape", graph.op("Expand", number, graph.op("Shape", found.index)), flat)
    if forced is not None:
        norm = graph.op("Pow", graph.op("Cast", last, to=FLOAT), penalty)
        ended = graph.op("Concat", ended, graph.op("Div", open_, norm), axis=0)
        token = graph.op("Concat", token, graph.op("Expand", graph.constant(forced, np.int64), beams), axis=0)
        parent = graph.op("Concat", parent, graph.op("Range", zero, graph.op("Squeeze", beams), one), axis=0)
        step = graph.op("Concat", step, graph.op("Expand", longest, beams), axis=0)
    scores, chosen = graph.ops("TopK", ended, beams, outputs=2, axis=0)
    token, parent, step = (graph.op("Gather", values, chosen) for values in (token, parent, step))
    sequences = _follow(writer, graph, found, token, parent, step)
    rename(graph, graph.op("Unsqueeze", sequences, graph.i64(0)), "sequences", INT64, [1, "beams", "target"])
    rename(graph, graph.op("Unsqueeze", scores, graph.i64(0)), "scores", FLOAT, [1, "beams"])


def _follow(writer: ModelWriter, graph: Graph, found: Steps, token: str, parent: str, step: str) -> str:
    """Follow hypotheses back to their start: int64 [K, T], filled up with the pad token.

    Each ends with ``token`` [K] at ``step`` [K] after hypothesis ``parent`` [K]. A hypothesis of a step has a place,
    step * K + its number; a table says for each place which one it continues.
    """
    zero, one, flat = graph.constant(0, np.int64), graph.constant(1, np.int64), graph.i64(-1)
    beams = dimension(graph, found.tokens, 1)
    made = graph.op("Squeeze", dimension(graph, found.tokens, 0))
    rows = graph.op("Unsqueeze", graph.op("Range", zero, made, one), graph.i64(1))
    before = graph.op("Mul", graph.op("Sub", rows, one), beams)
    table = graph.op("Reshape", graph.op("Max", graph.op("Add", found.parents, before), zero), flat)
    tokens = graph.op("Reshape", found.tokens, flat)
    place = graph.op("Add", graph.op("Mul", graph.op("Sub", step, one), beams), parent)
    place = graph.op("Max", place, zero)
    length = graph.op("Add", graph.op("ReduceMax", step, keepdims=0), one)

    body = graph.body("back")
    body.input("back_iteration", INT64, [])
    go_on = body.input("back_go_on", BOOL, [])
    current = body.input("place", INT64)
    body.output(body.op("Identity", go_on), BOOL)
    body.output(body.op("Gather", table, current), INT64)
    body.output(body.op("Identity", current), INT64)
    _, places = graph.ops("Loop", length, graph.constant(True, np.bool_), place, outputs=2, body=body.to_graph())

    at = graph.op("Range", zero, length, one)  # [T]
    step = graph.op("Unsqueeze", step, graph.i64(1))  # [K, 1]
    ago = graph.op("Max", graph.op("Sub", graph.op("Sub", step, one), at), zero)  # [K, T]
    places = graph.op("GatherElements", graph.op("Transpose", places, perm=[1, 0]), ago, axis=1)
    end = graph.op("Equal", at, step)
    pad = graph.constant(writer.checkpoint.config.pad_token_id, np.int64)
    tail = graph.op("Where", end, graph.op("Unsqueeze", token, graph.i64(1)), pad)
    return graph.op("Where", graph.op("Less", at, step), graph.op("Gather", tokens, places), tail)
