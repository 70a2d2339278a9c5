"""Memory added while translating to an idle process that has the libraries loaded and a trivial session open.

Added is anonymous memory (private to the process) plus resident pages of the model's own files (mapped, so that
several processes share them). Read from outside, so that the measurement does not count itself.
"""

from __future__ import annotations

import select
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.engines.base import SPECS
from benchmarks.harness.bench import Bench
from benchmarks.harness.environments import environment_for
from benchmarks.harness.errors import expect
from benchmarks.harness.worker import environment, pinning

_INTERVAL = 0.005
_SECONDS = 5.0
_SENTENCES = 40


@dataclass(frozen=True)
class Resident:
    """Bytes of a process that are in memory."""

    anonymous: int
    own: int
    """Pages of the model's files."""
    rss: int
    private: int
    """Pages that no other process maps."""

    def __sub__(self, other: Resident) -> Resident:
        pairs = zip(asdict(self).values(), asdict(other).values(), strict=True)
        return Resident(*(a - b for a, b in pairs))

    @property
    def counted(self) -> int:
        """What the budget counts."""
        return self.anonymous + self.own


def memory(bench: Bench) -> dict[str, Any]:
    """Every engine: steady and peak, private and shared, in bytes above the idle process."""
    settings = bench.settings
    seconds = _SECONDS if settings.turns > 5 else 1.0

    def measured(name: str, path: Path, mode: str) -> dict[str, Any]:
        python = environment_for(name, settings.build).python
        sample = sentences_for(bench.corpus.lines)
        return measure(python, mode, name, path, bench.tokenizer_json, sample, seconds, settings.pinned(1))

    paths = bench.paths(tuple(SPECS))
    rows = [
        {"engine": name, **measured(name, path, "ids" if name.startswith("big") else "text")}
        for name, path in bench.progress(paths.items(), "memory")
    ]
    return {"rows": rows, "seconds": seconds}


def sentences_for(lines: Sequence[str]) -> list[str]:
    """A sample, from the shortest to the longest."""
    ordered = sorted(lines, key=len)
    return ordered[:: max(1, len(ordered) // _SENTENCES)] + ordered[-1:]


def measure(
    python: Path,
    mode: str,
    name: str,
    path: Path,
    tokenizer_json: Path,
    lines: Sequence[str],
    seconds: float,
    cores: list[int],
) -> dict[str, Any]:
    """Memory of one engine at work on these lines for so many seconds, in the environment of ``python``.

    ``mode`` is one of :mod:`benchmarks.parts.memory_child`'s. BenchmarkError if the process fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        sentences = Path(folder) / "sentences.txt"
        sentences.write_text("\n".join(lines), encoding="utf-8")
        command = [str(python), "-m", "benchmarks.parts.memory_child", mode, name]
        command += [str(path), str(tokenizer_json), str(sentences), str(seconds)]
        with subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(1),
            preexec_fn=pinning(cores),
        ) as child:
            found = _watch(child, path.resolve())
    expect(child.returncode == 0, f"the process of {name} ended with status {child.returncode}")
    return found


def _watch(child: subprocess.Popen[str], folder: Path) -> dict[str, Any]:
    assert child.stdin is not None and child.stdout is not None
    expect(child.stdout.readline() == "idle\n", "the measured process did not start")
    with suppress(OSError):  # not everywhere allowed: then VmHWM counts from the start, the imports included
        Path(f"/proc/{child.pid}/clear_refs").write_text("5")
    before = resident(child.pid, folder)
    child.stdin.write("work\n")
    child.stdin.flush()
    phases: dict[str, list[Resident]] = {"loading": [], "working": []}
    for phase, end in (("loading", "loaded\n"), ("working", "done\n")):
        while not select.select([child.stdout], [], [], 0)[0]:
            phases[phase].append(resident(child.pid, folder) - before)
            time.sleep(_INTERVAL)
        expect(child.stdout.readline() == end, f"the measured process stopped while {phase}")
    steady = resident(child.pid, folder) - before
    highest = _status(child.pid, "VmHWM") - before.rss
    child.stdin.close()
    peaks = {phase: max((item.counted for item in found), default=0) for phase, found in phases.items()}
    return {
        "steady": steady.counted,
        "peak": max(*peaks.values(), steady.counted),
        "peak loading": peaks["loading"],
        "peak working": max(peaks["working"], steady.counted),
        "steady parts": asdict(steady),
        "peak RSS": highest,
        "idle RSS": before.rss,
        "samples": sum(map(len, phases.values())),
    }


def resident(process: int, folder: Path) -> Resident:
    """What of a process is in memory, by /proc; ``folder`` holds the model's files."""
    anonymous = own = rss = private = 0
    inside = False
    prefix = f"{folder}/"
    for line in Path(f"/proc/{process}/smaps").read_text().split("\n"):
        head, _, tail = line.partition(" ")
        if head and not head.endswith(":"):
            inside = prefix in line
        elif head in ("Rss:", "Anonymous:", "Private_Clean:", "Private_Dirty:"):
            size = int(tail.split()[0]) * 1024
            if head == "Rss:":
                rss += size
                own += size if inside else 0
            elif head == "Anonymous:":
                anonymous += size
                own -= size if inside else 0
            else:
                private += size
    return Resident(anonymous, own, rss, private)


def _status(process: int, key: str) -> int:
    for line in Path(f"/proc/{process}/status").read_text().split("\n"):
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    return 0
