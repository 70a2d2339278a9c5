"""Builds the C core's tokenizer for tests, and speaks to it through ctypes."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mobilenmt.runtime.native.library import Error
from places import ROOT

NATIVE = ROOT / "runtime" / "native"
TOKENIZER_SOURCES = tuple(sorted((NATIVE / "text").glob("*.c")))
FLAGS = ("-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror")


def compiler() -> str | None:
    """A C compiler, if this machine has one."""
    named = os.environ.get("CC")
    return shutil.which(named) if named else next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)


def compile_c(out: Path, *sources: Path, flags: Sequence[str] = ("-O2",)) -> Path:
    """Compile C files with all warnings as errors."""
    found = compiler()
    assert found is not None
    command = [found, *FLAGS, *flags, f"-I{NATIVE}", "-o", str(out), *map(str, sources), "-lm"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return out


class _Scratch(ctypes.Structure):
    _fields_ = (("data", ctypes.c_void_p), ("bytes", ctypes.c_size_t), ("limit", ctypes.c_size_t))


class NativeError(Exception):
    """What the C core says, with its status."""

    def __init__(self, error: Any) -> None:
        super().__init__(f"{error.status}: {error.message.decode()}")
        self.status = error.status


class NativeTokenizer:
    """``mn_tokenizer`` of a library that :func:`compile_c` made, over a table."""

    def __init__(self, library: Path, table: bytes, *, limit: int = 1 << 30) -> None:
        self._library = ctypes.CDLL(str(library))
        self._table = ctypes.create_string_buffer(table, len(table))
        self._tokenizer = ctypes.create_string_buffer(1024)  # more than sizeof(mn_tokenizer)
        self._scratch = _Scratch(None, 0, limit)
        self._error = Error()
        self._call("open", self._table, ctypes.c_size_t(len(table)))

    def _call(self, name: str, *arguments: Any) -> None:
        status = self._library[f"mn_tokenizer_{name}"](self._tokenizer, *arguments, ctypes.byref(self._error))
        if status:
            assert status == self._error.status
            raise NativeError(self._error)

    def encode(self, text: str | bytes) -> list[int]:
        """Ids, asked for twice: with too little room first."""
        data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
        count, room = ctypes.c_size_t(), 16
        while True:
            ids = (ctypes.c_uint32 * room)()
            size = ctypes.c_size_t(len(data))
            scratch = ctypes.byref(self._scratch)
            self._call("encode", data, size, ids, ctypes.c_size_t(room), ctypes.byref(count), scratch)
            if count.value <= room:
                return ids[: count.value]
            room = count.value

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids."""
        array, count, room = (ctypes.c_uint32 * len(ids))(*ids), ctypes.c_size_t(), 16
        while True:
            text = ctypes.create_string_buffer(room)
            length = ctypes.c_size_t(len(ids))
            self._call("decode", array, length, text, ctypes.c_size_t(room), ctypes.byref(count))
            if count.value <= room:
                return text.raw[: count.value].decode()
            room = count.value

    def piece(self, i: int) -> str:
        """The piece of an id."""
        piece, size = ctypes.c_void_p(), ctypes.c_size_t()
        self._library.mn_tokenizer_piece(self._tokenizer, ctypes.c_uint32(i), ctypes.byref(piece), ctypes.byref(size))
        return ctypes.string_at(piece.value or 0, size.value).decode() if size.value else ""
