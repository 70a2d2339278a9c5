"""What is measured, and how often."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import ROOT
from benchmarks.engines.base import ALWAYS, SPECS
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


def _help(text: str) -> dict[str, str]:
    return {"help": text}


@dataclass(frozen=True)
class Settings:
    """One run of the benchmarks; what has a ``help`` is an option of ``script/bench``.

    BenchmarkError for a value that makes no sense.
    """

    checkpoint: Path = field(metadata=_help("Marian checkpoint that all engines get; default: the pack's weights"))
    pack: Path | None = field(default=None, metadata=_help("our pack; default: the checkpoint's, or the shipped one"))
    sentences: Path = field(default=SENTENCES, metadata=_help("text to translate, one sentence a line"))
    dev: tuple[Path, ...] = field(default=(), metadata=_help("files of source, tab, reference, for the quality part"))
    dev_lines: int = field(default=1000, metadata=_help("lines of each of them"))
    engines: tuple[str, ...] = field(default=ALWAYS, metadata=_help(f"some of: {', '.join(SPECS)}"))
    lengths: tuple[int, ...] = field(default=(5, 10, 20, 25, 30, 50, 75, 100), metadata=_help("tokens of a sentence"))
    beams: tuple[int, ...] = field(default=(1, 4), metadata=_help("beam sizes"))
    batches: tuple[int, ...] = field(default=(1, 2, 4, 8, 16, 32, 64), metadata=_help("sentences in a batch"))
    threads: tuple[int, ...] = field(default=(1, 2), metadata=_help("threads of an engine"))
    turns: int = field(default=20, metadata=_help("turns of each engine in each setting"))
    turn_seconds: float = field(default=0.15, metadata=_help("length of a turn; five calls at most"))
    build: Path = field(default=BUILD, metadata=_help("folder of converted models, made once"))
    out: Path = field(default=RESULTS, metadata=_help("folder of results; of a partial run: build/bench/out"))
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
