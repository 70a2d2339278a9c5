"""The report as one HTML page that needs nothing else: no script, no font, no picture from elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mobilenmt.compression.report import chart, words
from mobilenmt.compression.report.content import Content


def render(content: Content) -> str:
    """The page. All text that comes from a run is escaped by the template engine."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    from mobilenmt import __version__

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        finalize=_finalize,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    environment.filters |= {
        name: getattr(words, name)
        for name in ("size", "duration", "count", "milliseconds", "score", "change", "memory", "facts", "corpus_line")
    }
    environment.filters |= {
        "languages": words.languages,
        "pack": words.pack,
        "fixed": lambda value: f"{value:.1f}",
        "figure": words.figure,
    }
    return environment.get_template("page.html").render(
        {name: getattr(content, name) for name in (*Content.__dataclass_fields__, "judged", "machine", "signatures")},
        chart_width=chart.WIDTH,
        chart_height=chart.HEIGHT,
        left=chart.LEFT,
        right=chart.WIDTH - chart.RIGHT,
        top=chart.TOP,
        bottom=chart.HEIGHT - chart.BOTTOM,
        version=__version__,
    )


def _finalize(value: Any) -> Any:
    """Texts with what HTML has no room for replaced; None as nothing."""
    if value is None:
        return ""
    return words.clean(value) if type(value) is str else value
