"""How figures look, and how they become SVG: files with real colours, or elements of a page whose
colours are CSS variables, so that one drawing serves light and dark."""

import html
import io
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.report.style import LIGHT_SERIES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DASHES: tuple[tuple[float, ...], ...] = ((), (5, 1.8), (1.3, 1.5), (7, 1.8, 1.3, 1.8))
MARKERS = ("o", "s", "^", "D", "v", "P")
CONFIG = "config:"


def config_link(number: int) -> str:
    """What a drawn thing's url is, to become a link to that configuration on the page."""
    return f"{CONFIG}{number}"


@dataclass(frozen=True)
class Paint:
    """Colours to draw with."""

    ink: str
    muted: str
    grid: str
    paper: str
    series: tuple[str, ...]


ON_WHITE = Paint("#1c1c1c", "#666666", "#e3e3e0", "#ffffff", LIGHT_SERIES)
PLACEHOLDERS = Paint(
    "#010101", "#010102", "#010103", "#010104", tuple(f"#0102{k:02x}" for k in range(7))
)


def inline_svg(figure: "Figure", prefix: str, description: str, titles: dict[str, str]) -> str:
    """An SVG element for an HTML page, drawn with PLACEHOLDERS, which become CSS variables.

    `prefix` keeps ids apart between the figures of a page; `titles` maps the gid of a drawn thing
    to the text shown when the pointer rests on it.
    """
    svg = draw_svg(figure)
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    # In HTML an inline SVG needs no namespaces, and a page without addresses is easy to check.
    svg = re.sub(r'\s+xmlns(:\w+)?="[^"]*"', "", svg).replace("xlink:href", "href")
    svg = re.sub(r'\b(id="|href="#|url\(#)', rf"\g<1>{prefix}-", svg)
    # Coordinates have six decimals; labels have at most three, and are kept.
    svg = re.sub(r"(\.\d\d)\d{2,}", r"\1", svg)
    svg = re.sub(r"\n\s*", "\n", svg)
    svg = re.sub(r"(font: [^;\"]*?)'DejaVu Sans'[^;\"]*", r"\1var(--sans)", svg)
    for name in ("ink", "muted", "grid", "paper"):
        svg = svg.replace(getattr(PLACEHOLDERS, name), f"var(--{name})")
    for index, colour in enumerate(PLACEHOLDERS.series):
        svg = svg.replace(colour, f"var(--series-{index})")
    for gid, text in titles.items():
        opening = f'<g id="{prefix}-{gid}">'
        svg = svg.replace(opening, f"{opening}<title>{html.escape(text)}</title>")
    svg = svg.replace(f'href="{CONFIG}', 'href="#config-')
    size = r'<svg (?:width="[^"]*"|height="[^"]*"|\s)*'
    opening = f'<svg role="img" aria-label="{html.escape(description, quote=True)}" '
    # By a function: in a replacement's text a backslash would mean something.
    return re.sub(size, lambda match: opening, svg, count=1)


def draw_svg(figure: "Figure") -> str:
    """The figure as an SVG file: the same figure gives the same bytes."""
    import matplotlib

    # A fixed salt and no date: the same runs give the same bytes.
    buffer = io.StringIO()
    with matplotlib.rc_context(
        {"svg.fonttype": "none", "svg.hashsalt": "zoo", "font.family": ["DejaVu Sans"]}
    ):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def swatch(style: int) -> str:
    """A small SVG of a group's line and marker: the legend beside its name."""
    colour = f"var(--series-{style % len(LIGHT_SERIES)})"
    dash = " ".join(f"{1.7 * length:g}" for length in DASHES[style % len(DASHES)])
    marker = {
        "o": '<circle cx="15" cy="6" r="3.6"/>',
        "s": '<rect x="11.6" y="2.6" width="6.8" height="6.8"/>',
        "^": '<path d="M15 1.8 19 9.4H11z"/>',
        "D": '<path d="M15 1.2 19.4 6 15 10.8 10.6 6z"/>',
        "v": '<path d="M15 10.2 19 2.6H11z"/>',
        "P": '<path d="M13.4 2h3.2v2.4H19v3.2h-2.4V10h-3.2V7.6H11V4.4h2.4z"/>',
    }[MARKERS[style % len(MARKERS)]]
    return (
        f'<svg class="swatch" viewBox="0 0 30 12" aria-hidden="true" style="color:{colour}">'
        f'<line x1="0" y1="6" x2="30" y2="6" stroke-dasharray="{dash}"/>{marker}</svg>'
    )
