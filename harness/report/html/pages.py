"""Templates rendered as pages that need nothing else. Every value is escaped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from harness.report.drawing import style
from harness.report.text.format import visible


def render(template: str, **values: Any) -> str:
    """The template of that name, filled. Raises UndefinedError for a value that is missing."""
    return ENVIRONMENT.get_template(template).render(values)


def style_sheet() -> str:
    """The CSS that all pages share.

    Dark where the reader's system is, or where <html data-theme="dark">; light likewise.
    """
    return render("style.css.j2")


def _visible(value: Any) -> Any:
    """Jinja escapes what this returns, unless it is HTML already."""
    return visible(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


def _look(number: int) -> dict[str, Any]:
    """How a legend draws the line style of that number."""
    dash = style.DASHES[number % len(style.DASHES)]
    return {
        "series": number % len(style.LIGHT_SERIES),
        "dash": " ".join(f"{1.7 * length:g}" for length in dash),
        "marker": style.MARKERS[number % len(style.MARKERS)],
    }


ENVIRONMENT = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    finalize=_visible,
    trim_blocks=True,
    lstrip_blocks=True,
)
ENVIRONMENT.globals |= {
    "look": _look,
    "light": style.LIGHT | {f"series-{n}": colour for n, colour in enumerate(style.LIGHT_SERIES)},
    "dark": style.DARK | {f"series-{n}": colour for n, colour in enumerate(style.DARK_SERIES)},
}
