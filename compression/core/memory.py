"""How much memory a process holds, as the system counts it."""

from __future__ import annotations

from pathlib import Path


def process_memory(key: str) -> int | None:
    """A figure of this process in bytes: ``VmRSS``, what it holds, or ``VmHWM``, the most it has held.

    From /proc/self/status (of this program alone: getrusage counts its parent's as well); None where there is none.
    """
    try:
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith(f"{key}:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None
