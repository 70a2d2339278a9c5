"""The sessions of one pack: each graph is opened when it is first needed, and kept.

Every open graph holds its own packed copy of the weights, so none is opened before its time.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from mobilenmt.runtime.background import Watch
from mobilenmt.runtime.errors import EngineError
from mobilenmt.runtime.onnx.ort import (
    SessionConfig,
    first_line,
    load_onnxruntime,
    open_session,
    release_memory,
    shrinking,
)
from mobilenmt.runtime.pack import Pack

if TYPE_CHECKING:
    import onnxruntime

    Search = tuple[onnxruntime.InferenceSession, onnxruntime.RunOptions | None]
    """A session and how to run it."""


_LOOK_UP = 0.02  # seconds between looks whether a run has to end


class Sessions:
    """The graphs of one pack. Safe to use from several threads at once.

    greedy.onnx is opened at once, the others at their first use. A pack of format 1 has no greedy.onnx; its
    translator.onnx does everything and is opened in its place.

    Args:
        pack: the pack whose graphs these are.
        config: how they are run.

    Raises:
        InputError: a provider that this onnxruntime does not have.
        EngineError: onnxruntime refuses the graph.
    """

    def __init__(self, pack: Pack, config: SessionConfig) -> None:
        self._pack = pack
        self._config = config
        self._lock = threading.Lock()
        self._open: dict[str, Search] = {}
        self._brief = 0  # blocks of briefly() that share a translator.onnx opened for them
        self.has_greedy = "greedy.onnx" in pack.manifest.files
        self.has_batch = "batch.onnx" in pack.manifest.files  # a pack for a phone need not have it
        if self.has_greedy:
            self.greedy()
        else:
            self._open["translator.onnx"] = open_session(pack.file("translator.onnx"), config), None

    def greedy(self) -> onnxruntime.InferenceSession:
        """greedy.onnx: one sentence, one hypothesis."""
        return self._get("greedy.onnx")[0]

    def batch(self) -> Search:
        """batch.onnx: several sentences, one hypothesis each."""
        return self._get("batch.onnx", rows=True)

    def translator(self) -> Search:
        """translator.onnx: one sentence and a beam; for a pack of format 1, everything."""
        return self._get("translator.onnx", rows=True)

    def stepper(self) -> tuple[onnxruntime.InferenceSession, onnxruntime.InferenceSession]:
        """encoder.onnx and decoder.onnx: one token at a time."""
        return self._get("encoder.onnx")[0], self._get("decoder.onnx")[0]

    @contextmanager
    def briefly(self) -> Iterator[None]:
        """For a search with beams now and then: in the block the graph for beams stands in place of the greedy one,
        since together they take twice the memory; afterwards it is as before. A graph for beams that was open stays.
        """
        with self._lock:
            if self._brief or ("translator.onnx" not in self._open and not self._config.arena):
                self._brief += 1
                self._open.pop("greedy.onnx", None)
            brief = self._brief > 0
        try:
            yield
        finally:
            if brief:
                with self._lock:
                    self._brief -= 1
                    last = self._brief == 0
                    if last:
                        self._open.pop("translator.onnx", None)
                if last:
                    release_memory()
                    self.greedy()

    def _get(self, name: str, *, rows: bool = False) -> Search:
        """A graph, opened if it is not, and how to run it.

        The values of one for several ``rows`` are large and change size at every step; without an arena the system
        would hand out and take back every one of them.
        """
        with self._lock:
            if name not in self._open:
                fold = rows or self._pack.manifest.quantization is not None  # forms that are multiplied out, once
                session = open_session(self._pack.file(name), self._config, fold=fold, arena=rows or None)
                self._open[name] = session, shrinking() if rows and not self._config.arena else None
            return self._open[name]


def run_session(
    session: onnxruntime.InferenceSession,
    outputs: list[str],
    feed: dict[str, Any],
    options: onnxruntime.RunOptions | None = None,
    watch: Watch | None = None,
) -> list[Any]:
    """The values of ``outputs`` for the inputs ``feed``, both by name; ended within a node once ``watch`` raises.

    Raises:
        EngineError: ONNX Runtime failed.
        DeadlineError, StoppedError: ``watch`` ended it.
    """
    if watch:
        return _run_watched(session, outputs, feed, shrinking() if options else load_onnxruntime().RunOptions(), watch)
    try:
        result: list[Any] = session.run(outputs, feed, options)
    except Exception as error:  # onnxruntime raises many types of its own
        raise EngineError(f"ONNX Runtime failed while translating: {first_line(error)}") from error
    return result


def _run_watched(
    session: onnxruntime.InferenceSession,
    outputs: list[str],
    feed: dict[str, Any],
    options: onnxruntime.RunOptions,
    watch: Watch,
) -> list[Any]:
    """Another thread looks at ``watch``; ONNX Runtime asks its options before every node, also inside a loop."""
    raised: list[BaseException] = []
    done = threading.Event()

    def look() -> None:
        while not done.wait(_LOOK_UP):
            try:
                watch.check()
            except BaseException as error:  # for the thread that runs the graph
                raised.append(error)
                options.terminate = True
                return

    watch.check()
    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        return run_session(session, outputs, feed, options)
    except EngineError:
        if raised:
            raise raised[0] from None
        raise
    finally:
        done.set()
        thread.join()
