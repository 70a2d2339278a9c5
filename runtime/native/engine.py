"""The engine on the C core: the same interface as :class:`mobilenmt.runtime.onnx.engine.Engine`, without ONNX Runtime.

What comes out, ids and scores, is the same bit for bit on every processor, alone or together with others, by one thread
or several.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from ctypes import Array, byref, c_uint32, sizeof

from mobilenmt.runtime.background import Watch, for_each
from mobilenmt.runtime.hypothesis import GREEDY, Hypothesis, Phrases, SearchOptions, check_request
from mobilenmt.runtime.native.library import (
    NO_RULE,
    STOPPED,
    Callback,
    Error,
    NativeModel,
    Request,
    Result,
    fail,
)
from mobilenmt.runtime.pack import Pack

_LOOK_UP = 0.05  # seconds between looks for Ctrl-C
_AT_ONCE = 256  # sentences handed over in one call: their results are kept until it ends


class NativeEngine:
    """Searches with the C core. Safe to use from several threads at once.

    Args:
        pack: a pack with a native.bin.
        threads: sentences worked on at once; 0 takes one a core.
        kernels: a set of kernels, for tests; None for the best that runs here.

    Raises:
        EngineError: the C core is not there.
        PackError: the pack's files are damaged.
    """

    def __init__(self, pack: Pack, threads: int = 1, kernels: str | None = None) -> None:
        pack.file("native.bin")
        self.model = NativeModel(pack.path, kernels)
        self._info = pack.manifest.model
        self._tokens = pack.manifest.tokens
        self._defaults = pack.manifest.generation
        self._threads = threads or os.cpu_count() or 1

    @property
    def max_length(self) -> int:
        """Longest output the model has positions for, the start token counted."""
        return self._info.max_positions

    def generate(
        self,
        sources: Sequence[Sequence[int]],
        max_lengths: Sequence[int],
        options: SearchOptions = GREEDY,
        prefixes: Sequence[Sequence[int]] | None = None,
    ) -> list[list[Hypothesis]]:
        """Translate ids, ``options.n_best`` hypotheses each, best first.

        The arguments are those of :meth:`mobilenmt.runtime.onnx.engine.Engine.generate`.

        Raises:
            InputError: an argument is out of range.
            EngineError: memory is short.
            DeadlineError, StoppedError: ``options`` ended it.
        """
        check_request(self._info, sources, max_lengths, options, prefixes, self._tokens.eos)
        watch = Watch(options.seconds, options.stop)

        def work(part: range) -> list[list[Hypothesis]]:
            watch.check()
            limits = [max_lengths[i] for i in part]
            begun = None if prefixes is None else [prefixes[i] for i in part]
            request = self._request([sources[i] for i in part], limits, options, begun)
            if options.phrases is not None:
                _put_phrases(request, options.phrases, part)
            request.callback_seconds = _LOOK_UP
            request.seconds = watch.left or 0.0
            return self._run(request, limits, lambda token: watch.check(), options.token_scores)

        parts = for_each(work, _parts(len(sources), self._threads), self._threads, watch.abandon)
        return [found for part in parts for found in part]

    def search_briefly(self) -> AbstractContextManager[None]:
        """Nothing to do: a beam needs no other model."""
        return nullcontext()

    def steps(self, source: Sequence[int], *, max_length: int) -> Iterator[int]:
        """Greedy search one token at a time, for streaming; yields ids until the end token (not yielded) or the limit.

        The same ids as :meth:`generate` with one beam. A stream that is left early ends the search at the next token.
        """
        check_request(self._info, [source], [max_length], GREEDY)
        found: queue.SimpleQueue[int | BaseException | None] = queue.SimpleQueue()
        left = threading.Event()

        def look(token: int) -> None:
            if left.is_set():
                raise _Left
            found.put(token)

        def work() -> None:
            request = self._request([source], [max_length], GREEDY)
            try:
                self._run(request, [max_length], look)
                found.put(None)
            except BaseException as error:  # handed to the thread that reads the stream
                found.put(error)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        try:
            while (item := found.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                if item == self._tokens.eos:
                    break
                yield item
        finally:
            left.set()
            thread.join()

    def _request(
        self,
        sources: Sequence[Sequence[int]],
        max_lengths: Sequence[int],
        options: SearchOptions,
        prefixes: Sequence[Sequence[int]] | None = None,
    ) -> Request:
        ids = [token for source in sources for token in (*source, self._tokens.eos)]
        request = Request(sizeof(Request), len(sources))
        request.ids = _array(ids)
        request.lengths = _array([len(source) + 1 for source in sources])
        request.max_lengths = _array(max_lengths)
        request.min_length, request.beam_size, request.n_best = options.min_length, options.beam_size, options.n_best
        penalty = self._defaults.length_penalty if options.length_penalty is None else options.length_penalty
        request.length_penalty = penalty
        request.forbidden, request.forbidden_count = _array(options.forbidden), len(options.forbidden)
        if options.no_repeat_ngram is not None:
            request.no_repeat_ngram = min(options.no_repeat_ngram, NO_RULE) or NO_RULE
        request.alignment = options.alignment
        if prefixes is not None:
            request.prefix = _array([token for prefix in prefixes for token in prefix])
            request.prefix_lengths = _array([len(prefix) for prefix in prefixes])
        return request

    def _run(
        self, request: Request, max_lengths: Sequence[int], look: Callable[[int], None], token_scores: bool = False
    ) -> list[list[Hypothesis]]:
        """Translate; ``look`` sees tokens, as many as the request wants, and ends the call by raising."""
        raised: list[BaseException] = []

        def callback(user: object, sentence: int, token: int) -> int:
            try:  # Python also runs the handlers of signals here: that is how Ctrl-C gets through
                look(token)
            except BaseException as error:
                raised.append(error)
            return len(raised)

        request.callback = Callback(callback)
        result, error = Result(sizeof(Result)), Error()
        with self.model.context() as context:
            status = self.model.library.mn_translate(context, byref(request), byref(result), byref(error))
            if status == STOPPED:  # Ctrl-C may also fall between two lines of the callback, where nothing catches it
                raise raised[0] if raised else KeyboardInterrupt
            if status:
                raise fail(error)
            best = request.n_best
            return [
                [self._hypothesis(result, row * best + rank, limit, token_scores) for rank in range(best)]
                for row, limit in enumerate(max_lengths)
            ]

    def _hypothesis(self, result: Result, index: int, max_length: int, token_scores: bool) -> Hypothesis:
        generated, length = result.generated[index], result.lengths[index]
        return Hypothesis(
            tuple(result.ids[index][:length]),
            result.scores[index],
            generated,
            ("truncated",) if generated >= max_length - 1 else (),
            tuple(result.token_scores[index][:generated]) if token_scores else None,
            tuple(result.alignments[index][:length]) if result.alignments else None,
        )


class _Left(Exception):
    """Whoever read a stream has left it."""


def _put_phrases(request: Request, phrases: Phrases, part: range) -> None:
    """Those of some sentences."""
    found = [phrases.of[i] for i in part]
    request.phrases = _array([token for of in found for phrase in of for token in phrase])
    request.phrase_lengths = _array([len(phrase) for of in found for phrase in of])
    request.phrase_counts = _array([len(of) for of in found])
    request.continuing = phrases.continuing or None


def _array(values: Sequence[int]) -> Array[c_uint32]:
    return (c_uint32 * len(values))(*values)


def _parts(count: int, threads: int) -> list[range]:
    """Sentences in parts that lie together, a few for each thread."""
    size = max(1, min(_AT_ONCE, -(-count // threads)))
    return [range(start, min(count, start + size)) for start in range(0, count, size)]
