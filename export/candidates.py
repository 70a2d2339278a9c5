"""The output layer in a graph: which target tokens a search chooses from, and their logits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from mobilenmt.export.graph import FLOAT, INT8, INT64, Graph
from mobilenmt.export.layers import ModelWriter, dimension
from mobilenmt.export.precision.protocol import Use

CANDIDATE_VALUES: dict[str, tuple[int, list[int | str]]] = {
    "candidates": (INT64, ["candidates"]),
    "candidate_rows": (FLOAT, ["candidates", "width"]),  # fp32 and int8-wide
    "candidate_columns": (INT8, ["width", "candidates"]),  # int8 and int4, and the next one
    "candidate_scale": (FLOAT, ["candidates"]),
    "candidate_offset": (FLOAT, ["candidates"]),  # int8, and where the output layer has a bias
}
"""What encoder.onnx hands to decoder.onnx for the output layer, ``candidates`` to the host: element type and shape."""


def candidate_value(writer: ModelWriter, name: str) -> tuple[int, list[int | str]]:
    """Element type and shape of one of ``CANDIDATE_VALUES`` for a model."""
    kind, shape = CANDIDATE_VALUES[name]
    return kind, [writer.checkpoint.config.d_model if size == "width" else size for size in shape]


@dataclass(frozen=True)
class Candidates:
    """What a search chooses from, as names of values in the outermost graph; n of them."""

    count: str
    """int64 [1]: n."""
    end: str
    """int64 [1]: which of them is the end token."""
    ids: str | None = None
    """int64 [n]: the token of each, ascending; None: candidate i is token i."""
    operands: Mapping[str, str] = field(default_factory=dict)
    """Their rows of the output layer (:meth:`Precision.choose`); none for the whole output layer."""

    def token(self, graph: Graph, index: str) -> str:
        """Token ids of int64 candidates."""
        return index if self.ids is None else graph.op("Gather", self.ids, index)


def write_candidates(writer: ModelWriter, graph: Graph, ids: str, use: Use, *, rows: int | None = None) -> Candidates:
    """Emit the choice of candidates for int64 source ``ids`` [B, S]: one set for all sentences of a batch.

    Without a shortlist all target tokens are candidates, or the first ``rows`` of them.
    """
    config, shortlist = writer.checkpoint.config, writer.shortlist
    end = graph.i64(config.eos_token_id)
    if shortlist is None:
        return Candidates(graph.i64(rows or config.decoder_vocab_size), end)
    kind = np.uint16 if config.decoder_vocab_size <= 2**16 else np.int32
    flags = np.zeros(config.decoder_vocab_size, np.uint8)
    flags[shortlist.common] = 1
    found = graph.op("Gather", graph.weight("shortlist.lexical", shortlist.lexical.astype(kind)), ids)
    found = graph.op("Reshape", graph.op("Cast", found, to=INT64), graph.i64(-1))
    ones = graph.op("ConstantOfShape", graph.op("Shape", found), value=_one(np.uint8))
    # Marked in a table of all tokens, each is there once however often it was found, and they come out in order.
    flagged = graph.op("ScatterElements", graph.weight("shortlist.common", flags), found, ones, axis=0)
    chosen = graph.op("Squeeze", graph.op("NonZero", flagged), graph.i64(0))
    table = writer.checkpoint["output_embedding"]
    name, shift = writer.table_name("output_embedding"), writer.output_shift(use)
    operands = writer.precision.choose(graph, chosen, name, table, writer.output_bias, shift)
    before = graph.op("Less", chosen, graph.constant(config.eos_token_id, np.int64))
    end = graph.op("ReduceSum", graph.op("Cast", before, to=INT64), keepdims=1)
    return Candidates(dimension(graph, chosen, 0), end, chosen, operands)


def write_logits(
    writer: ModelWriter, graph: Graph, x: str, candidates: Candidates, use: Use, *, rows: int | None = None
) -> str:
    """Output layer: x [..., d_model] -> one logit for each candidate, [..., n]."""
    if not candidates.operands:
        table = writer.checkpoint["output_embedding"]
        count = rows or len(table)
        return writer.precision.project(
            graph, x, writer.table_name("output_embedding"), table, count, writer.output_bias
        )
    return writer.precision.score(graph, x, candidates.operands, use)


def _one(kind: type) -> object:
    from onnx import numpy_helper

    return numpy_helper.from_array(np.ones(1, kind))
