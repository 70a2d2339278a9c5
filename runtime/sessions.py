"""The sessions of one pack: each graph is opened when it is first needed, and kept.

Every open graph holds its own packed copy of the weights, so none is opened before its time.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from mobilenmt.runtime.errors import EngineError
from mobilenmt.runtime.ort import SessionConfig, first_line, open_session, release_memory, shrinking
from mobilenmt.runtime.pack import Pack

if TYPE_CHECKING:
    import onnxruntime

    Search = tuple[onnxruntime.InferenceSession, onnxruntime.RunOptions | None]
    """A session and how to run it."""


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
        self._stepper: tuple[onnxruntime.InferenceSession, onnxruntime.InferenceSession] | None = None
        self._greedy: onnxruntime.InferenceSession | None = None
        self._batch: Search | None = None
        self._translator: Search | None = None
        self._brief = 0  # blocks of briefly() that share a translator.onnx opened for them
        self.has_greedy = "greedy.onnx" in pack.manifest.files
        self.has_batch = "batch.onnx" in pack.manifest.files  # a pack for a phone need not have it
        if self.has_greedy:
            self.greedy()
        else:
            self._translator = open_session(pack.file("translator.onnx"), config), None

    def greedy(self) -> onnxruntime.InferenceSession:
        """greedy.onnx: one sentence, one hypothesis."""
        with self._lock:
            if self._greedy is None:
                self._greedy = open_session(self._pack.file("greedy.onnx"), self._config)
            return self._greedy

    def batch(self) -> Search:
        """batch.onnx: several sentences, one hypothesis each."""
        with self._lock:
            if self._batch is None:
                self._batch = self._open_search("batch.onnx")
            return self._batch

    def translator(self) -> Search:
        """translator.onnx: one sentence and a beam; for a pack of format 1, everything."""
        with self._lock:
            if self._translator is None:
                self._translator = self._open_search("translator.onnx")
            return self._translator

    def stepper(self) -> tuple[onnxruntime.InferenceSession, onnxruntime.InferenceSession]:
        """encoder.onnx and decoder.onnx: one token at a time."""
        with self._lock:
            if self._stepper is None:
                self._stepper = (
                    open_session(self._pack.file("encoder.onnx"), self._config),
                    open_session(self._pack.file("decoder.onnx"), self._config),
                )
            return self._stepper

    @contextmanager
    def briefly(self) -> Iterator[None]:
        """For a search with beams now and then: in the block the graph for beams stands in place of the greedy one,
        since together they take twice the memory; afterwards it is as before. A graph for beams that was open stays.
        """
        with self._lock:
            if self._brief or (self._translator is None and not self._config.arena):
                self._brief += 1
                self._greedy = None
            brief = self._brief > 0
        try:
            yield
        finally:
            if brief:
                with self._lock:
                    self._brief -= 1
                    last = self._brief == 0
                    if last:
                        self._translator = None
                if last:
                    release_memory()
                    self.greedy()

    def _open_search(self, name: str) -> Search:
        """A graph for several rows, and how to run it.

        Its values are large and change size at every step; without an arena the system would hand out and take back
        every one of them.
        """
        session = open_session(self._pack.file(name), self._config, fold=True, arena=True)
        return session, None if self._config.arena else shrinking()


def run_session(
    session: onnxruntime.InferenceSession,
    outputs: list[str],
    feed: dict[str, Any],
    options: onnxruntime.RunOptions | None = None,
) -> list[Any]:
    """The values of ``outputs`` for the inputs ``feed``, both by name.

    Raises:
        EngineError: ONNX Runtime failed.
    """
    try:
        result: list[Any] = session.run(outputs, feed, options)
    except Exception as error:  # onnxruntime raises many types of its own
        raise EngineError(f"ONNX Runtime failed while translating: {first_line(error)}") from error
    return result
