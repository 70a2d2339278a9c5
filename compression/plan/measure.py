"""Prices of this machine: models of random weights and varied shapes run on the C core, and a fit to what they took."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from mobilenmt.compression.core.errors import PlanError
from mobilenmt.compression.core.settings import from_mapping
from mobilenmt.compression.core.stage import write_json
from mobilenmt.compression.pack.shortlist import ShortlistSettings
from mobilenmt.compression.plan.cost import (
    CostFit,
    Load,
    Residuals,
    latency_terms,
    memory_terms,
    non_negative_least_squares,
)
from mobilenmt.compression.plan.random_pack import draw_ids, make_random_pack
from mobilenmt.compression.train.student import StudentShape

_TRIALS = "trials.json"
_LENGTHS = ((30, 30), (10, 10), (30, 8), (60, 60))
"""Tokens of source and target; the first is where memory is taken."""
_SOURCES, _REPEATS = 24, 40
_TIMES = 300
_CACHES = (1 << 20, 32 << 20)


@dataclass(frozen=True)
class Trial:
    """A model to measure."""

    shape: StudentShape
    vocabulary: int
    shortlist: ShortlistSettings | None = None


def _trial(
    width: int, layers: tuple[int, int], ffn: tuple[int, int], vocabulary: int, common: int, heads: int | None = None
) -> Trial:
    heads = heads or max(1, width // 64)
    shape = StudentShape(width, *layers, heads, heads, *ffn)
    return Trial(shape, vocabulary, ShortlistSettings(common=common) if common else None)


TRIALS: tuple[Trial, ...] = (
    _trial(64, (2, 1), (128, 128), 1000, 0, 2),
    _trial(64, (12, 4), (256, 256), 2000, 0, 2),
    _trial(96, (6, 2), (384, 192), 4000, 500, 3),
    _trial(128, (4, 1), (512, 512), 8000, 0),
    _trial(128, (18, 2), (256, 512), 2000, 400, 4),
    _trial(160, (6, 6), (640, 320), 4000, 0, 5),
    _trial(192, (6, 2), (768, 768), 8000, 500, 4),
    _trial(192, (12, 1), (384, 1152), 2000, 0),
    _trial(256, (2, 2), (1024, 256), 16000, 0),
    _trial(256, (12, 2), (512, 512), 8000, 500),
    _trial(256, (6, 3), (1024, 1024), 8000, 1000, 8),
    _trial(320, (4, 4), (640, 1280), 4000, 0),
    _trial(384, (6, 2), (1536, 768), 32000, 500),
    _trial(512, (3, 2), (1024, 2048), 8000, 0),
    _trial(384, (2, 6), (768, 1536), 32000, 0),
    _trial(512, (2, 6), (1024, 2048), 48000, 0),  # a step reads more than the last cache holds
)
"""Small and large, deep and wide, with shortlists and without."""


def measure(
    trials: Sequence[Trial] = TRIALS,
    *,
    packs: Path,
    rounds: int = 2,
    repeats: int = _REPEATS,
    report: Callable[[str], None] = lambda line: None,
) -> list[dict[str, Any]]:
    """Run models on the C core, one thread, nothing beside them; a row for each trial.

    Args:
        trials: what to measure.
        packs: folder for the packs of random weights. Those that it holds are taken as they are, so that they may be
            made on one machine and measured on another, where only the runtime is installed.
        rounds: times each is measured; the best of all counts, as other processes only ever make it slower.
        repeats: sentences of each length and round.
        report: receives a line for each trial.

    Raises:
        PlanError: a pack cannot be made or does not run on the C core, or ``packs`` holds those of other trials.
    """
    make_packs(trials, packs)
    rows: list[dict[str, Any]] = [{} for _ in trials]
    for turn in range(rounds):
        for place, (trial, row) in enumerate(zip(trials, rows, strict=True)):
            found = _run(packs / f"{place}", trial, repeats)
            seconds = {(n, m): value for n, m, value in row.get("seconds", found["seconds"])}
            best = [[n, m, min(value, seconds[n, m])] for n, m, value in found["seconds"]]
            row.update(trial=asdict(trial), kernels=found["kernels"], seconds=best, bytes=found["bytes"])
            report(f"round {turn + 1}, model {place + 1} of {len(trials)}: {1e3 * best[0][2]:.2f} ms for 30 tokens")
    return rows


def make_packs(trials: Sequence[Trial], packs: Path) -> None:
    """Make the packs of random weights that are not there yet; PlanError if the folder holds those of other trials."""
    wanted = json.loads(json.dumps([asdict(trial) for trial in trials]))
    known = packs / _TRIALS
    try:
        packs.mkdir(parents=True, exist_ok=True)
        if known.is_file() and json.loads(known.read_text(encoding="utf-8")) != wanted:
            raise PlanError(f"{packs} holds packs of other models than this version measures; take another folder")
        write_json(known, wanted)
    except (OSError, ValueError) as error:
        raise PlanError(f"{packs}: no packs can be kept there: {error}") from None
    for place, trial in enumerate(trials):
        if not (packs / f"{place}" / "pack.json").is_file():
            try:
                make_random_pack(
                    trial.shape, trial.vocabulary, packs / f"{place}", shortlist=trial.shortlist, seed=place
                )
            except ImportError as error:
                raise PlanError(
                    f"models to measure are made with the extra 'compress', which lacks {error.name} here: make them "
                    "on another machine, by --packs, and copy the folder"
                ) from None


def _run(pack: Path, trial: Trial, repeats: int) -> dict[str, Any]:
    from mobilenmt import __file__ as package

    random = np.random.default_rng(1)
    sources = {str(n): draw_ids(random, trial.vocabulary, (_SOURCES, n - 1)).tolist() for n, _ in _LENGTHS}
    job = {"pack": str(pack), "lengths": _LENGTHS, "sources": sources, "repeats": repeats}
    paths = [str(Path(str(package)).resolve().parent.parent), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "ORT_DISABLE_TELEMETRY": "1"}
    try:
        ended = subprocess.run(
            [sys.executable, "-m", "mobilenmt.compression.plan.worker"],
            input=json.dumps(job),
            capture_output=True,
            text=True,
            env=environment,
            timeout=_TIMES,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise PlanError(f"{pack}: not done after {_TIMES} s; the machine is too busy to be measured") from None
    if ended.returncode:
        reason = (ended.stderr.strip().splitlines() or [f"exit code {ended.returncode}"])[-1]
        raise PlanError(f"{pack}: cannot be measured: {reason}")
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


def fit(rows: Sequence[dict[str, Any]], cache_bytes: tuple[int, int] | None = None) -> CostFit:
    """Prices with the least relative error of what :func:`measure` found."""
    cache = caches() if cache_bytes is None else cache_bytes
    latency, seconds = _latency(rows, cache)
    told = [row for row in rows if row["bytes"] is not None]
    memory, used = _memory(told)
    latency_prices, memory_prices = _prices(latency, seconds), _prices(memory, used)
    return CostFit(
        machine=processor(),
        date=datetime.now(UTC).date().isoformat(),
        kernels=rows[0]["kernels"],
        cache_bytes=cache,
        versions=_versions(),
        latency=latency_prices,
        memory=memory_prices,
        latency_residuals=_residuals(latency, seconds, latency_prices),
        memory_residuals=_residuals(memory, used, memory_prices) if told else None,
    )


def check(found: CostFit, rows: Sequence[dict[str, Any]]) -> tuple[Residuals, Residuals | None]:
    """How well a fit predicts time and memory of models that it was, or was not, fitted to."""
    latency = _residuals(*_latency(rows, found.cache_bytes), found.latency)
    told = [row for row in rows if row["bytes"] is not None]
    return latency, _residuals(*_memory(told), found.memory) if told and found.memory else None


def _latency(rows: Iterable[dict[str, Any]], cache: tuple[int, int]) -> tuple[list[dict[str, Any]], list[float]]:
    terms, seconds = [], []
    for row in rows:
        trial = from_mapping(Trial, row["trial"], "trial")
        for n, m, value in row["seconds"]:
            terms.append(latency_terms(trial.shape, trial.vocabulary, trial.shortlist, Load(n, m), cache))
            seconds.append(value)
    return terms, seconds


def _memory(rows: Iterable[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[float]]:
    from mobilenmt.compression.pack.estimate import native_bytes

    terms, used = [], []
    for row in rows:
        trial = from_mapping(Trial, row["trial"], "trial")
        native = native_bytes(trial.shape, trial.vocabulary)
        n, m = _LENGTHS[0]
        terms.append(memory_terms(trial.shape, trial.vocabulary, trial.shortlist, Load(n, m), native))
        used.append(float(row["bytes"]))
    return terms, used


def _prices(terms: Sequence[dict[str, Any]], values: Sequence[float]) -> dict[str, float]:
    if not terms:
        return {}
    names, target = list(terms[0]), np.array(values)
    matrix = np.array([[row[name] for name in names] for row in terms], float) / target[:, None]
    found = non_negative_least_squares(matrix, np.ones(len(target)))
    return {name: float(f"{price:.6g}") for name, price in zip(names, found, strict=True)}


def _residuals(terms: Sequence[dict[str, Any]], values: Sequence[float], prices: Any) -> Residuals:
    told = [sum(price * row[name] for name, price in prices.items()) for row in terms]
    errors = np.abs(np.array(told) / np.array(values) - 1)
    return Residuals(len(errors), round(float(np.median(errors)), 4), round(float(errors.max()), 4))


def caches() -> tuple[int, int]:
    """Bytes of a core's second-level cache and of the last one, as Linux tells; 1 and 32 MiB where it does not."""
    found: dict[int, int] = {}
    with suppress(OSError, ValueError):
        for folder in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"):
            size = (folder / "size").read_text().strip()
            found[int((folder / "level").read_text())] = int(size.rstrip("KM")) << {"K": 10, "M": 20}.get(size[-1], 0)
    return (found[2], found[max(found)]) if 2 in found else _CACHES


def processor() -> str:
    """The processor's name, as the system has it."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "system": platform.system(), "architecture": platform.machine()}
    for package in ("mobilenmt", "numpy"):
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found
