"""Memory added while translating to an idle process that has the libraries loaded and a trivial session open.

Added is anonymous memory (private to the process) plus resident pages of the model's own files (mapped, so that
several processes share them). Read from outside, so that the measurement does not count itself.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnx
import psutil

from benchmarks.engines.base import SPECS
from benchmarks.harness.bench import Bench
from benchmarks.harness.environments import environment_for
from benchmarks.harness.worker import Worker

_INTERVAL = 0.005
_SECONDS = 5.0
_SENTENCES = 40
_TRIVIAL = '<ir_version: 8, opset_import: ["" : 16]> g (float[1] x) => (float[1] y) { y = Identity(x) }'


@dataclass(frozen=True)
class Resident:
    """Bytes of a process that are in memory."""

    anonymous: int
    own: int
    """Pages of the model's files."""
    rss: int

    def __sub__(self, other: Resident) -> Resident:
        return Resident(**{key: value - getattr(other, key) for key, value in asdict(self).items()})

    @property
    def counted(self) -> int:
        """What the budget counts."""
        return self.anonymous + self.own


def memory(bench: Bench) -> dict[str, Any]:
    """Every engine: steady and peak, private and shared, in bytes above the idle process."""
    settings = bench.settings
    seconds = _SECONDS if settings.turns > 5 else 1.0
    lines = sorted(bench.corpus.lines, key=len)
    sample = [*lines[:: max(1, len(lines) // _SENTENCES)], lines[-1]]
    rows = []
    for name, path in bench.progress(bench.paths(tuple(SPECS)).items(), "memory"):
        tokenizer = None if name.startswith("big") else bench.tokenizer_json
        python = environment_for(name, settings.build).python
        with Worker(name, path, 1, settings.pinned(1), tokenizer, python, load=False) as worker:
            rows.append({"engine": name, **measure(worker, path.resolve(), sample, seconds)})
    return {"rows": rows, "seconds": seconds}


def measure(worker: Worker, folder: Path, lines: Sequence[str], seconds: float) -> dict[str, Any]:
    """Memory of one engine at work on these lines for so many seconds; ``folder`` holds its model.

    ``worker`` has not loaded the model yet. BenchmarkError if its process fails.
    """
    process = worker.process.pid
    worker.ask("idle", trivial=onnx.parser.parse_model(_TRIVIAL).SerializeToString().hex())
    with suppress(OSError):  # not everywhere allowed: then VmHWM counts from the start, the imports included
        Path(f"/proc/{process}/clear_refs").write_text("5")
    before = resident(process, folder)

    def watch(do: str, **request: Any) -> int:
        """The most that was added during a request."""
        seen = [0]

        def sample() -> None:
            seen.append((resident(process, folder) - before).counted)
            time.sleep(_INTERVAL)

        worker.ask(do, sample, **request)
        return max(seen)

    loading, working = watch("load"), watch("work", texts=lines, seconds=seconds)
    steady = resident(process, folder) - before
    return {
        "steady": steady.counted,
        "peak": max(loading, working, steady.counted),
        "peak loading": loading,
        "peak working": max(working, steady.counted),
        "steady parts": asdict(steady),
        "peak RSS": _highest_rss(process) - before.rss,
        "idle RSS": before.rss,
    }


def resident(process: int, folder: Path) -> Resident:
    """What of a process is in memory; ``folder`` holds the model's files."""
    maps = psutil.Process(process).memory_maps(grouped=False)
    return Resident(
        anonymous=sum(item.anonymous for item in maps),
        own=sum(item.rss - item.anonymous for item in maps if item.path.startswith(f"{folder}/")),
        rss=sum(item.rss for item in maps),
    )


def _highest_rss(process: int) -> int:
    """The kernel's own record, which psutil does not tell on Linux."""
    found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{process}/status").read_text())
    return int(found[1]) * 1024 if found else 0
