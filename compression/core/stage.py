"""One stage of the pipeline: a folder that is made once, resumed after a kill, and never mixed up with another's.

A stage's folder holds ``started.json`` (settings and inputs, from the first moment), what the work writes, and, last of
all, ``manifest.json``. A folder with a manifest is finished; one without is resumed by calling the work again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import platform
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from mobilenmt.compression.core.errors import StageError
from mobilenmt.compression.core.memory import process_memory
from mobilenmt.compression.core.settings import shown, to_mapping
from mobilenmt.runtime.atomic import atomic_path, remove, remove_temporary

MANIFEST = "manifest.json"
STARTED = "started.json"
LOCK = ".lock"
FORMAT = 1
"""Version of the two files; a reader refuses another."""

_PACKAGES = ("mobilenmt", "numpy", "tokenizers", "torch", "transformers", "onnxruntime", "sacrebleu", "accelerate")
_SHOWN_DIFFERENCES = 8


@dataclass(frozen=True)
class StageResult:
    """What became of a stage."""

    name: str
    folder: Path
    skipped: bool
    """The folder was finished already."""
    summary: Mapping[str, Any] = field(default_factory=dict)
    """What the work returned, JSON types; from the manifest if the stage was skipped."""
    seconds: float = 0.0
    """Time spent in this process, 0 if skipped."""


def run_stage(
    folder: Path,
    *,
    name: str,
    settings: object,
    inputs: Mapping[str, Path | str],
    work: Callable[[Path], Mapping[str, Any]],
    force: bool = False,
    scratch: Collection[str] = (),
    keep: Collection[str] = (),
) -> StageResult:
    """Make the results of a stage, or find them made.

    ``work(folder)`` is called to begin and, after a kill, to go on; it writes its durable pieces with
    :func:`atomic_path` and returns a summary of JSON types. Files named ``*.tmp-*`` are leftovers and removed before.

    Two runs are the same if their settings and inputs are. A path inside the settings counts by its last part alone, so
    that a project may be moved; what it points to must be among the inputs, which count by their content.

    Args:
        folder: where the results go; made if needed.
        name: the stage, as in ``corpus``.
        settings: a dataclass or a mapping.
        inputs: files and folders (compared by SHA-256), or texts (compared as they are).
        work: does the work inside ``folder``.
        force: remove what the folder holds, and begin again.
        scratch: names directly inside ``folder`` that are no results: they may be deleted once the stage is done.
        keep: names directly inside ``folder`` that ``force`` spares: the work finds out itself whether they still fit.

    Raises:
        StageError: an input is missing; the folder is in use, belongs to something else, was made with other settings
            or inputs, or its results are damaged.
    """
    wanted = _identity(name, settings, inputs)
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        _check_owner(folder, name)
        if force:
            _clear(folder, keep)
        manifest = _read(folder / MANIFEST)
        if manifest is not None:
            _check_same(manifest, wanted, folder)
            _check_outputs(folder, manifest)
            return StageResult(name, folder, skipped=True, summary=manifest.get("summary", {}))
        started = _read(folder / STARTED)
        if started is not None:
            _check_same(started, wanted, folder)
        else:
            write_json(folder / STARTED, wanted)
        remove_temporary(folder)
        begin, held = time.monotonic(), process_memory("VmHWM")
        summary = to_mapping(work(folder))
        remove_temporary(folder)
        seconds = time.monotonic() - begin
        cost = _cost(seconds, held)
        outputs = {
            path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": file_digest(path)}
            for path in _files(folder)
            if path.relative_to(folder).parts[0] not in scratch
        }
        manifest = {**wanted, "outputs": outputs, "summary": summary, "cost": cost, "versions": _versions()}
        write_json(folder / MANIFEST, manifest)
    return StageResult(name, folder, skipped=False, summary=summary, seconds=seconds)


def is_finished(folder: Path) -> bool:
    """Whether a stage has finished in ``folder``, whatever its settings were."""
    return (folder / MANIFEST).is_file()


def check_stage(folder: Path, *, name: str, settings: object, inputs: Mapping[str, Path | str]) -> bool:
    """Say whether :func:`run_stage` would skip (True) or work (False), and raise what it would raise; change nothing.

    Inputs that are not there yet are taken as unchanged: stages before this one may still have to make them.
    """
    there = {key: value for key, value in inputs.items() if isinstance(value, str) or value.exists()}
    if not folder.is_dir():
        return False
    _check_owner(folder, name)
    wanted = _identity(name, settings, there)
    for file in (MANIFEST, STARTED):
        found = _read(folder / file)
        if found is not None:
            known = found.get("inputs", {})
            wanted["inputs"] |= {key: known[key] for key in inputs if key not in there and key in known}
            _check_same(found, wanted, folder)
            return file == MANIFEST
    return False


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically: UTF-8, indented, ending in a line end. NaN and infinity are refused.

    Raises OSError, which names the file, if the disk refuses.
    """
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    try:
        with atomic_path(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        if error.filename is None:  # as where the disk is full, which a write is told and an open is not
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def read_json_object(path: Path) -> dict[str, Any]:
    """Read what :func:`write_json` wrote, an object.

    Raises StageError if the file is missing, damaged, or holds something else.
    """
    found = _read(path)
    if found is None:
        raise StageError(f"{path} is gone; begin this stage again with --force")
    return found


def file_digest(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    status = path.stat()
    return _cached_digest(str(path), status.st_size, status.st_mtime_ns, status.st_ino)


def content_digest(path: Path) -> str:
    """SHA-256 of a file, or of the names and digests of all files of a folder."""
    if not path.is_dir():
        return file_digest(path)
    total = hashlib.sha256()
    for file in _files(path):
        total.update(f"{file.relative_to(path).as_posix()}\0{file_digest(file)}\n".encode())
    return total.hexdigest()


def _identity(name: str, settings: object, inputs: Mapping[str, Path | str]) -> dict[str, Any]:
    """What makes two runs of a stage the same, as it is recorded; ``compared`` has paths cut to their last part."""
    digests = {}
    for key, value in inputs.items():
        if isinstance(value, Path):
            if not value.exists():
                raise StageError(f"{name}: its input {value} ({key}) is not there; run the stage that makes it")
            digests[key] = f"sha256:{content_digest(value)}"
        else:
            digests[key] = value
    compared = to_mapping(settings, lambda path: path.name)
    return {"format": FORMAT, "stage": name, "settings": to_mapping(settings), "compared": compared, "inputs": digests}


def _check_same(found: Mapping[str, Any], wanted: Mapping[str, Any], folder: Path) -> None:
    told = differences(found.get("compared"), wanted["compared"])
    told += differences(found.get("inputs"), wanted["inputs"], "input ")
    if told:
        more = f" and {len(told) - _SHOWN_DIFFERENCES} more" if len(told) > _SHOWN_DIFFERENCES else ""
        raise StageError(
            f"{folder} was made with other settings or inputs: {'; '.join(told[:_SHOWN_DIFFERENCES])}{more}. "
            "Take another work folder, or begin this stage again with --force"
        )


def differences(old: Any, new: Any, prefix: str = "") -> list[str]:
    """What differs between two values of JSON types, a phrase for each key, as in ``words was 3 and is 4``."""
    before, after = _flat(old, prefix), _flat(new, prefix)
    return [
        f"{key} changed"
        if str(after.get(key, before.get(key))).startswith("sha256:")
        else f"{key} was {_told(before, key)} and is {_told(after, key)}"
        for key in {**before, **after}
        if key not in before or key not in after or before[key] != after[key]
    ]


def _told(values: Mapping[str, Any], key: str) -> str:
    return shown(values[key]) if key in values else "not there"


def _flat(value: Any, prefix: str) -> dict[str, Any]:
    if isinstance(value, Mapping) and value:
        found: dict[str, Any] = {}
        for key, item in value.items():
            separator = "." if prefix and not prefix.endswith(" ") else ""
            found.update(_flat(item, f"{prefix}{separator}{key}"))
        return found
    if isinstance(value, list) and value:
        return {
            key: item for index, child in enumerate(value) for key, item in _flat(child, f"{prefix}[{index}]").items()
        }
    return {prefix: value}


def _check_owner(folder: Path, name: str) -> None:
    for file in (MANIFEST, STARTED):
        found = _read(folder / file)
        if found is None:
            continue
        if found.get("format") != FORMAT:
            raise StageError(f"{folder / file}: written by another version of mobilenmt; take another work folder")
        if found.get("stage") != name:
            raise StageError(f"{folder} holds the stage {found.get('stage')!r}, not {name!r}; take another work folder")
        return
    foreign = sorted(path.name for path in folder.iterdir() if path.name != LOCK and ".tmp-" not in path.name)
    if foreign:
        raise StageError(f"{folder} holds {foreign[0]!r}, which no stage made; take another work folder")


def _check_outputs(folder: Path, manifest: Mapping[str, Any]) -> None:
    for name, entry in manifest.get("outputs", {}).items():
        path = folder / name
        if not path.is_file():
            raise StageError(f"{path} is gone, though {folder / MANIFEST} lists it; make it again with --force")
        if path.stat().st_size != entry["bytes"] or file_digest(path) != entry["sha256"]:
            raise StageError(f"{path} is not what the stage wrote (its SHA-256 differs); make it again with --force")


def _clear(folder: Path, keep: Collection[str]) -> None:
    (folder / MANIFEST).unlink(missing_ok=True)  # first: what is half removed must not count as finished
    for path in folder.iterdir():
        if path.name not in (LOCK, STARTED, *keep):
            remove(path)
    (folder / STARTED).unlink(missing_ok=True)  # last: until then the folder is known as ours


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise StageError(f"{path} is damaged ({error}); take another work folder") from None
    if not isinstance(found, dict):
        raise StageError(f"{path} is damaged (no object in it); take another work folder")
    return found


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder for this process; the system lets go of it when the process ends, however it ends."""
    from filelock import FileLock, Timeout

    try:
        held = FileLock(folder / LOCK).acquire(blocking=False)
    except Timeout:
        raise StageError(f"{folder} is in use by another process; wait for it, or take another folder") from None
    with held:
        yield


@lru_cache(maxsize=4096)
def _cached_digest(path: str, size: int, modified: int, inode: int) -> str:
    # one stage's output is the next one's input: a large file is read once in a run
    with Path(path).open("rb", buffering=0) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _files(folder: Path) -> list[Path]:
    """Files of a folder that are results or inputs, sorted by their names."""
    ours = {folder / MANIFEST, folder / STARTED, folder / LOCK}
    found = [
        path for path in folder.rglob("*") if path.is_file() and path not in ours and ".tmp-" not in str(path.name)
    ]
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix())


def _cost(seconds: float, held_before: int | None) -> dict[str, Any]:
    """Time of the last call (one that resumed counts from there), and the most memory that the process has held. Where
    that was held before the stage began already, the stage's own is not known: at most so much."""
    held = process_memory("VmHWM")
    return {"seconds": round(seconds, 2), "memory_bytes": held, "memory_is_a_bound": held == held_before}


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found
