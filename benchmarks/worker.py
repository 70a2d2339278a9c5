"""A process with one engine, and the harness's side of it.

Engines run in processes of their own, since their libraries bring thread pools and allocators that disturb one another.
The processes live for a whole part, and the harness lets exactly one work at a time, so that samples interleave (A B A
B) and what a busy machine does to one it does to all.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from benchmarks import ROOT
from benchmarks.engines.base import SPECS, Ids
from benchmarks.errors import BenchmarkError

_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "RAYON_NUM_THREADS",
)
# OpenMP's threads spin for up to this long after their work; the next engine must not meet them. Seconds.
_SETTLE = 0.25


@dataclass(frozen=True)
class Answer:
    """What one request gave."""

    seconds: list[float]
    ids: list[Ids]
    steps: list[int]


class Worker:
    """One engine in a process of its own, on the given cores."""

    def __init__(self, name: str, path: str, threads: int, cores: list[int]) -> None:
        self.name = name
        self.threads = threads
        command = [sys.executable, "-m", "benchmarks.worker", name, path, str(threads), ",".join(map(str, cores))]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment(threads), cwd=ROOT
        )
        self.versions: dict[str, str] = self._answer()["versions"]

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the process; nothing happens if it has ended."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        try:
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def generate(
        self,
        sources: list[Ids],
        *,
        beam_size: int = 1,
        min_length: int = 0,
        max_length: int,
        warm: int = 0,
        calls: int = 1,
    ) -> Answer:
        """Translate a batch ``warm`` times unmeasured, then ``calls`` times measured.

        Raises:
            BenchmarkError: the engine failed, or did not generate the forced length.
        """
        request = {
            "sources": sources,
            "beam_size": beam_size,
            "min_length": min_length,
            "max_length": max_length,
            "warm": warm,
            "calls": calls,
        }
        assert self._process.stdin is not None
        if self.threads > 1:
            time.sleep(_SETTLE)
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = Answer(**self._answer())
        if min_length == max_length and any(steps != max_length for steps in answer.steps):
            raise BenchmarkError(f"{self.name} generated {answer.steps} tokens where {max_length} were forced")
        return answer

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            raise BenchmarkError(f"{self.name}: its process ended with status {self._process.returncode} (see above)")
        answer: dict[str, Any] = json.loads(line)
        return answer


def environment(threads: int) -> dict[str, str]:
    """Environment of a measured process: so many threads for every library, found from anywhere, offline."""
    variables = dict.fromkeys(_THREAD_VARIABLES, str(threads))
    path = os.pathsep.join([str(ROOT), str(ROOT / "src")])
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, **variables, "PYTHONPATH": path, "TOKENIZERS_PARALLELISM": "false"}


def pin(cores: list[int]) -> None:
    """Keep this process on these cores, where the system can do that."""
    if hasattr(os, "sched_setaffinity") and cores:
        os.sched_setaffinity(0, cores)


def main(name: str, path: str, threads: str, cores: str) -> None:
    """Serve requests from standard input until it is closed."""
    pin([int(core) for core in cores.split(",") if core])
    # Libraries print to standard output; answers go to a copy of it, and what libraries print to standard error.
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    engine = SPECS[name].load(path, int(threads))
    print(json.dumps({"versions": _versions(name)}), file=out, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        prepared = engine.prepare(request["sources"])
        settings = request["beam_size"], request["min_length"], request["max_length"]
        for _ in range(request["warm"]):
            engine.run(prepared, *settings)
        seconds = []
        for _ in range(request["calls"]):
            start = time.perf_counter()
            result = engine.run(prepared, *settings)
            seconds.append(time.perf_counter() - start)
        answer = {"seconds": seconds, "ids": engine.ids(result), "steps": engine.steps(result)}
        print(json.dumps(answer), file=out, flush=True)


def _versions(name: str) -> dict[str, str]:
    from importlib.metadata import version

    return {package: version(package) for package in SPECS[name].requirements}


if __name__ == "__main__":
    main(*sys.argv[1:])
