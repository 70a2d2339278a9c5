"""The report as one HTML page that needs nothing else: no script, no font, no picture from elsewhere."""

from __future__ import annotations

from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any

from mobilenmt.compression.report import chart, words
from mobilenmt.compression.report.content import Content

_FILTERS = (
    *("change", "corpus_line", "count", "duration", "facts", "figure"),
    *("languages", "memory", "milliseconds", "pack", "planned", "rounds", "score", "size"),
)
"""Functions of :mod:`words` that the template writes figures with."""


def render(content: Content) -> str:
    """The page. All text that comes from a run is escaped by the template engine."""
    names = (*(item.name for item in fields(Content)), "judged", "machine", "signatures")
    return str(_template().render({name: getattr(content, name) for name in names}))


@cache
def _template() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    from mobilenmt import __version__

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        finalize=_finalize,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    environment.filters |= {name: getattr(words, name) for name in _FILTERS}
    environment.filters["fixed"] = lambda value: f"{value:.1f}"
    environment.globals |= {
        "chart_width": chart.WIDTH,
        "chart_height": chart.HEIGHT,
        "left": chart.LEFT,
        "right": chart.WIDTH - chart.RIGHT,
        "top": chart.TOP,
        "bottom": chart.HEIGHT - chart.BOTTOM,
        "version": __version__,
    }
    return environment.get_template("page.html")


def _finalize(value: Any) -> Any:
    """Texts with what HTML has no room for replaced; None as nothing."""
    if value is None:
        return ""
    return words.clean(value) if type(value) is str else value
