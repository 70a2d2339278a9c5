"""The C core as Python sees it: its functions and structures (``native/mobilenmt.h``), through ctypes.

ctypes and not cffi: it is part of Python, and costs 2 ms of a start.
"""

from __future__ import annotations

import ctypes
import os
import queue
import threading
from ctypes import (
    POINTER,
    Structure,
    c_char,
    c_char_p,
    c_double,
    c_float,
    c_int,
    c_size_t,
    c_uint32,
    c_uint64,
    c_void_p,
)
from pathlib import Path
from typing import Any

from mobilenmt.runtime.errors import DeadlineError, EngineError, InputError, PackError
from mobilenmt.runtime.native import LIBRARY

_ABI_VERSION = 1
NO_RULE = 0xFFFFFFFF
"""``MN_NO_RULE``: no rule about n-grams, whatever the pack says."""
STOPPED = 4
"""``MN_ERROR_STOPPED``: a callback asked to stop."""
FILE = 6
"""``MN_ERROR_FILE``: a file cannot be read."""
PAUSED = 7
"""``MN_PAUSED``: not done; ``mn_resume`` goes on."""
NO_TOKEN = 0xFFFFFFFF
"""``MN_NO_TOKEN``."""
_ERRORS: dict[int, type[Exception]] = {1: InputError, 2: PackError, 3: EngineError, 5: DeadlineError}

_FILES = ("native.bin", "weights.bin")

Callback = ctypes.CFUNCTYPE(c_int, c_void_p, c_uint32, c_uint32)


class Error(Structure):
    """``mn_error``."""

    _fields_ = (("status", c_int), ("message", c_char * 252))


class OpenOptions(Structure):
    """``mn_open_options``."""

    _fields_ = (("size", c_uint32), ("kernels", c_char_p))


class Info(Structure):
    """``mn_info``."""

    _fields_ = (
        ("size", c_uint32),
        ("d_model", c_uint32),
        ("encoder_layers", c_uint32),
        ("decoder_layers", c_uint32),
        ("source_vocabulary", c_uint32),
        ("target_vocabulary", c_uint32),
        ("max_positions", c_uint32),
        ("start", c_uint32),
        ("eos", c_uint32),
        ("pad", c_uint32),
        ("tokenizer", c_uint32),
        ("kernels", c_char_p),
        ("bytes", c_uint64),
        ("encoder_heads", c_uint32),
        ("decoder_heads", c_uint32),
        ("encoder_ffn", c_uint32),
        ("decoder_ffn", c_uint32),
        ("unk", c_uint32),
        ("forced_eos", c_uint32),
        ("forced_bos", c_uint32),
        ("bad_tokens", c_uint32),
        ("not_first_tokens", c_uint32),
        ("no_repeat_ngram", c_uint32),
        ("min_length", c_uint32),
        ("early_stopping", c_uint32),
        ("renormalize", c_uint32),
        ("alignment_layer", c_uint32),
        ("alignment_head", c_uint32),
        ("alignment_later", c_uint32),
    )


class Request(Structure):
    """``mn_request``."""

    _fields_ = (
        ("size", c_uint32),
        ("sentences", c_uint32),
        ("ids", POINTER(c_uint32)),
        ("lengths", POINTER(c_uint32)),
        ("max_lengths", POINTER(c_uint32)),
        ("min_length", c_uint32),
        ("beam_size", c_uint32),
        ("n_best", c_uint32),
        ("length_penalty", c_float),
        ("prefix", POINTER(c_uint32)),
        ("prefix_length", c_uint32),
        ("forbidden", POINTER(c_uint32)),
        ("forbidden_count", c_uint32),
        ("no_repeat_ngram", c_uint32),
        ("rows", c_uint32),
        ("alignment", c_uint32),
        ("callback", Callback),
        ("user", c_void_p),
        ("callback_seconds", c_double),
        ("seconds", c_double),
        ("prefix_lengths", POINTER(c_uint32)),
        ("pause_seconds", c_double),
        ("phrases", POINTER(c_uint32)),
        ("phrase_lengths", POINTER(c_uint32)),
        ("phrase_counts", POINTER(c_uint32)),
        ("continuing", c_char_p),
    )


class Result(Structure):
    """``mn_result``."""

    _fields_ = (
        ("size", c_uint32),
        ("count", c_uint32),
        ("ids", POINTER(POINTER(c_uint32))),
        ("lengths", POINTER(c_uint32)),
        ("generated", POINTER(c_uint32)),
        ("scores", POINTER(c_float)),
        ("token_scores", POINTER(POINTER(c_float))),
        ("alignments", POINTER(POINTER(c_uint32))),
    )


_FUNCTIONS: dict[str, tuple[Any, list[Any]]] = {
    "mn_abi_version": (c_uint32, []),
    "mn_kernels": (c_char_p, [c_uint32]),
    "mn_open": (c_int, [c_char_p, POINTER(OpenOptions), POINTER(c_void_p), POINTER(Error)]),
    "mn_close": (None, [c_void_p]),
    "mn_model_info": (c_int, [c_void_p, POINTER(Info)]),
    "mn_context_new": (c_int, [c_void_p, c_uint64, POINTER(c_void_p), POINTER(Error)]),
    "mn_context_free": (None, [c_void_p]),
    "mn_translate": (c_int, [c_void_p, POINTER(Request), POINTER(Result), POINTER(Error)]),
    "mn_resume": (c_int, [c_void_p, POINTER(Result), POINTER(Error)]),
    "mn_encode": (
        c_int,
        [c_void_p, c_char_p, c_size_t, POINTER(c_uint32), c_size_t, POINTER(c_size_t), POINTER(Error)],
    ),
    "mn_decode": (
        c_int,
        [c_void_p, POINTER(c_uint32), c_size_t, c_char_p, c_size_t, POINTER(c_size_t), POINTER(Error)],
    ),
    "mn_knows": (c_int, [c_void_p, POINTER(c_uint32), c_size_t, POINTER(c_int)]),
    "mn_piece": (c_int, [c_void_p, c_uint32, POINTER(c_void_p), POINTER(c_size_t)]),
}
_lock = threading.Lock()
_loaded: dict[Path, ctypes.CDLL] = {}


def load_library(path: Path = LIBRARY) -> ctypes.CDLL:
    """The library, its functions typed; loaded once.

    Raises:
        EngineError: it was not compiled, does not load here, or is of another version than this code.
    """
    with _lock:
        if path not in _loaded:
            _loaded[path] = _load(path)
        return _loaded[path]


def _load(path: Path) -> ctypes.CDLL:
    if not path.is_file():
        raise EngineError(
            f"the C core was not compiled: {path} is not there. Install a C compiler (cc) and mobilenmt again"
        )
    try:
        library = ctypes.CDLL(str(path))
        for name, (result, arguments) in _FUNCTIONS.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
    except (OSError, AttributeError) as error:
        raise EngineError(f"{path}: the C core does not load: {error}") from None
    version = library.mn_abi_version()
    if version != _ABI_VERSION:
        raise EngineError(f"{path} has version {version} of the interface, {_ABI_VERSION} is needed: install it again")
    return library


def fail(error: Error) -> Exception:
    """What to raise for what the library said."""
    message = error.message.decode("utf-8", "replace")
    return _ERRORS.get(error.status, EngineError)(message)


def _has_bytes(file: Path) -> bool:
    """Whether there is anything in it to map: nothing can be, of an empty file."""
    return file.is_file() and file.stat().st_size > 0


class NativeModel:
    """A pack opened by the C core; any number of threads may share it.

    Args:
        folder: the pack's.
        kernels: name of a set of kernels, for tests; None for the best that runs here.

    Raises:
        EngineError: the library is not there, memory is short, or a file that is there cannot be mapped.
        PackError: native.bin or weights.bin is missing, empty or damaged.
        InputError: there are no such kernels here.
    """

    def __init__(self, folder: Path, kernels: str | None = None, library: Path = LIBRARY) -> None:
        self.library = load_library(library)
        self._handle = c_void_p()
        self._close = self.library.mn_close
        error = Error()
        name = None if kernels is None else kernels.encode()
        options = OpenOptions(ctypes.sizeof(OpenOptions), name)
        place = os.fsencode(folder)
        if self.library.mn_open(place, ctypes.byref(options), ctypes.byref(self._handle), ctypes.byref(error)):
            damaged = error.status == FILE and not all(map(_has_bytes, (folder / file for file in _FILES)))
            raise PackError(error.message.decode("utf-8", "replace")) if damaged else fail(error)
        self.info = Info(ctypes.sizeof(Info))
        self.library.mn_model_info(self._handle, ctypes.byref(self.info))
        self._contexts: queue.SimpleQueue[NativeContext] = queue.SimpleQueue()

    def __del__(self) -> None:
        # No global name: where the interpreter ends, this module may have none left.
        contexts, handle = getattr(self, "_contexts", None), getattr(self, "_handle", None)
        while contexts is not None and not contexts.empty():
            contexts.get_nowait().free()
        if handle:
            self._close(handle)
            handle.value = None

    def context(self) -> Lease:
        """For a ``with``: a ``mn_context``, one that is free or a new one.

        Raises:
            EngineError: memory is short.
        """
        return Lease(self, self._contexts)

    @property
    def handle(self) -> c_void_p:
        """The ``mn_model``."""
        return self._handle

    @property
    def kernels(self) -> str:
        """Name of the kernels in use."""
        return str(self.info.kernels.decode())


class NativeContext:
    """What a translation writes; for one thread at a time. It goes before its model does.

    Raises:
        EngineError: memory is short.
    """

    def __init__(self, model: NativeModel, limit: int = 0) -> None:
        self._free = model.library.mn_context_free
        self.handle = c_void_p()
        error = Error()
        if model.library.mn_context_new(model.handle, limit, ctypes.byref(self.handle), ctypes.byref(error)):
            raise fail(error)

    def free(self) -> None:
        """Give its memory back; it is of no use afterwards."""
        if self.handle:
            self._free(self.handle)
            self.handle.value = None

    __del__ = free  # one that a handler of signals kept from being given back


class Lease:
    """A context for the time of a block."""

    def __init__(self, model: NativeModel, free: queue.SimpleQueue[NativeContext]) -> None:
        self._contexts = free
        try:
            self._context = free.get_nowait()
        except queue.Empty:
            self._context = NativeContext(model)

    def __enter__(self) -> c_void_p:
        return self._context.handle

    def __exit__(self, *raised: object) -> None:
        self._contexts.put(self._context)
