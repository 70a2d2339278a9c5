"""Our own engine."""

from __future__ import annotations

from benchmarks.engines.base import Engine, Ids
from mobilenmt.runtime.engine import Engine as Runtime
from mobilenmt.runtime.engine import Hypothesis
from mobilenmt.runtime.ort import SessionConfig
from mobilenmt.runtime.pack import Pack


class Ours(Engine):
    """A pack. Its engine pads the rows, so that is timed."""

    def __init__(self, path: str, threads: int) -> None:
        self.engine = Runtime(Pack.open(path), SessionConfig(threads=threads))

    def prepare(self, sources: list[Ids]) -> list[Ids]:
        return sources

    def run(self, prepared: list[Ids], beam_size: int, min_length: int, max_length: int) -> list[list[Hypothesis]]:
        limits = [max_length + 1] * len(prepared)  # the start token is counted there
        return self.engine.generate(
            prepared, max_lengths=limits, min_length=min_length + 1, beam_size=beam_size, together=True
        )

    def outputs(self, result: list[list[Hypothesis]]) -> list[tuple[Ids, int]]:
        return [(list(found[0].ids), found[0].generated) for found in result]
