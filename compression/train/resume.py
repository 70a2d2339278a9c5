"""The state of a run on disk: written atomically, checked when read, two generations kept."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from mobilenmt.compression.core.errors import TrainingError
from mobilenmt.compression.core.stage import file_digest
from mobilenmt.runtime.atomic import atomic_path, remove_temporary

_NAME = re.compile(r"step-(\d{9})")
_FORMAT = 1


@dataclass(frozen=True)
class State:
    """What was read: the step, values of the loop, and tensors by group and name."""

    step: int
    values: Mapping[str, Any]
    tensors: Mapping[str, Mapping[str, torch.Tensor]]


def save_state(
    folder: Path, step: int, values: Mapping[str, Any], tensors: Mapping[str, Mapping[str, torch.Tensor]]
) -> None:
    """Write the state after ``step`` updates to ``folder``/step-NNNNNNNNN, and remove all but the two latest.

    Raises TrainingError if the disk refuses; the states there stay.
    """
    from safetensors.torch import save_file

    try:
        folder.mkdir(exist_ok=True)
        remove_temporary(folder)
        with atomic_path(folder / f"step-{step:09d}") as temporary:
            temporary.mkdir()
            digests = {}
            for group, members in tensors.items():
                file = temporary / f"{group}.safetensors"
                save_file({name: value.detach().cpu().contiguous() for name, value in members.items()}, file)
                digests[file.name] = file_digest(file)
            text = json.dumps({"format": _FORMAT, "step": step, "sha256": digests, "values": dict(values)}, indent=1)
            (temporary / "state.json").write_text(text + "\n", encoding="utf-8")
        keep_latest(folder, 2)
    except (OSError, SafetensorError) as error:
        raise TrainingError(
            f"{folder}: the state after update {step} cannot be saved: {error}. "
            "Make room and run again; the run goes on from the last saved state"
        ) from error


def keep_latest(folder: Path, count: int) -> None:
    """Remove all but the latest ``count`` states."""
    for path in _states(folder)[:-count]:
        shutil.rmtree(path)


def load_state(folder: Path) -> State | None:
    """Read the latest state that is whole; None if there is none.

    Raises TrainingError if states are there, but all are damaged.
    """
    states = _states(folder)
    reasons = []
    for path in reversed(states):
        try:
            return _read(path)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            reasons.append(f"{path.name}: {error}")
    if reasons:
        raise TrainingError(f"{folder}: no saved state can be read ({'; '.join(reasons)}); begin again with --force")
    return None


def is_state(path: Path) -> bool:
    """Whether a folder is a saved state, or the folder ``last`` of a run."""
    return (path / "state.json").is_file() or bool(_states(path))


def open_state(path: Path) -> State:
    """Read a saved state, or the latest one of a folder ``last``, for a run that goes on from it elsewhere.

    Raises TrainingError if it is damaged.
    """
    if (path / "state.json").is_file():
        try:
            return _read(path)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise TrainingError(f"{path}: the saved state cannot be read: {error}") from None
    state = load_state(path)
    if state is None:
        raise TrainingError(f"{path}: there is no saved state")
    return state


def _read(path: Path) -> State:
    from safetensors.torch import load_file

    raw = json.loads((path / "state.json").read_text(encoding="utf-8"))
    if raw["format"] != _FORMAT:
        raise ValueError("written by another version of mobilenmt")
    if not raw["sha256"] or not raw["values"] or path.name != f"step-{raw['step']:09d}":
        raise ValueError("state.json is damaged")
    tensors = {}
    for name, digest in raw["sha256"].items():
        if file_digest(path / name) != digest:
            raise ValueError(f"{name} is damaged (its SHA-256 differs)")
        tensors[Path(name).stem] = load_file(path / name)
    return State(raw["step"], raw["values"], tensors)


def _states(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if _NAME.fullmatch(path.name))
