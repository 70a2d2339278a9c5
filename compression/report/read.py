"""Reads a work folder: manifests, logs, what pruning and evaluation wrote. What is damaged is one error of one line."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from mobilenmt.compression.core.errors import RecipeError, ReportError
from mobilenmt.compression.core.settings import from_mapping
from mobilenmt.compression.core.stage import MANIFEST, STARTED
from mobilenmt.compression.evaluate.evaluation import RESULTS, SystemResult
from mobilenmt.compression.report.run import Curve, Evaluated, Part, Planned, PrunedModel, Run, StageState, Test
from mobilenmt.compression.train.runlog import read_log

USUAL = ("corpus", "vocabulary", "distill", "export", "evaluate")
"""Stages that every whole run has; where compress has left a report, that says which the recipe has."""
ORDER = ("plan", "corpus", "vocabulary", "teacher_model", "teacher", "prune", "distill", "export", "evaluate")
REPORT = "report.json"
_PRUNED = Path("prune") / "checkpoint" / "prune.json"
_PLAN = Path("plan") / "plan.json"
_POINTS = 400  # of a curve: more would not be seen
_SIDES = {"encoder": ("self_attn", "ffn"), "decoder": ("self_attn", "encoder_attn", "ffn")}


def read_run(folder: Path, sure: Collection[str] | None = None) -> Run:
    """Read what there is.

    Args:
        folder: the work folder of ``mobilenmt compress``.
        sure: the stages that belong to the run as it is now; what lies in the folders of others may be of another
            recipe and is not read. By default all.

    Raises:
        ReportError: no such folder, not a work folder, or something in it is damaged.
    """
    if not folder.is_dir():
        raise ReportError(f"{folder}: no such folder; name the work folder of mobilenmt compress")
    if (folder / STARTED).is_file() or (folder / MANIFEST).is_file():
        raise ReportError(f"{folder}: the folder of one stage; name the work folder that it is in")
    about = _object(folder / REPORT) if (folder / REPORT).is_file() else {}
    places = {path.parent.name: path.parent for name in (STARTED, MANIFEST) for path in folder.glob(f"*/{name}")}
    elsewhere = about.get("elsewhere")
    for name, at in elsewhere.items() if isinstance(elsewhere, Mapping) else ():
        if isinstance(at, str) and any((folder / at / file).is_file() for file in (STARTED, MANIFEST)):
            places[name] = folder / at
    found = {name: _stage(places[name], name) for name in sorted(places) if sure is None or name in sure}
    begun = {name: stage for name, stage in found.items() if stage is not None}
    if not any(name in ORDER for name in begun):
        raise ReportError(f"{folder}: no stage of mobilenmt compress has begun here; name its work folder")
    chain = about.get("chain")
    usual = [name for name in chain if isinstance(name, str)] if isinstance(chain, list) else list(USUAL)
    known = [*ORDER, *(name for name in (*usual, *begun) if name not in ORDER)]
    names = [name for name in dict.fromkeys(known) if name in begun or name in usual]
    curves = [_curve(places[name], name) for name in ("teacher_model", "distill") if name in begun]
    stages = tuple(begun.get(name) or StageState(name, "not begun", {}) for name in names)
    pruned = _pruned(folder / _PRUNED) if "prune" in begun and (folder / _PRUNED).is_file() else None
    evaluated = _evaluated(folder / "evaluate") if "evaluate" in begun else None
    return Run(
        folder=folder,
        name=_text(about.get("name")) or folder.resolve().name,
        languages=_languages(about),
        stages=stages,
        curves=tuple(curve for curve in curves if curve is not None),
        pruned=pruned,
        evaluated=evaluated,
        planned=_planned(folder / _PLAN) if "plan" in begun and (folder / _PLAN).is_file() else None,
        missing=tuple(_missing(stages, evaluated)),
    )


def number(value: object) -> float | None:
    """A number that could be a count, a time or a score, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if abs(found) < 1e18 else None  # false for what is no number too


def _stage(folder: Path, name: str) -> StageState | None:
    """A stage that has begun in its folder; None if what lies there is not of a stage of that name."""
    path = folder / MANIFEST
    done = path.is_file()
    raw = _object(path if done else folder / STARTED)
    if raw.get("stage") != name:
        return None
    summary, cost = raw.get("summary", {}), raw.get("cost", {})
    if not isinstance(summary, Mapping) or not isinstance(cost, Mapping):
        raise ReportError(f"{path} is damaged (summary or cost is no object); make the stage again with --force")
    memory = number(cost.get("memory_bytes"))
    seconds, updates, tokens = (
        number(value) for value in (cost.get("seconds"), *map(summary.get, ("steps", "tokens")))
    )
    log = folder / "log.jsonl"
    last = [entry for entry in read_log(log) if entry["kind"] == "train"][-1:] if log.is_file() else []
    for entry in last:  # counts through all interruptions; the stage's own time is that of its last call
        logged = number(entry.get("seconds"))
        seconds = logged if seconds is None else max(seconds, logged or 0.0)
        updates, tokens = updates or number(entry["step"]), tokens or number(entry.get("tokens"))
    return StageState(
        name,
        "done" if done else "begun",
        summary,
        seconds=seconds if seconds is not None else number(summary.get("seconds")),
        memory=None if memory is None else int(memory),
        memory_is_a_bound=cost.get("memory_is_a_bound") is True,
        updates=None if updates is None else int(updates),
        tokens=None if tokens is None else int(tokens),
    )


def _curve(folder: Path, stage: str) -> Curve | None:
    path = folder / "log.jsonl"
    if not path.is_file():
        return None
    loss: list[tuple[float, float]] = []
    dev_loss: list[tuple[float, float]] = []
    dev: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for entry in read_log(path):
        step = float(entry["step"])
        if entry["kind"] == "train":
            if (nll := number(entry["nll"])) is not None:
                loss.append((step, nll))
            continue
        if (value := number(entry.get("loss"))) is not None:
            dev_loss.append((step, value))
        for name, scores in entry["scores"].items():
            for metric in ("bleu", "chrf"):
                if isinstance(scores, Mapping) and (value := number(scores.get(metric))) is not None:
                    dev.setdefault(name, {}).setdefault(metric, []).append((step, value))
    thin = {name: {metric: _thinned(rows) for metric, rows in scores.items()} for name, scores in dev.items()}
    return Curve(stage, _thinned(loss), _thinned(dev_loss), thin) if loss or dev else None


def _thinned(rows: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most so many of them, evenly, the first and the last among them."""
    if len(rows) <= _POINTS:
        return rows
    return [rows[round(index * (len(rows) - 1) / (_POINTS - 1))] for index in range(_POINTS)]


def _pruned(path: Path) -> PrunedModel:
    raw = _object(path)
    try:
        before, after, kept = (dict(raw[name]) for name in ("before", "after", "kept"))
        channels = after["d_model"] / before["d_model"]
        parts = []
        for side, kinds in _SIDES.items():
            heads, ffn = before[f"{side}_attention_heads"], before[f"{side}_ffn_dim"]
            wide = [model["d_model"] // model[f"{side}_attention_heads"] for model in (before, after)]
            for layer in range(int(before[f"{side}_layers"])):
                for kind in kinds:
                    place = f"{side}.{layer}.{kind}"
                    entry = kept.get(place)
                    if entry is None:
                        parts.append(Part(place, "the layer is gone", 0.0, None))
                    elif "neurons" in entry:
                        told = f"{entry['neurons']:,} of {ffn:,} neurons"
                        parts.append(Part(place, told, entry["neurons"] / ffn, number(entry.get("share"))))
                    else:
                        told = f"{len(entry['heads'])} of {heads} heads, {wide[1]} of {wide[0]} channels in each"
                        parts.append(Part(place, told, channels, number(entry.get("share"))))
        losses = [number(raw.get("losses", {}).get(name)) for name in ("before", "after")]
        loss = None if losses[0] is None or losses[1] is None else (losses[0], losses[1])
        importance = _text(raw.get("how", {}).get("importance")) or "unknown"
        int(before["parameters"]), int(after["parameters"])
    except (KeyError, TypeError, ValueError, AttributeError, ZeroDivisionError) as error:
        raise ReportError(f"{path} is damaged ({_reason(error)}); make the stage again with --force") from None
    return PrunedModel(before, after, parts, loss, importance)


def _evaluated(folder: Path) -> Evaluated | None:
    path = folder / RESULTS
    if not path.is_file():
        return None
    raw = _object(path)
    manifest = _object(folder / MANIFEST) if (folder / MANIFEST).is_file() else {}
    known = SystemResult.__dataclass_fields__
    try:
        tests = tuple(from_mapping(Test, entry, f"tests[{index}]") for index, entry in enumerate(raw["tests"]))
        systems = tuple(
            from_mapping(SystemResult, {key: entry[key] for key in entry if key in known}, f"systems[{index}]")
            for index, entry in enumerate(raw["systems"])
        )
        dev = len(manifest.get("settings", {}).get("dev", ()))
        processor = _text(raw.get("machine", {}).get("processor")) or "a processor that is not named"
        signatures = {str(key): str(value) for key, value in raw.get("signatures", {}).items()}
        threads = int(number(raw.get("threads")) or 0)
    except (RecipeError, KeyError, TypeError, AttributeError) as error:
        raise ReportError(f"{path} is damaged ({_reason(error)}); make the stage again with --force") from None
    return Evaluated(folder, tests, tests[:dev], systems, processor, threads, signatures)


def _planned(path: Path) -> Planned:
    raw = _object(path)
    try:
        candidates = tuple(dict(entry) for entry in raw["candidates"])
        size, machine = int(raw["budget"]["bytes"]), _text(raw["fit"]["machine"])
        good = bool(candidates) and all(
            number(one[key]) is not None for one in candidates for key in ("bytes", "seconds")
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ReportError(f"{path} is damaged ({_reason(error)}); make the plan again with --force") from None
    if not good:
        raise ReportError(f"{path} is damaged (candidates without bytes or seconds); make the plan again with --force")
    return Planned(size, machine, candidates)


def _missing(stages: Sequence[StageState], evaluated: Evaluated | None) -> list[str]:
    found = []
    for stage in stages:
        if stage.state != "done":
            told = "has not begun" if stage.state == "not begun" else "has begun and is not done"
            found.append(f"{stage.name} {told}.")
    if evaluated is not None and not (evaluated.folder / "tests").is_dir():
        found.append("The evaluation was made by a version that kept no sources: no examples. --force makes it again.")
    return found


def _object(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ReportError(f"{path} is damaged ({error}); make the stage again with --force") from None
    except OSError as error:
        raise ReportError(f"{path} cannot be read: {error.strerror or error}") from None
    if not isinstance(found, dict):
        raise ReportError(f"{path} is damaged (no object in it); make the stage again with --force")
    return found


def _languages(about: Mapping[str, Any]) -> tuple[str, str] | None:
    source, target = (_text(about.get(key)) for key in ("source_language", "target_language"))
    return (source, target) if source and target else None


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _reason(error: Exception) -> str:
    return f"{error.args[0]} is not there" if isinstance(error, KeyError) else str(error)
