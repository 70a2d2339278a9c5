"""Geometry of charts: what a template draws as SVG. No drawing library: colours come from the page, light or dark."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

WIDTH, HEIGHT = 400, 270
"""Of the view box; small, so that text stays readable on a phone."""
LEFT, RIGHT, TOP, BOTTOM = 46, 20, 12, 40

_FACTORS = ((1.1, (1, 2, 3, 5)), (2, (1, 2, 5)), (3, (1, 3)), (math.inf, (1,)))
"""Powers of ten less than so many -> what each is multiplied by for the grid of a logarithmic axis."""


@dataclass(frozen=True)
class Point:
    """A value, and what to say about it."""

    x: float
    y: float
    told: str = ""
    mark: str = ""
    """A letter or two inside of it."""


@dataclass(frozen=True)
class Series:
    """Points of one colour."""

    label: str
    colour: int
    points: Sequence[Point]
    line: bool = True
    dashed: bool = False


@dataclass(frozen=True)
class Axis:
    """A direction: from values to places in the view box, and the lines of its grid."""

    label: str
    place: Callable[[float], float]
    ticks: Sequence[tuple[float, str]]
    """Places and texts."""


@dataclass(frozen=True)
class Chart:
    """All that a template needs."""

    title: str
    x: Axis
    y: Axis
    series: Sequence[Series]
    levels: Sequence[tuple[float, str]] = field(default=())
    """Places of horizontal lines, and what they stand for."""
    steps: Sequence[tuple[float, float]] = ()
    """Places of a line of stairs, the front."""

    def path(self, series: Series) -> str:
        """The line through its points, as an SVG path."""
        places = (f"{self.x.place(point.x):.1f},{self.y.place(point.y):.1f}" for point in series.points)
        return "M" + "L".join(places)

    def stairs(self) -> str:
        """The front as an SVG path."""
        (x, y), *rest = self.steps
        return f"M{x:.1f},{y:.1f}" + "".join(f"H{right:.1f}V{up:.1f}" for right, up in rest)


def make_chart(
    title: str,
    series: Sequence[Series],
    *,
    x: tuple[str, Callable[[float], str]],
    y: tuple[str, Callable[[float], str]],
    logarithmic: bool = False,
    most: float = math.inf,
    levels: Sequence[tuple[float, str]] = (),
    front: Sequence[tuple[float, float]] = (),
) -> Chart | None:
    """Fit axes to the points; None if there is none.

    Args:
        title: what it shows.
        series: what is drawn.
        x: label of the axis, and how its values are written.
        y: the same upwards.
        logarithmic: let x grow by factors, where its values span more than one of 3.
        most: what y cannot exceed, 100 for scores.
        levels: values of y that lines are drawn at, and their texts.
        front: points of a line of stairs, from left to right.
    """
    points = [point for one in series for point in one.points]
    if not points:
        return None
    across, up = [point.x for point in points], [*(point.y for point in points), *(value for value, _ in levels)]
    logarithmic = logarithmic and min(across) > 0 and max(across) > 3 * min(across)
    x_axis = _axis(x, across, (LEFT, WIDTH - RIGHT), logarithmic=logarithmic)
    y_axis = _axis(y, up, (HEIGHT - BOTTOM, TOP), most=most)
    return Chart(
        title,
        x_axis,
        y_axis,
        series,
        tuple((y_axis.place(value), told) for value, told in levels),
        tuple((x_axis.place(one), y_axis.place(other)) for one, other in front),
    )


def _axis(
    named: tuple[str, Callable[[float], str]],
    values: Sequence[float],
    ends: tuple[float, float],
    *,
    logarithmic: bool = False,
    most: float = math.inf,
) -> Axis:
    (label, written), (start, end) = named, ends
    scale: Callable[[float], float] = math.log10 if logarithmic else float
    low, high = scale(min(values)), scale(max(values))
    room = 0.06 * (high - low) or abs(0.05 * high) or 1.0
    low, high = low - room, max(high, min(high + room, most))

    def place(value: float) -> float:
        return start + (scale(value) - low) / (high - low) * (end - start)

    ticks = _decades(low, high) if logarithmic else _round_ticks(low, high)
    return Axis(label, place, [(place(value), written(value)) for value in ticks])


def _round_ticks(low: float, high: float) -> list[float]:
    """Three to seven round values between two (steps of 1, 2 or 5 times a power of ten)."""
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    first = math.ceil(low / step)
    return [index * step for index in range(first, math.floor(high / step) + 1)]


def _decades(low: float, high: float) -> list[float]:
    """Round values between two powers of ten, the fewer of each the more powers there are."""
    factors = next(found for most, found in _FACTORS if high - low < most)
    every = math.ceil((high - low) / 8)
    return [
        factor * 10.0**power
        for power in range(math.floor(low), math.ceil(high) + 1, every)
        for factor in factors
        if low <= math.log10(factor) + power <= high
    ]
