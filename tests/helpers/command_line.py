"""Runs the command line as a user runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

from places import SRC


def environment(**extra: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(SRC), "PYTHONWARNINGS": "error", **extra}


def run(*arguments: Any, stdin: bytes = b"", **extra: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "mobilenmt", *map(str, arguments)]
    return subprocess.run(command, input=stdin, capture_output=True, check=False, env=environment(**extra))


def fails(done: subprocess.CompletedProcess[bytes], *words: str) -> None:
    """Exit code 2 and one line on stderr that holds ``words``; nothing on stdout."""
    lines = done.stderr.decode().splitlines()
    assert (done.returncode, len(lines), done.stdout) == (2, 1, b""), done.stderr.decode()
    assert lines[0].startswith("mobilenmt: error: ")
    for word in words:
        assert word in lines[0]
