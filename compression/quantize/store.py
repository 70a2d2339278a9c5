"""The folder of a study: whose it is, and what was found so far, one JSON object a line."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mobilenmt.compression.core.errors import QuantizeError
from mobilenmt.compression.core.stage import differences, write_json

STUDY = "study.json"
_FORMAT = 1


def open_folder(folder: Path, identity: Mapping[str, Any]) -> None:
    """Make the folder of a study, or check that it is this one's.

    Args:
        folder: it need not be there.
        identity: what results depend on: model, text, settings; JSON types.

    Raises:
        QuantizeError: something else is there, or another study.
    """
    told = {"format": _FORMAT, **identity}
    file = folder / STUDY
    if file.is_file():
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise QuantizeError(f"{file} is damaged ({error}); take another folder") from None
        changed = differences(found, told) if isinstance(found, dict) else ["all of it"]
        if changed:
            raise QuantizeError(f"{folder} holds another study ({'; '.join(changed)}); take another folder")
        return
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise QuantizeError(f"{folder} is there already and holds no study; take another folder")
    folder.mkdir(parents=True, exist_ok=True)
    write_json(file, told)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a study for this process. Raises QuantizeError if another one works on it."""
    from filelock import FileLock, Timeout

    try:
        held = FileLock(folder / ".lock").acquire(blocking=False)
    except Timeout:
        raise QuantizeError(f"{folder} is in use by another process; wait for it, or take another folder") from None
    with held:
        yield


class Results:
    """Results by key, each on the disk as soon as it is found."""

    def __init__(self, path: Path) -> None:
        """Read what is there. A last line that was not written to its end counts for nothing, and is cut off.

        Raises QuantizeError if another line is damaged.
        """
        self.path = path
        self._found: dict[str, dict[str, Any]] = {}
        if not path.exists():
            return
        content = path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if whole != content:
            os.truncate(path, len(whole))
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                value = json.loads(line)
                self._found[value["key"]] = value
            except (ValueError, TypeError, KeyError):
                raise QuantizeError(f"{path}: line {number} is damaged; remove it, or the file") from None

    def __contains__(self, key: str) -> bool:
        return key in self._found

    def __getitem__(self, key: str) -> dict[str, Any]:
        return self._found[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def add(self, key: str, value: Mapping[str, Any]) -> dict[str, Any]:
        """Keep a result; returns it. One of the same key counts no more."""
        found = {"key": key, **value}
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(found, ensure_ascii=False, allow_nan=False) + "\n")
        self._found[key] = found
        return found
