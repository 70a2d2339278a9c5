"""What every part of a run shares: settings, sentences, the engines' models, progress."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm  # type: ignore[import-untyped, unused-ignore]

from benchmarks.engines.base import SPECS
from benchmarks.harness.errors import expect
from benchmarks.harness.prepare import artifact
from benchmarks.harness.settings import Settings
from benchmarks.harness.text import Corpus, read_corpus

T = TypeVar("T")


class Bench:
    """One run."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.tokenizer_json = settings.checkpoint / "tokenizer.json"

    @cached_property
    def corpus(self) -> Corpus:
        """The sentences, encoded by the checkpoint's tokenizer."""
        return read_corpus(self.settings.sentences, self.tokenizer_json)

    def paths(self, names: Sequence[str]) -> dict[str, Path]:
        """The models of the wanted engines that this run measures, made if needed."""
        wanted = [name for name in names if name in self.settings.engines]
        return {name: artifact(SPECS[name].artifact, self.settings) for name in wanted}

    def path(self, name: str) -> Path:
        """The model of one engine; BenchmarkError if this run leaves that engine out."""
        expect(name in self.settings.engines, f"this part needs the engine {name}")
        return self.paths([name])[name]

    def progress(self, items: Iterable[T], what: str) -> Iterator[T]:
        """Items with a bar on standard error."""
        return iter(tqdm(list(items), desc=what, file=sys.stderr, disable=None))
