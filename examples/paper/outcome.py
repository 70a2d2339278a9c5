"""What came out: results.json, results.md, results.png, and points.json for ``mobilenmt plan``."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

from mobilenmt.compression.core.settings import to_mapping
from mobilenmt.compression.core.stage import MANIFEST, is_finished, write_json
from mobilenmt.runtime.atomic import atomic_path
from study import Comparison, Study

METRICS = {"bleu": ("BLEU", 1), "chrf": ("chrF", 1), "bits": ("bits a character", -1)}
"""Shown name, and whether more (1) or less (-1) is better."""
Results = dict[str, dict[int, dict[str, Any]]]
"""By configuration and seed: what a run returned."""


def collect(study: Study, folder: Callable[[str, int], Path]) -> Results:
    """Runs that are finished; of one number of updates, since nothing else compares."""
    found: Results = {name: {} for name in study.configurations}
    for name, runs in found.items():
        for path in sorted(folder(name, 0).parent.glob(f"{name}-*")):
            seed = path.name.removeprefix(f"{name}-")
            if seed.isdigit() and is_finished(path):
                summary = json.loads((path / MANIFEST).read_text(encoding="utf-8"))["summary"]
                if summary["steps"] == study.training.steps:
                    runs[int(seed)] = summary
    return found


def mean_of(run: Mapping[str, Any], metric: str) -> float:
    """A run's figure, the mean over the dev sets."""
    return statistics.fmean(score[metric] for score in run["scores"].values())


def verdict(better: Sequence[float], worse: Sequence[float], sign: int) -> str:
    """Whether one configuration's runs are ahead of another's.

    ``held`` if each run of the one is ahead of each of the other, ``the reverse`` if each is behind, else ``within the
    spread``. Two runs against two that differ by chance alone part so in one case of six, and so the other way round.
    """
    ahead = [sign * (one - other) > 0 for one in better for other in worse]
    if min(len(better), len(worse)) < 2:
        return "too few runs"
    if all(ahead):
        return "held"
    behind = [sign * (one - other) < 0 for one in better for other in worse]
    return "the reverse" if all(behind) else "within the spread"


def _cell(values: Sequence[float], digits: int) -> str:
    if not values:
        return ""
    mean = f"{statistics.fmean(values):.{digits}f}"
    return f"{mean} ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else f"{mean} (one seed)"


def _digits(metric: str) -> int:
    return 3 if metric == "bits" else 2


def configurations_table(study: Study, results: Results) -> str:
    """Mean and sample deviation of each configuration over its seeds, in Markdown."""
    devs = [path.stem for path in study.dev]
    rows = []
    for name, configuration in study.configurations.items():
        runs = list(results[name].values())
        row = [f"`{name}`", configuration.title, f"{configuration.parameters:,}", str(len(runs))]
        for dev in devs:
            row.append(_cell([run["scores"][dev]["bleu"] for run in runs], 2))
        for metric in ("chrf", "bits"):
            row.append(_cell([mean_of(run, metric) for run in runs], _digits(metric)))
        rows.append(row)
    heads = ["", "what", "INT8 bytes", "seeds", *(f"{dev.partition('.')[0]} BLEU" for dev in devs)]
    heads += ["mean chrF", "mean bits a character"]
    return str(tabulate(rows, heads, tablefmt="github", disable_numparse=True))


def compare(item: Comparison, results: Results) -> dict[str, Any]:
    """A comparison's figures: by metric the difference of the means (positive: as the paper found) and the verdict."""
    found: dict[str, Any] = {"principle": item.principle, "finding": item.finding}
    found |= {"better": item.better, "worse": item.worse}
    for metric, (_, sign) in METRICS.items():
        better, worse = ([mean_of(run, metric) for run in results[name].values()] for name in (item.better, item.worse))
        gain = sign * (statistics.fmean(better) - statistics.fmean(worse)) if better and worse else None
        found[metric] = {"gain": gain, "verdict": verdict(better, worse, sign)}
    return found


def comparisons_table(study: Study, results: Results) -> str:
    """What the paper found, and whether it held here by each metric, in Markdown."""
    rows = []
    for item in study.comparisons:
        found = compare(item, results)
        row = [str(item.principle), item.finding, f"`{item.better}`, `{item.worse}`"]
        for metric in METRICS:
            gain = found[metric]["gain"]
            row.append("" if gain is None else f"{found[metric]['verdict']} ({gain:+.{_digits(metric)}f})")
        rows.append(row)
    heads = ["", "the paper's finding", "compared", *(shown for shown, _ in METRICS.values())]
    return str(tabulate(rows, heads, tablefmt="github", disable_numparse=True))


def points(study: Study, results: Results) -> list[dict[str, Any]]:
    """Trained points for ``compression/plan``: configurations of the student's own form that had the same training.

    A group of one would say nothing about shapes, and is left out.
    """
    found = []
    for name, configuration in study.configurations.items():
        runs = list(results[name].values())
        if not runs or not configuration.variant.plain or configuration.dropout:
            continue
        values = [mean_of(run, "bleu") for run in runs]
        point = {
            "group": f"examples/paper, {study.training.steps} updates, {configuration.text}",
            "shape": to_mapping(configuration.shape),
            "vocabulary": configuration.vocabulary,
            "bleu": round(statistics.fmean(values), 3),
            "source": f"python examples/paper/run.py --only {name}: mean over the dev sets; seeds: {len(values)}",
        }
        if len(values) > 1:
            point["deviation"] = round(statistics.stdev(values), 3)
        found.append(point)
    groups = [point["group"] for point in found]
    return [point for point in found if groups.count(point["group"]) > 1]


def write_outcome(study: Study, results: Results, work: Path) -> str:
    """Write all files into ``work``; return the Markdown."""
    training, pieces = study.training, f"{study.counted_in:,} pieces"
    told = f"""{training.steps} updates of about {training.batch_tokens:,} target tokens ({pieces}), \
or as many sentences in others; mean ± sample deviation over the seeds.

{configurations_table(study, results)}

Whether the paper's finding held here, and by how much the configuration that it prefers is ahead (mean over the dev \
sets and seeds; a gain in bits is one of fewer bits):

{comparisons_table(study, results)}
"""
    work.mkdir(parents=True, exist_ok=True)
    with atomic_path(work / "results.md") as temporary:
        temporary.write_text(told, encoding="utf-8")
    found = {
        "training": to_mapping(study.training),
        "configurations": {
            name: {"bytes": configuration.parameters, "runs": {str(s): run for s, run in results[name].items()}}
            for name, configuration in study.configurations.items()
        },
        "comparisons": [compare(item, results) for item in study.comparisons],
    }
    write_json(work / "results.json", found)
    write_json(work / "points.json", {"format": 1, "points": points(study, results)})
    if any(results.values()):
        plot(study, results, work / "results.png")
    return told


def plot(study: Study, results: Results, out: Path) -> None:
    """Every run as a dot, by metric, the configurations one below the other."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = [name for name in study.configurations if results[name]][::-1]
    figure = Figure(figsize=(11, 1.2 + 0.34 * len(names)), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    for number, (metric, (shown, sign)) in enumerate(METRICS.items()):
        axes = figure.add_subplot(1, len(METRICS), number + 1)
        for row, name in enumerate(names):
            values = [mean_of(run, metric) for run in results[name].values()]
            color = "C1" if name == "base" else "C0"
            axes.plot(values, [row] * len(values), "o", color=color, alpha=0.6)
            axes.plot(statistics.fmean(values), row, "|", color="black", markersize=14)
        axes.set(xlabel=f"{shown} ({'more' if sign > 0 else 'less'} is better)", yticks=range(len(names)))
        axes.set_ylim(-0.6, len(names) - 0.4)
        axes.set_yticklabels(names if number == 0 else [])
        axes.grid(alpha=0.3)
    with atomic_path(out) as temporary:
        figure.savefig(temporary, metadata={"Software": None})
