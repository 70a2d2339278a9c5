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
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, ClassVar

from benchmarks import ROOT
from benchmarks.engines.base import SPECS, Engine, Ids
from benchmarks.engines.textual import open_text
from benchmarks.harness.errors import BenchmarkError

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
    """One engine in a process of its own, on the given cores; with a tokenizer it translates texts, else ids."""

    _busy: ClassVar[Worker | None] = None
    """Which worked last."""

    def __init__(self, name: str, path: str, threads: int, cores: list[int], tokenizer: str = "") -> None:
        self.name = name
        self.threads = threads
        command = [sys.executable, "-m", "benchmarks.harness.worker", name, path, str(threads), tokenizer]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(threads),
            preexec_fn=pinning(cores),
        )
        self._answer()

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
        request: dict[str, Any] = {
            "sources": sources,
            "beam_size": beam_size,
            "min_length": min_length,
            "max_length": max_length,
            "warm": warm,
            "calls": calls,
        }
        answer = Answer(**self._ask(request))
        if min_length == max_length and any(steps != max_length for steps in answer.steps):
            raise BenchmarkError(f"{self.name} generated {answer.steps} tokens where {max_length} were forced")
        return answer

    def translate(self, text: str, *, warm: int = 0, calls: int = 1) -> list[float]:
        """Translate a text ``warm`` times unmeasured, then ``calls`` times measured; returns the seconds."""
        seconds: list[float] = self._ask({"text": text, "warm": warm, "calls": calls})["seconds"]
        return seconds

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        if self.threads > 1 and Worker._busy is not self:
            time.sleep(_SETTLE)
        Worker._busy = self
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # the process has ended: reading its answer says so
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            raise BenchmarkError(f"{self.name}: its process ended with status {self._process.returncode} (see above)")
        answer: dict[str, Any] = json.loads(line)
        return answer


def environment(threads: int, harness: bool = True) -> dict[str, str]:
    """Environment of a measured process: so many threads for every library, offline; it finds this harness."""
    variables = dict.fromkeys(_THREAD_VARIABLES, str(threads))
    kept = {key: value for key, value in os.environ.items() if key not in ("PYTHONDONTWRITEBYTECODE", "PYTHONPATH")}
    if harness:
        kept["PYTHONPATH"] = str(ROOT)
    return {**kept, **variables, "TOKENIZERS_PARALLELISM": "false"}


def pinning(cores: list[int]) -> Callable[[], None] | None:
    """For ``preexec_fn``: keeps a child on these cores, where the system can do that."""
    if not cores or not hasattr(os, "sched_setaffinity"):
        return None
    return lambda: os.sched_setaffinity(0, cores)


def main(name: str, path: str, threads: str, tokenizer: str) -> None:
    """Serve requests from standard input until it is closed."""
    # Libraries print to standard output; answers go to a copy of it, and what libraries print to standard error.
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    if tokenizer:
        serve = _serve_text(open_text(name, path, tokenizer, int(threads)))
    else:
        serve = _serve_ids(SPECS[name].load(path, int(threads)))
    print(json.dumps({"ready": name}), file=out, flush=True)
    for line in sys.stdin:
        print(json.dumps(serve(json.loads(line))), file=out, flush=True)


def _serve_text(translate: Callable[[str], str]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def serve(request: dict[str, Any]) -> dict[str, Any]:
        seconds, _ = _timed(lambda: translate(request["text"]), request)
        return {"seconds": seconds}

    return serve


def _serve_ids(engine: Engine) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def serve(request: dict[str, Any]) -> dict[str, Any]:
        prepared = engine.prepare(request["sources"])
        settings = request["beam_size"], request["min_length"], request["max_length"]
        seconds, result = _timed(lambda: engine.run(prepared, *settings), request)
        return {"seconds": seconds, "ids": engine.ids(result), "steps": engine.steps(result)}

    return serve


def _timed(call: Callable[[], Any], request: dict[str, Any]) -> tuple[list[float], Any]:
    for _ in range(request["warm"]):
        call()
    seconds: list[float] = []
    result = None
    for _ in range(request["calls"]):
        start = time.perf_counter()
        result = call()
        seconds.append(time.perf_counter() - start)
    return seconds, result


if __name__ == "__main__":
    main(*sys.argv[1:])
