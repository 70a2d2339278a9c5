"""Shards of a data set: a few thousand pairs each, tokenized by several processes, kept until all are there.

A shard's file is named after the hash of its text and of what decides its ids, so a build that was killed finds what it
has made, and neither its bytes nor their order depend on the number of processes. The processes are
``python -m mobilenmt.compression.dataset.shards JOB``: a request a line on standard input, an answer a line on standard
output. They end with their input, so none outlives a parent that was killed.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
import json
import os
import queue
import subprocess
import sys
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from mobilenmt.compression.core.errors import CorpusError
from mobilenmt.compression.core.pairs import Pair
from mobilenmt.compression.vocabulary.vocabulary import Vocabulary
from mobilenmt.runtime.atomic import atomic_path, remove

SIDES = ("source", "target")
PAIRS = 50_000
"""Pairs of a shard: seconds of work, which a kill can cost each process."""
_BATCH = 2048  # pairs tokenized in one call: enough to keep the tokenizers library's threads busy


@dataclass(frozen=True)
class Job:
    """What decides the ids of a text, and where shards lie; texts and numbers, as it goes over a command line."""

    folder: str
    tokenizer: str
    """tokenizer.json"""
    digest: str
    """Its SHA-256."""
    dtype: str
    max_tokens: int

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The tokenizer, loaded."""
        return Vocabulary.load(Path(self.tokenizer))

    def path(self, request: bytes) -> Path:
        """File of a shard."""
        name = hashlib.sha256(f"{self.digest} {self.dtype} {self.max_tokens}\n".encode() + request)
        return Path(self.folder) / f"{name.hexdigest()}.npz"


def make_shards(
    job: Job, stream: Iterator[tuple[str, Pair]], processes: int
) -> Generator[tuple[Path, int], None, None]:
    """Make the shards of a stream of (what it is, pair), or find them made; yield file and pairs of each, in order.

    Raises:
        OSError: a file cannot be written.
        CorpusError: a process ended by itself.
    """
    requests = iter(lambda: [(kind, *pair[:2]) for kind, pair in itertools.islice(stream, PAIRS)], [])
    first = list(itertools.islice(requests, 2))
    with contextlib.ExitStack() as stack:
        make: Callable[[bytes], None] = lambda request: make_shard(job, request)  # noqa: E731
        if processes > 1 and len(first) > 1:  # a process takes longer to start than a small text to tokenize
            make = stack.enter_context(_workers(job))
        pool = ThreadPoolExecutor(processes)
        stack.callback(pool.shutdown, cancel_futures=True)

        def find(rows: Sequence[tuple[str, ...]]) -> tuple[Path, int]:
            request = json.dumps(rows).encode()
            path = job.path(request)
            if not _is_whole(path):
                remove(path)
                make(request)
            return path, len(rows)

        waiting: deque[Future[tuple[Path, int]]] = deque()
        for rows in itertools.chain(first, requests):
            waiting.append(pool.submit(find, rows))
            if len(waiting) > 2 * processes:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


@contextlib.contextmanager
def _workers(job: Job) -> Iterator[Callable[[bytes], None]]:
    """Yields what gives a process a request and waits for its answer; it starts one if none is idle."""
    command = [sys.executable, "-m", __name__, json.dumps(asdict(job))]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TOKENIZERS_PARALLELISM": "false"}
    idle: queue.SimpleQueue[subprocess.Popen[bytes]] = queue.SimpleQueue()
    pipe = subprocess.PIPE

    def make(request: bytes) -> None:
        try:
            worker = idle.get_nowait()
        except queue.Empty:
            # in a group of its own: Ctrl-C goes to all of ours, and the parent ends its processes
            started = subprocess.Popen(command, stdin=pipe, stdout=pipe, env=environment, process_group=0)
            worker = stack.enter_context(started)
        assert worker.stdin is not None and worker.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            worker.stdin.write(request + b"\n")
            worker.stdin.flush()
        answer = worker.stdout.readline()
        idle.put(worker)
        if not answer:
            with contextlib.suppress(BrokenPipeError):
                worker.stdin.close()
            raise CorpusError(f"a process that tokenizes ended with {worker.wait()}; out of memory? Run again to go on")
        if error := json.loads(answer):
            raise OSError(*error)

    with contextlib.ExitStack() as stack:
        yield make


def make_shard(job: Job, request: bytes) -> None:
    """Tokenize a shard and write its file: ids and lengths of both sides, and counts."""
    counts: Counter[str] = Counter()
    rows = json.loads(request)
    kept: dict[str, list[list[int]]] = {side: [] for side in SIDES}
    for start in range(0, len(rows), _BATCH):
        kinds, *texts = zip(*rows[start : start + _BATCH], strict=True)
        for kind, source, target in zip(kinds, *map(job.vocabulary.encode_batch, texts), strict=True):
            if max(len(source), len(target)) >= job.max_tokens:  # </s> comes on top
                counts["too_long"] += 1
            elif not source or not target:
                counts["empty"] += 1
            else:
                counts.update(("pairs", kind))
                kept["source"].append([*source, job.vocabulary.eos])
                kept["target"].append([*target, job.vocabulary.eos])
    arrays = {"counts": np.array(json.dumps(counts))}
    for side, sentences in kept.items():
        arrays[side] = np.fromiter(itertools.chain.from_iterable(sentences), np.dtype(job.dtype))
        arrays[f"{side}_lengths"] = np.fromiter(map(len, sentences), np.int32, len(sentences))
    written = io.BytesIO()  # a zip file that a full disk cuts complains again when it is thrown away
    np.savez(written, **arrays)
    with atomic_path(job.path(request)) as temporary:
        temporary.write_bytes(written.getbuffer())


def read_shard(path: Path, name: str) -> NDArray[Any]:
    """An array of a shard's file. Raises CorpusError if it is damaged."""
    try:
        with np.load(path) as arrays:
            found: NDArray[Any] = arrays[name]
            return found
    except (OSError, ValueError, KeyError, EOFError, TypeError, RuntimeError, BadZipFile) as error:
        raise CorpusError(f"{path}: damaged ({error}); run again to have it made anew") from error


def _is_whole(path: Path) -> bool:
    """Whether a shard is there, each array with the check sum it was written with."""
    names = ("counts", *SIDES, *(f"{side}_lengths" for side in SIDES))
    try:
        return path.exists() and all(read_shard(path, name) is not None for name in names)
    except CorpusError:
        return False


def serve(job: Job, requests: Iterable[bytes]) -> Iterator[str]:
    """Make shards; yield an answer for each, null or what OSError was raised with."""
    for request in requests:
        try:
            make_shard(job, request.rstrip(b"\n"))
            yield "null"
        except OSError as error:
            yield json.dumps([error.errno, error.strerror])


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):  # nobody waits any more
        for answer in serve(Job(**json.loads(sys.argv[1])), sys.stdin.buffer):
            os.write(sys.stdout.fileno(), f"{answer}\n".encode())
