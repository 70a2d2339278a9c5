"""A trap in the kernel: the process is killed the moment it, or native code in it, opens a socket or a file to write.

Python's ``socket`` and ``open`` see nothing of what native code does, and native code may pass over a refused call in
silence. A seccomp filter stands below both, holds for threads and child processes too, and cannot be taken away.
"""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import struct
import sys

UNAVAILABLE = 77
"""What the process ends with where the kernel grants no filter."""
KILLED = -signal.SIGSYS if hasattr(signal, "SIGSYS") else None
"""The return code of a process that went into the trap, as ``subprocess`` tells it."""

_ARCHITECTURES: dict[str, tuple[int, dict[str, int]]] = {
    "x86_64": (
        0xC000003E,
        {
            "open": 2,
            "socket": 41,
            "connect": 42,
            "rename": 82,
            "mkdir": 83,
            "creat": 85,
            "link": 86,
            "symlink": 88,
            "mknod": 133,
            "openat": 257,
            "mkdirat": 258,
            "mknodat": 259,
            "renameat": 264,
            "linkat": 265,
            "symlinkat": 266,
            "renameat2": 316,
            "io_uring_setup": 425,
            "openat2": 437,
        },
    ),
    "aarch64": (
        0xC00000B7,
        {
            "mknodat": 33,
            "mkdirat": 34,
            "symlinkat": 36,
            "linkat": 37,
            "renameat": 38,
            "openat": 56,
            "socket": 198,
            "connect": 203,
            "renameat2": 276,
            "io_uring_setup": 425,
            "openat2": 437,
        },
    ),
}
"""By ``platform.machine()``: the kernel's number of the architecture, and its calls that open connections or files."""
_FLAGS = {"open": 1, "openat": 2}
"""Which argument tells whether a file is opened to be written; all other calls are deadly whatever they are given."""
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT

_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 38, 22, 2
_LOAD, _JUMP_EQUAL, _JUMP_SET, _RETURN = 0x20, 0x15, 0x45, 0x06  # classic BPF
_KILL_PROCESS, _ALLOW = 0x80000000, 0x7FFF0000
_NUMBER, _ARCHITECTURE = 0, 4  # offsets in struct seccomp_data


def _argument(index: int) -> int:
    """Offset of the lower half of an argument; both architectures are little-endian."""
    return 16 + 8 * index


def _program(architecture: int, calls: dict[str, int]) -> list[bytes]:
    def step(code: int, value: int, if_so: int = 0, if_not: int = 0) -> bytes:
        return struct.pack("=HBBI", code, if_so, if_not, value)

    kill = step(_RETURN, _KILL_PROCESS)
    steps = [step(_LOAD, _ARCHITECTURE), step(_JUMP_EQUAL, architecture, 1, 0), kill]
    for name, number in calls.items():
        steps.append(step(_LOAD, _NUMBER))
        if name in _FLAGS:
            steps += [step(_JUMP_EQUAL, number, 0, 3), step(_LOAD, _argument(_FLAGS[name]))]
            steps += [step(_JUMP_SET, _WRITING, 0, 1), kill]
        else:
            steps += [step(_JUMP_EQUAL, number, 0, 1), kill]
    return [*steps, step(_RETURN, _ALLOW)]


def set_trap() -> None:
    """Set the trap for this process; ends it with ``UNAVAILABLE`` where that cannot be done."""
    if sys.platform != "linux" or platform.machine() not in _ARCHITECTURES:
        print(f"no trap for {sys.platform} on {platform.machine()}", file=sys.stderr)
        sys.exit(UNAVAILABLE)
    steps = _program(*_ARCHITECTURES[platform.machine()])
    program = ctypes.create_string_buffer(b"".join(steps))
    header = ctypes.create_string_buffer(struct.pack("@HP", len(steps), ctypes.addressof(program)))
    libc = ctypes.CDLL(None, use_errno=True)
    refused = libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    refused = refused or libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, header, 0, 0)
    if refused:
        print(f"the kernel grants no seccomp filter: {os.strerror(ctypes.get_errno())}", file=sys.stderr)
        sys.exit(UNAVAILABLE)
