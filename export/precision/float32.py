"""fp32: the reference, and a form for matrices that lose much by rounding."""

from __future__ import annotations

from collections.abc import Mapping

from mobilenmt.export.graph import Graph
from mobilenmt.export.precision.protocol import Precision, Use, scaled
from mobilenmt.export.weights import Array


class FloatRows(Precision):
    """A table whose rows come out as floats where a shortlist chooses them, and are multiplied so."""

    def shift(self, name: str, norm: Array) -> float:
        return 0.0

    def operands(self, name: str, *, bias: bool) -> tuple[str, ...]:
        return ("candidate_rows", "candidate_offset") if bias else ("candidate_rows",)

    def choose(
        self, graph: Graph, ids: str, name: str, table: Array, bias: Array | None, shift: float
    ) -> dict[str, str]:
        values = [self.embed(graph, ids, name, table, 1.0, chosen=True)]
        if bias is not None:
            values.append(graph.op("Gather", graph.weight(f"{name}.offset", bias), ids))
        return dict(zip(self.operands(name, bias=bias is not None), values, strict=True))

    def score(self, graph: Graph, x: str, chosen: Mapping[str, str], use: Use) -> str:
        return score_rows(graph, x, chosen)


class Float32(FloatRows):
    """Plain matrices, each stored as the checkpoint has it: [out, in]."""

    name = "fp32"

    def linear(self, graph: Graph, x: str, name: str, weight: Array, bias: Array | None, use: Use) -> str:
        y = graph.op("FusedMatMul", x, graph.weight(name, weight), transB=1)
        return y if bias is None else graph.op("Add", y, graph.weight(f"{name}.bias", bias))

    def embed(self, graph: Graph, ids: str, name: str, table: Array, factor: float, *, chosen: bool) -> str:
        return scaled(graph, graph.op("Gather", graph.weight(name, table), ids), factor)

    def project(self, graph: Graph, x: str, name: str, table: Array, rows: int, bias: Array | None) -> str:
        graph.weight(name, table)
        y = graph.op("FusedMatMul", x, graph.weight_rows(f"{name}.{rows}", name, rows), transB=1)
        return y if bias is None else graph.op("Add", y, graph.weight(f"{name}.bias.{rows}", bias[:rows]))


def score_rows(graph: Graph, x: str, chosen: Mapping[str, str]) -> str:
    """x [..., D] times the chosen fp32 rows transposed, plus their bias -> [..., n]."""
    rows, *offset = chosen.values()
    y = graph.op("FusedMatMul", x, rows, transB=1)
    return graph.op("Add", y, *offset) if offset else y
