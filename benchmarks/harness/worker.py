"""The harness's side of an engine's process (:mod:`benchmarks.engines.child`).

Engines run in processes of their own, since their libraries bring thread pools and allocators that disturb one another.
The processes live for a whole part, and the harness lets exactly one work at a time, so that samples interleave (A B A
B) and what a busy machine does to one it does to all.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar

from benchmarks import ROOT
from benchmarks.engines.base import Ids
from benchmarks.engines.child import Answer
from benchmarks.harness.bench import Bench
from benchmarks.harness.errors import BenchmarkError

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")
# OpenMP's threads spin for up to this long after their work; the next engine must not meet them. Seconds.
_SETTLE = 0.25


class Worker:
    """One engine in a process of its own, on the given cores; with a tokenizer it translates texts, else ids.

    The model is open unless ``load`` is False. ``python`` is the interpreter, this one's by default.
    """

    _busy: ClassVar[Worker | None] = None
    """Which worked last."""

    def __init__(
        self,
        name: str,
        path: Path,
        threads: int,
        cores: Sequence[int],
        tokenizer: Path | None = None,
        python: Path | None = None,
        load: bool = True,
    ) -> None:
        self.name = name
        self.threads = threads
        self.process = start(child_command(name, path, threads, tokenizer, python), threads, cores)
        if load:
            self.ask("load")

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        """End the process."""
        try:
            self.process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def generate(
        self,
        sources: list[Ids],
        max_length: int,
        min_length: int = 0,
        beam_size: int = 1,
        warm: int = 0,
        calls: int = 1,
    ) -> Answer:
        """Translate a batch ``warm`` times unmeasured, then ``calls`` times measured.

        Raises:
            BenchmarkError: the engine failed, or did not generate the forced length.
        """
        request: Answer = {"sources": sources, "max_length": max_length, "min_length": min_length}
        answer = self.ask("generate", **request, beam_size=beam_size, warm=warm, calls=calls)
        if min_length == max_length and any(steps != max_length for steps in answer["steps"]):
            raise BenchmarkError(f"{self.name} generated {answer['steps']} tokens where {max_length} were forced")
        return answer

    def ask(self, do: str, /, meanwhile: Callable[[], None] | None = None, **request: Any) -> Answer:
        """The answer to one request; ``meanwhile`` is called again and again until it is there.

        Raises:
            BenchmarkError: the process has ended.
        """
        assert self.process.stdin is not None and self.process.stdout is not None
        if self.threads > 1 and Worker._busy is not self:
            time.sleep(_SETTLE)
        Worker._busy = self
        with suppress(BrokenPipeError):  # the process has ended: reading its answer says so
            self.process.stdin.write(json.dumps({"do": do, **request}) + "\n")
            self.process.stdin.flush()
        while meanwhile and not select.select([self.process.stdout], [], [], 0)[0]:
            meanwhile()
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            raise BenchmarkError(f"{self.name}: its process ended with status {self.process.returncode} (see above)")
        answer: Answer = json.loads(line)
        return answer


@contextmanager
def workers(bench: Bench, names: Sequence[str], threads: int, text: bool = False) -> Iterator[dict[str, Worker]]:
    """A process for each engine, pinned to the same cores; with ``text`` they translate texts instead of ids."""
    tokenizer = bench.tokenizer_json if text else None
    cores = bench.settings.pinned(threads)
    with ExitStack() as stack:
        yield {
            name: stack.enter_context(Worker(name, path, threads, cores, tokenizer))
            for name, path in bench.paths(names).items()
        }


def child_command(name: str, path: Path, threads: int, tokenizer: Path | None, python: Path | None = None) -> list[str]:
    """Command line of an engine's process."""
    module = "benchmarks.engines.child"
    return [str(python or sys.executable), "-m", module, name, str(path), str(threads), str(tokenizer or "")]


def start(command: Sequence[str], threads: int, cores: Sequence[int], harness: bool = True) -> subprocess.Popen[str]:
    """Start a process on these cores, with so many threads for every library; with ``harness`` it finds this code."""
    kept = {key: value for key, value in os.environ.items() if key not in ("PYTHONDONTWRITEBYTECODE", "PYTHONPATH")}
    kept |= dict.fromkeys(_THREAD_VARIABLES, str(threads)) | {"TOKENIZERS_PARALLELISM": "false"}
    if harness:
        kept["PYTHONPATH"] = str(ROOT)
    can_pin = bool(cores) and hasattr(os, "sched_setaffinity")
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=kept,
        preexec_fn=(lambda: os.sched_setaffinity(0, cores)) if can_pin else None,
    )
