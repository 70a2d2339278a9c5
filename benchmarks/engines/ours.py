"""Our own engines: the C core, and the graphs on ONNX Runtime."""

from __future__ import annotations

from typing import ClassVar

from benchmarks.engines.base import Engine, Ids
from mobilenmt.runtime.hypothesis import Hypothesis, SearchOptions
from mobilenmt.runtime.onnx.ort import SessionConfig
from mobilenmt.runtime.opening import open_engine
from mobilenmt.runtime.pack import Pack


class Onnx(Engine):
    """A pack's graphs. Our engine pads the rows, so that is timed."""

    engine: ClassVar[str] = "onnx"

    def __init__(self, path: str, threads: int) -> None:
        _, self.search, _ = open_engine(Pack.open(path), self.engine, SessionConfig(threads=threads))

    def prepare(self, sources: list[Ids]) -> list[Ids]:
        return sources

    def run(self, prepared: list[Ids], beam_size: int, min_length: int, max_length: int) -> list[list[Hypothesis]]:
        limits = [max_length + 1] * len(prepared)  # the start token is counted there
        options = SearchOptions(beam_size, min_length=min_length + 1, together=True)
        return self.search.generate(prepared, limits, options)

    def outputs(self, result: list[list[Hypothesis]]) -> list[tuple[Ids, int]]:
        return [(list(found[0].ids), found[0].generated) for found in result]


class Native(Onnx):
    """A pack on the C core."""

    engine = "native"
