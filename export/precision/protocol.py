"""What a precision does for the graphs: nodes that read a matrix, and the matrix in the store."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Protocol

from mobilenmt.export.graph import Graph
from mobilenmt.export.weights import Array


class Use(Enum):
    """Which kernel suits a matrix: how many rows of activations it meets at a time."""

    ENCODER = "a whole sentence"
    STEP = "the last token of one sentence, or of a few"
    STEPS = "the last tokens of a beam or of a batch; shares the bytes that STEP stores"


class Precision(Protocol):
    """Emits the nodes that read a matrix, and stores it."""

    name: str

    def linear(self, graph: Graph, x: str, name: str, weight: Array, bias: Array | None, use: Use) -> str:
        """x [..., K] times ``weight`` [N, K] transposed, plus ``bias`` [N] -> [..., N]."""
        ...

    def embed(self, graph: Graph, ids: str, name: str, table: Array, factor: float, *, chosen: bool) -> str:
        """Rows of ``table`` [V, D] for int64 ``ids`` [...], times ``factor`` -> fp32 [..., D]; ``chosen`` if
        :meth:`choose` reads tables, too."""
        ...

    def shift(self, name: str, norm: Array) -> float:
        """What to add to the input of :meth:`score` at ``Use.STEP`` for the output layer ``name``, where its
        LayerNormalization has weights ``norm``."""
        ...

    def operands(self, name: str, *, bias: bool) -> tuple[str, ...]:
        """Names of what :meth:`choose` gives for an output layer ``name`` with a bias or a shift, or without."""
        ...

    def choose(
        self, graph: Graph, ids: str, name: str, table: Array, bias: Array | None, shift: float
    ) -> dict[str, str]:
        """Rows of ``table`` [V, D] and elements of ``bias`` [V] for int64 ``ids`` [n], as :meth:`score` reads them for
        an input to which ``shift`` was added: name of an operand -> value."""
        ...

    def score(self, graph: Graph, x: str, chosen: Mapping[str, str], use: Use) -> str:
        """x [..., D] times the chosen rows transposed, plus their bias -> [..., n]."""
        ...

    def project(self, graph: Graph, x: str, name: str, table: Array, rows: int, bias: Array | None) -> str:
        """x [..., D] times the first ``rows`` rows of ``table`` [V, D] transposed, plus ``bias`` -> [..., rows]."""
        ...


def scaled(graph: Graph, x: str, factor: float) -> str:
    """``x`` times a number, which is no node where it is 1."""
    return x if factor == 1.0 else graph.op("Mul", x, graph.f32(factor))
