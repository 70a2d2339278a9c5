"""results.json: one part after another, each saved as soon as it is done, so that a killed run can go on."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks.harness.errors import BenchmarkError, expect
from benchmarks.harness.machine import machine, versions
from benchmarks.harness.settings import Settings
from mobilenmt.runtime.atomic import atomic_path

FORMAT = 1


@dataclass
class Results:
    """The content of results.json."""

    path: Path
    content: dict[str, Any]

    @classmethod
    def start(cls, settings: Settings, resume: bool) -> Results:
        """A new file in the settings' folder, or the old one to go on with if it was taken with the same settings.

        Raises:
            BenchmarkError: the file to go on with cannot be read, or comes from other settings or versions.
        """
        path = settings.out / "results.json"
        taken_with = {"machine": machine(), "versions": versions(), "settings": _plain(settings)}
        if not (resume and path.exists()):
            return cls(path, {"format": FORMAT, **taken_with, "parts": {}})
        old = read(path)
        for key, value in taken_with.items():
            expect(
                old.get(key) == value,
                f"{path} comes from another {key.removesuffix('s')}, so that a run cannot go on with it: run without "
                "--resume, or with another --out",
            )
        return cls(path, old)

    def add(self, part: str, found: dict[str, Any], started: float) -> None:
        """Keep what a part found; ``started`` is the ``time.time()`` at its start."""
        loads = [round(value, 2) for value in psutil.getloadavg()]
        taken = {"at": round(started), "seconds": round(time.time() - started, 1), "load average": loads}
        self.content["parts"][part] = {"taken": taken, **found}
        write_json(self.path, self.content)


def read(path: Path) -> dict[str, Any]:
    """Content of a results.json; BenchmarkError if it is not one."""
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BenchmarkError(f"{path} cannot be read: {error}") from None
    whole = isinstance(content, dict) and {type(content.get(key)) for key in ("machine", "versions", "parts")} == {dict}
    expect(whole and content.get("format") == FORMAT, f"{path} holds no results of format {FORMAT}")
    return content


def write(path: Path, text: str) -> None:
    """Write a file that is never seen half-written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, content: object) -> None:
    """Write JSON for people and programs."""
    write(path, json.dumps(content, ensure_ascii=False, indent=1) + "\n")


def _plain(settings: Settings) -> dict[str, Any]:
    """Settings as JSON types; files by their names, since folders differ from machine to machine."""
    values = {name: value for name, value in vars(settings).items() if name not in ("out", "build")}
    plain: dict[str, Any] = json.loads(json.dumps(values, default=lambda file: file.name))
    return plain
