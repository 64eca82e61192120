"""Figures as SVG: files with fixed colours, or elements of a page whose colours are CSS variables,
so that one drawing serves light and dark."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from xml.etree import ElementTree

from harness.common.text import visible
from harness.report.drawing.own_matplotlib import Figure, own_style
from harness.report.drawing.style import LIGHT_SERIES

CONFIG = "config:"


def config_link(number: int) -> str:
    """The url of an artist, which becomes a link to that configuration on the page."""
    return f"{CONFIG}{number}"


@dataclass(frozen=True)
class Palette:
    """Colours to draw with."""

    ink: str
    muted: str
    grid: str
    paper: str
    series: tuple[str, ...]


ON_WHITE = Palette("#1c1c1c", "#666666", "#e3e3e0", "#ffffff", LIGHT_SERIES)
PLACEHOLDERS = Palette(
    "#010101", "#010102", "#010103", "#010104", tuple(f"#0102{k:02x}" for k in range(7))
)
VARIABLES = {
    **{getattr(PLACEHOLDERS, name): f"var(--{name})" for name in ("ink", "muted", "grid", "paper")},
    **{colour: f"var(--series-{index})" for index, colour in enumerate(PLACEHOLDERS.series)},
}


def inline_svg(figure: Figure, prefix: str, description: str, titles: Mapping[str, str]) -> str:
    """An SVG element for an HTML page, drawn with PLACEHOLDERS, which become CSS variables.

    prefix: makes ids unique on the page. titles: tooltips by the gid of an artist.
    """
    svg = ElementTree.fromstring(draw_svg(figure))
    svg.remove(svg[0])  # its metadata
    svg.attrib = {
        "role": "img",
        "aria-label": visible(description),
        "viewBox": svg.attrib["viewBox"],
    }
    for element in list(svg.iter()):
        title = titles.get(element.get("id", ""))
        # An inline SVG needs no namespaces, and a page without addresses is easy to check.
        element.tag = _local(element.tag)
        element.attrib = {
            _local(name): _on_page(_local(name), value, prefix) for name, value in element.items()
        }
        if title is not None:
            shown = ElementTree.Element("title")
            shown.text = visible(title)
            element.insert(0, shown)
        element.tail = "\n"
    return ElementTree.tostring(svg, encoding="unicode").strip()


def _local(name: str) -> str:
    return name.rpartition("}")[2]


def _on_page(name: str, value: str, prefix: str) -> str:
    """An attribute's value on the page. Only aria-label holds text of runs."""
    if name == "id":
        return f"{prefix}-{value}"
    if name == "href":
        return value.replace(CONFIG, "#config-") if CONFIG in value else f"#{prefix}-{value[1:]}"
    if name == "aria-label":
        return value
    value = value.replace("url(#", f"url(#{prefix}-")
    value = re.sub(r"(\.\d\d)\d{2,}", r"\1", value)  # hundredths of a point are enough
    value = re.sub(r"'DejaVu Sans'[^;]*", "var(--sans)", value)
    return re.sub(r"#[0-9a-f]{6}", lambda found: VARIABLES.get(found[0], found[0]), value)


@own_style()
def draw_svg(figure: Figure) -> str:
    """The figure as an SVG file. A fixed salt and no date: equal figures give equal bytes."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()
