"""What is measured, and how often."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import ROOT
from benchmarks.engines.base import SPECS
from benchmarks.harness.errors import expect

SENTENCES = ROOT / "benchmarks" / "sentences.en.txt"
SHIPPED = ROOT / "models" / "en-de"
BUILD = ROOT / "build" / "bench"
RESULTS = ROOT / "benchmarks" / "results"


def available_cores() -> tuple[int, ...]:
    """Cores that this process may use (``taskset`` narrows them)."""
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


@dataclass(frozen=True)
class Settings:
    """One run of the benchmarks. BenchmarkError for a value that makes no sense."""

    checkpoint: Path
    """Folder of the Marian checkpoint that all engines get."""
    pack: Path | None = None
    """Pack for our INT8 engine; None exports the checkpoint."""
    sentences: Path = SENTENCES
    """Text to translate, one sentence a line."""
    dev: tuple[Path, ...] = ()
    """Files with source, tab, reference, for the quality part."""
    dev_lines: int = 1000
    """Lines of each of them."""
    out: Path = RESULTS
    """Folder of results."""
    build: Path = BUILD
    """Folder of converted models; made once."""
    engines: tuple[str, ...] = tuple(SPECS)
    """Names of the engines to compare."""
    lengths: tuple[int, ...] = (5, 10, 20, 25, 30, 50, 75, 100)
    """Source and target tokens of the latency part, the end token counted."""
    beams: tuple[int, ...] = (1, 4)
    """Beam sizes."""
    batches: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)
    """Sentences in a batch."""
    threads: tuple[int, ...] = (1, 2)
    """Threads of an engine."""
    turns: int = 20
    """Turns of each engine in each setting."""
    turn_seconds: float = 0.15
    """An engine goes on within its turn until about this time has passed, five calls at most."""
    cores: tuple[int, ...] = field(default_factory=available_cores)
    """Cores to use; n threads are pinned to the last n of them."""

    def __post_init__(self) -> None:
        unknown = [name for name in self.engines if name not in SPECS]
        expect(not unknown, f"no engine {', '.join(unknown)}; there are {', '.join(SPECS)}")
        expect(bool(self.engines), "no engine to measure")
        for name in ("lengths", "beams", "batches", "threads"):
            values = getattr(self, name)
            expect(min(values, default=0) >= 1, f"{name} must be whole numbers of at least 1, not {values}")
        expect(min(self.lengths) >= 2, "a length counts the end token, so it is 2 at least")
        expect(
            max(self.threads) <= len(self.cores),
            f"{max(self.threads)} threads need as many cores, and this process may use {len(self.cores)}: "
            "give it more (taskset), or name fewer: --threads 1",
        )
        sensible = self.turns >= 1 and self.turn_seconds >= 0 and self.dev_lines >= 1
        expect(sensible, "turns and dev_lines must be at least 1, turn_seconds not negative")
        for path in (self.sentences, *self.dev):
            expect(path.is_file(), f"there is no file {path}")
        expect(
            (self.checkpoint / "config.json").is_file(),
            f"{self.checkpoint} is no checkpoint (it has no config.json); name one: --checkpoint DIR, a folder with a "
            "Hugging Face Marian model and its tokenizer.json",
        )

    def pinned(self, threads: int) -> list[int]:
        """The cores for an engine of so many threads: the last ones, since systems favour the first."""
        return list(self.cores[-threads:])
