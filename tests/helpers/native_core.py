"""Builds the C core for tests and speaks to its public interface (``mobilenmt.h``) through ctypes."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from ctypes import byref, c_char_p, c_float, c_size_t, c_uint32, c_uint64, c_void_p
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mobilenmt.runtime.native.library import Callback, Error, Info, OpenOptions, Request, Result
from native import NATIVE, NativeError, compile_c

SOURCES = tuple(sorted(NATIVE.rglob("*.c")))
FLAGS = ("-O2", "-ffp-contract=off", "-fvisibility=hidden")
OK, ARGUMENT, PACK, MEMORY, STOPPED, DEADLINE, FILE, PAUSED = range(8)


def build(out: Path) -> Path:
    """Compile the whole library."""
    return compile_c(out, *SOURCES, flags=(*FLAGS, "-shared", "-fPIC"))


@dataclass(frozen=True)
class Output:
    """One hypothesis; floats by their bits, so that two are equal only if every bit is."""

    ids: tuple[int, ...]
    generated: int
    score_bits: bytes
    token_score_bits: bytes
    alignment: tuple[int, ...] | None

    @property
    def score(self) -> float:
        return float(np.frombuffer(self.score_bits, np.float32)[0])

    @property
    def token_scores(self) -> npt.NDArray[np.float32]:
        return np.frombuffer(self.token_score_bits, np.float32)


def _array(values: Sequence[int]) -> Any:
    return (c_uint32 * max(1, len(values)))(*values)


class Core:
    """A loaded library."""

    def __init__(self, path: Path) -> None:
        self.library = ctypes.CDLL(str(path))
        self.library.mn_kernels.restype = c_char_p
        self.error = Error()

    @property
    def kernels(self) -> list[str]:
        """What runs here."""
        names = (self.library.mn_kernels(c_uint32(index)) for index in range(99))
        return [name.decode() for name in takewhile(bool, names)]

    def check(self, status: int) -> None:
        if status:
            assert status == self.error.status
            assert self.error.message
            raise NativeError(self.error)

    def open(self, folder: Path, kernels: str | None = None) -> Model:
        """``mn_open``."""
        handle, options = c_void_p(), OpenOptions(ctypes.sizeof(OpenOptions), kernels.encode() if kernels else None)
        self.check(self.library.mn_open(str(folder).encode(), byref(options), byref(handle), byref(self.error)))
        return Model(self, handle)

    def open_memory(self, native: bytes, weights: bytes, kernels: str | None = None) -> Model:
        """``mn_open_memory``."""
        handle, options = c_void_p(), OpenOptions(ctypes.sizeof(OpenOptions), kernels.encode() if kernels else None)
        self.check(
            self.library.mn_open_memory(
                native,
                c_size_t(len(native)),
                weights,
                c_size_t(len(weights)),
                byref(options),
                byref(handle),
                byref(self.error),
            )
        )
        return Model(self, handle, native, weights)


class Model:
    """An open model; what lay in memory is kept."""

    def __init__(self, core: Core, handle: c_void_p, *kept: bytes) -> None:
        self.core, self.handle, self._kept = core, handle, kept

    @property
    def info(self) -> Info:
        found = Info(ctypes.sizeof(Info))
        assert self.core.library.mn_model_info(self.handle, byref(found)) == OK
        return found

    @contextmanager
    def context(self, limit: int = 0) -> Iterator[Context]:
        """A context, freed at the end."""
        handle, error = c_void_p(), Error()
        library = self.core.library
        assert library.mn_context_new(self.handle, c_uint64(limit), byref(handle), byref(error)) == OK
        try:
            yield Context(library, handle)
        finally:
            library.mn_context_free(handle)

    def translate(self, sources: Sequence[Sequence[int]], **request: Any) -> list[Output]:
        """By a context of its own."""
        with self.context() as context:
            return context.translate(sources, **request)

    def close(self) -> None:
        self.core.library.mn_close(self.handle)


class Context:
    """A context."""

    def __init__(self, library: ctypes.CDLL, handle: c_void_p) -> None:
        self._library, self._handle = library, handle
        self.pauses = 0
        """Of the last search that was gone on with."""

    def translate(
        self,
        sources: Sequence[Sequence[int]],
        *,
        max_length: int | Sequence[int] = 20,
        beam_size: int = 1,
        n_best: int = 1,
        prefix: Sequence[int] = (),
        prefixes: Sequence[Sequence[int]] | None = None,
        phrases: Sequence[Sequence[Sequence[int]]] | None = None,
        forbidden: Sequence[int] = (),
        callback: Callable[[int, int], int] | None = None,
        **others: Any,
    ) -> list[Output]:
        """``mn_translate``; other arguments are the request's fields.

        Raises:
            NativeError: whatever it says.
        """
        error, result = Error(), Result(ctypes.sizeof(Result))
        limits = [max_length] * len(sources) if isinstance(max_length, int) else max_length

        if prefixes is not None:
            prefix = [token for tokens in prefixes for token in tokens]
            others["prefix_lengths"] = _array([len(tokens) for tokens in prefixes])
        if phrases is not None:
            others["phrases"] = _array([token for of in phrases for phrase in of for token in phrase])
            others["phrase_lengths"] = _array([len(phrase) for of in phrases for phrase in of])
            others["phrase_counts"] = _array([len(of) for of in phrases])

        def call(_: Any, sentence: int, token: int) -> int:
            assert callback is not None
            return callback(sentence, token)

        request = Request(
            size=ctypes.sizeof(Request), sentences=len(sources), ids=_array([i for ids in sources for i in ids]),
            lengths=_array([len(ids) for ids in sources]), max_lengths=_array(limits), beam_size=beam_size,
            n_best=n_best, prefix=_array(prefix), prefix_length=len(prefix), forbidden=_array(forbidden),
            forbidden_count=len(forbidden), callback=Callback(call if callback else 0), **others,
        )  # fmt: skip
        status, self.pauses = self._library.mn_translate(self._handle, byref(request), byref(result), byref(error)), 0
        while status == PAUSED:
            self.pauses += 1
            status = self._library.mn_resume(self._handle, byref(result), byref(error))
        if status:
            assert status == error.status
            assert error.message
            raise NativeError(error)
        assert result.count == len(sources) * n_best
        return [
            Output(
                tuple(result.ids[i][: result.lengths[i]]),
                result.generated[i],
                bytes(c_float(result.scores[i])),
                np.array(result.token_scores[i][: result.generated[i]], np.float32).tobytes(),
                tuple(result.alignments[i][: result.lengths[i]]) if result.alignments else None,
            )
            for i in range(result.count)
        ]

    def encode(self, text: bytes, room: int = 256) -> list[int]:
        """``mn_encode``."""
        ids, count, error = (c_uint32 * room)(), c_size_t(), Error()
        status = self._library.mn_encode(
            self._handle, text, c_size_t(len(text)), ids, c_size_t(room), byref(count), byref(error)
        )
        if status:
            raise NativeError(error)
        return ids[: min(room, count.value)]
