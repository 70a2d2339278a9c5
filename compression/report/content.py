"""What a report says, put together once for the page and for Markdown."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from mobilenmt.compression.report import words
from mobilenmt.compression.report.chart import Chart, Point, Series, make_chart
from mobilenmt.compression.report.compare import (
    METRICS,
    Candidate,
    Comparison,
    Example,
    Step,
    choose_examples,
    compare,
    steps,
)
from mobilenmt.compression.report.run import Curve, Run

_COSTS: dict[str, tuple[str, Callable[[float], str]]] = {
    "bytes": ("size", words.size),
    "milliseconds": ("ms a sentence", words.short),
}
_COLOURS = 6


@dataclass(frozen=True)
class RunPart:
    """What is said of one run alone."""

    name: str
    run: Run
    colour: int
    steps: Sequence[Step]


@dataclass(frozen=True)
class Content:
    """A report."""

    title: str
    parts: Sequence[RunPart]
    comparison: Comparison
    fronts: dict[str, list[int]]
    """``bytes`` and ``milliseconds`` -> numbers of the candidates that none beats in BLEU without costing more."""
    quality_charts: Sequence[Chart]
    curve_charts: Sequence[Chart]
    plan_charts: Sequence[Chart]
    examples: Sequence[Example]

    @property
    def signatures(self) -> Mapping[str, str]:
        """sacrebleu's, of the first run that has some."""
        return next((part.run.evaluated.signatures for part in self.parts if part.run.evaluated), {})

    @property
    def machine(self) -> str:
        """What the times are from; of each run, where they differ."""
        told = {
            part.name: f"{one.threads or 'all'} thread{'' if one.threads == 1 else 's'} of {one.processor}"
            for part in self.parts
            if (one := part.run.evaluated)
        }
        if len(set(told.values())) > 1:
            return "; ".join(f"{name} on {machine}" for name, machine in told.items())
        return "".join(list(told.values())[:1])

    @property
    def judged(self) -> str:
        """Which sets a mean is taken of, in words."""
        kind = "dev" if self.comparison.of_dev else "test"
        names = [test.name for test in self.comparison.judged]
        return f"the {kind} set {names[0]}" if len(names) == 1 else f"the {kind} sets {', '.join(names)}"


def make_content(runs: Sequence[Run]) -> Content:
    """Compare runs. Raises ReportError if what one of them holds does not fit together."""
    names = words.told_apart(list(runs))
    comparison = compare(runs, names)
    parts = [
        RunPart(name, run, index % _COLOURS, steps(run))
        for index, (name, run) in enumerate(zip(names, runs, strict=True))
    ]
    one = f"{names[0]}: {words.languages(runs[0])}" if runs[0].languages else names[0]
    return Content(
        title=one if len(runs) == 1 else f"{len(runs)} runs: {', '.join(names)}",
        parts=parts,
        comparison=comparison,
        fronts={cost: [one.number for one in comparison.front(cost, "bleu")] for cost in _COSTS},
        quality_charts=[
            chart for metric in METRICS for cost in _COSTS if (chart := _quality_chart(comparison, cost, metric))
        ],
        curve_charts=_curve_charts(parts),
        plan_charts=[chart for part in parts if (chart := _plan_chart(part, len(parts) > 1))],
        examples=choose_examples(runs, names),
    )


def _quality_chart(comparison: Comparison, cost: str, metric: str) -> Chart | None:
    shown = [one for one in comparison.candidates if one.quality and one.cost(cost) is not None]
    front = comparison.front(cost, metric)
    levels = [
        (one.quality[metric], one.label) for one in comparison.candidates if one.quality and one.system.kind == "peer"
    ]

    def point(one: Candidate) -> Point:
        value = one.cost(cost) or 0.0
        written = words.size(value) if cost == "bytes" else words.milliseconds(value)
        told = f"{one.label}: {words.score(one.quality[metric])} {METRICS[metric]}, {written}"
        return Point(value, one.quality[metric], told, str(one.number))

    series = [  # the front is drawn last, on top of the others
        Series(
            "",
            colour,
            [point(one) for one in sorted(shown, key=front.__contains__) if one.run % _COLOURS == colour],
            line=False,
        )
        for colour in sorted({one.run % _COLOURS for one in shown})
    ]
    label, written = _COSTS[cost]
    return make_chart(
        f"{METRICS[metric]} against {'size' if cost == 'bytes' else 'time'}",
        series,
        x=(label, written),
        y=(METRICS[metric], words.short),
        logarithmic=True,
        most=100,
        levels=levels,
        front=[(one.cost(cost) or 0.0, one.quality[metric]) for one in front],
    )


def _curve_charts(parts: Sequence[RunPart]) -> list[Chart]:
    """Of each training stage: loss, then BLEU and chrF on the dev sets, all runs in one."""
    found = []
    for stage, title in (("teacher_model", "Teacher"), ("distill", "Student")):
        curves = [(part, curve) for part in parts for curve in part.run.curves if curve.stage == stage]
        losses = [
            Series(part.name if len(parts) > 1 else "training", part.colour, _points(curve.loss))
            for part, curve in curves
            if curve.loss
        ]
        losses += [
            Series(f"{part.name}, dev sets" if len(parts) > 1 else "dev sets", part.colour, rows, dashed=True)
            for part, curve in curves
            if (rows := _points(curve.dev_loss))
        ]
        charts = [_over_updates(f"{title}: loss in training, nats a token", losses, "loss")]
        for metric, shown in METRICS.items():
            sets = [
                Series(
                    _label(part, name, parts, curve),
                    (part.colour if len(parts) > 1 else index) % _COLOURS,
                    _points(scores[metric]),
                    dashed=len(parts) > 1 and index % 2 == 1,
                )
                for part, curve in curves
                for index, (name, scores) in enumerate(curve.dev.items())
                if metric in scores
            ]
            charts.append(_over_updates(f"{title}: {shown} on dev sets", sets, shown, most=100))
        found += [chart for chart in charts if chart is not None]
    return found


def _label(part: RunPart, name: str, parts: Sequence[RunPart], curve: Curve) -> str:
    if len(parts) == 1:
        return name
    return part.name if len(curve.dev) == 1 else f"{part.name}, {name}"


def _points(rows: Sequence[tuple[float, float]]) -> list[Point]:
    return [Point(step, value) for step, value in rows]


def _over_updates(title: str, series: Sequence[Series], shown: str, most: float = math.inf) -> Chart | None:
    return make_chart(title, series, x=("updates", words.short), y=(shown, words.short), most=most)


def _plan_chart(part: RunPart, several: bool) -> Chart | None:
    plan = part.run.planned
    if plan is None:
        return None
    points = [Point(float(one["bytes"]), 1e3 * float(one["seconds"])) for one in plan.candidates]
    series = [
        Series("others that nothing beats", 5, points[1:], line=False),
        Series("chosen", part.colour, points[:1], line=False),
    ]
    return make_chart(
        f"Shapes that were planned{f' for {part.name}' if several else ''}: predicted ms a sentence against size",
        [one for one in series if one.points],
        x=("size", words.size),
        y=("predicted ms a sentence", words.short),
    )
