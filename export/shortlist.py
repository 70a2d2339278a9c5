"""A lexical shortlist: the target tokens that may stand in the translation of a given source.

The output layer is the largest matrix that a step reads. Few of its rows can be meant for one sentence: those of
frequent
tokens, and for each source token those that translate it (Schwenk et al. 2007; Kim et al. 2019, "From Research to
Production and Back", section 3.2). They are looked up once a sentence; every step then reads a tenth of the bytes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mobilenmt.export.checkpoint import MarianConfig
from mobilenmt.export.graph import FLOAT, INT8, INT64, Graph
from mobilenmt.export.layers import ModelWriter, dimension
from mobilenmt.export.precision import Use
from mobilenmt.export.weights import Array
from mobilenmt.runtime.errors import CheckpointError

FILE_NAME = "shortlist.npz"
"""Beside a checkpoint's weights; written by :meth:`Shortlist.save`, found by the exporter."""

CANDIDATE_VALUES: dict[str, tuple[int, list[int | str]]] = {
    "candidates": (INT64, ["candidates"]),
    "candidate_rows": (FLOAT, ["candidates", "width"]),  # fp32
    "candidate_columns": (INT8, ["width", "candidates"]),  # int8, and the next one
    "candidate_scale": (FLOAT, ["candidates"]),
    "candidate_offset": (FLOAT, ["candidates"]),  # int8, and where the output layer has a bias
}
"""What encoder.onnx hands to decoder.onnx for the output layer, ``candidates`` to the host: element type and shape."""


@dataclass(frozen=True)
class Shortlist:
    """Target tokens for any source."""

    common: Array
    """int32 [C], ascending: tokens that are always candidates. The end token is among them."""
    lexical: Array
    """int32 [source vocabulary, n]: further candidates for each source token. Short rows repeat an entry."""

    def check(self, config: MarianConfig, banned: tuple[int, ...], forced: int | None) -> None:
        """CheckpointError if this was not made for the model."""
        problem = ""
        if self.common.ndim != 1 or self.lexical.ndim != 2:
            problem = "common must have one dimension, lexical two"
        elif len(self.lexical) != config.vocab_size:
            problem = f"lexical has {len(self.lexical)} rows, the source vocabulary {config.vocab_size}"
        elif self.common.dtype.kind not in "iu" or self.lexical.dtype.kind not in "iu":
            problem = "token ids must be integers"
        elif not self.common.size or not self.lexical.size:
            problem = "it is empty"
        elif min(self.common.min(), self.lexical.min()) < 0:
            problem = "a token id is negative"
        elif max(self.common.max(), self.lexical.max()) >= config.decoder_vocab_size:
            problem = f"a token id is outside the target vocabulary of {config.decoder_vocab_size}"
        elif config.eos_token_id not in self.common:
            problem = "the end token is not among the common tokens"
        elif forced not in (None, config.eos_token_id):
            problem = f"the checkpoint forces the token {forced}, which is not its end token"
        elif np.isin(banned, self.common).any() or np.isin(banned, self.lexical).any():
            problem = "it holds a token that may never be generated"
        if problem:
            raise CheckpointError(f"the shortlist does not fit the checkpoint: {problem}; make it again")

    def candidates(self, source: Array) -> Array:
        """Ascending ids for the int64 ``source`` ids of a sentence: what the graph computes."""
        return np.union1d(self.common, self.lexical[source].ravel())

    def save(self, path: Path) -> None:
        """Write the arrays as an .npz file, which appears complete or not at all."""
        temporary = path.with_name(f"{path.stem}.tmp-{os.getpid()}.npz")
        try:
            np.savez(temporary, common=self.common.astype(np.int32), lexical=self.lexical.astype(np.int32))
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: Path) -> Shortlist:
        """Read what :meth:`save` wrote; CheckpointError if the file is something else."""
        try:
            with np.load(path, allow_pickle=False) as stored:
                return cls(stored["common"], stored["lexical"])
        except Exception as error:  # numpy, zip and the system raise types of their own
            raise CheckpointError(f"{path}: cannot be read as a shortlist: {error}") from None


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
