"""Each matrix of a pack in its own form."""

from __future__ import annotations

from collections.abc import Mapping

from mobilenmt.export.graph import Graph
from mobilenmt.export.precision.float32 import Float32, score_rows
from mobilenmt.export.precision.int4 import Int4
from mobilenmt.export.precision.int8 import Int8
from mobilenmt.export.precision.protocol import Precision, Use
from mobilenmt.export.precision.wide import WideInt8
from mobilenmt.export.quantize.quantizer import Quantizer
from mobilenmt.export.weights import Array


class Mixed(Precision):
    """Hands every matrix to the precision of its form."""

    name = "int8"

    def __init__(self, quantizer: Quantizer) -> None:
        self.quantizer = quantizer
        int8 = Int8(quantizer)
        self._int8 = int8
        self._kinds: dict[str, Precision] = {
            "int8": int8,
            "int8-wide": WideInt8(quantizer),
            "int4": Int4(quantizer),
            "fp32": Float32(),
        }

    def _of(self, name: str) -> Precision:
        return self._kinds[self.quantizer.form(name).kind]

    def linear(self, graph: Graph, x: str, name: str, weight: Array, bias: Array | None, use: Use) -> str:
        return self._of(name).linear(graph, x, name, weight, bias, use)

    def embed(self, graph: Graph, ids: str, name: str, table: Array, factor: float, *, chosen: bool) -> str:
        return self._of(name).embed(graph, ids, name, table, factor, chosen=chosen)

    def shift(self, name: str, norm: Array) -> float:
        return self._of(name).shift(name, norm)

    def operands(self, name: str, *, bias: bool) -> tuple[str, ...]:
        return self._of(name).operands(name, bias=bias)

    def choose(
        self, graph: Graph, ids: str, name: str, table: Array, bias: Array | None, shift: float
    ) -> dict[str, str]:
        return self._of(name).choose(graph, ids, name, table, bias, shift)

    def score(self, graph: Graph, x: str, chosen: Mapping[str, str], use: Use) -> str:
        if "candidate_rows" in chosen:
            return score_rows(graph, x, chosen)
        return self._int8.score(graph, x, chosen, use)

    def project(self, graph: Graph, x: str, name: str, table: Array, rows: int, bias: Array | None) -> str:
        return self._of(name).project(graph, x, name, table, rows, bias)
