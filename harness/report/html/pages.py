"""Renders self-contained pages from templates. Every value is escaped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from harness.common.text import visible
from harness.report.drawing import style


def render(template: str, **values: Any) -> str:
    """The rendered template. Raises UndefinedError for a missing value."""
    return ENVIRONMENT.get_template(template).render(values)


def style_sheet() -> str:
    """The CSS that all pages share.

    Dark or light like the reader's system, unless <html data-theme> is set to one.
    """
    return render("style.css.j2")


def _visible(value: Any) -> Any:
    """Jinja escapes what this returns, unless it is HTML already."""
    return visible(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


def _legend_style(number: int) -> dict[str, Any]:
    """The line style of that number, for the legend's SVG."""
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
    "legend_style": _legend_style,
    "light": style.LIGHT | {f"series-{n}": colour for n, colour in enumerate(style.LIGHT_SERIES)},
    "dark": style.DARK | {f"series-{n}": colour for n, colour in enumerate(style.DARK_SERIES)},
}
