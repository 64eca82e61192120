"""How every page looks: colours that the colour-blind can tell apart, light and dark, and the CSS
that the pages share.

A drawing uses the variables --ink, --muted, --grid, --paper and --series-0 to --series-6, so that
one drawing serves light and dark.
"""

from __future__ import annotations

from collections.abc import Sequence

# Okabe & Ito's hues (2008, "Color Universal Design"), moved in lightness until the first five stay
# apart for deuteranopes, protanopes and tritanopes (tests/test_style.py), each with a contrast of
# 3:1 with the paper (WCAG 2.2, 1.4.11). Dashes and markers tell apart what colours can't.
LIGHT_SERIES = ("#234ed8", "#e06800", "#159a94", "#8b2f7a", "#a33a00", "#2584b3", "#3a3550")
DARK_SERIES = ("#3f8fe0", "#ff6a2a", "#2fae9c", "#f6c6dc", "#f5e663", "#a9d6ff", "#9a8f86")

LIGHT = {
    "paper": "#fdfdfb", "ink": "#1c1c1c", "muted": "#63635f", "grid": "#e4e3de", "tint": "#f4f3ee",
    "link": "#00609a", "warn": "#8a4b00", "warn-paper": "#fff6e3",
}  # fmt: skip
DARK = {
    "paper": "#141516", "ink": "#e9e7e1", "muted": "#a09f99", "grid": "#303133", "tint": "#1d1f20",
    "link": "#7cc0f2", "warn": "#ffc76b", "warn-paper": "#2b2314",
}  # fmt: skip

BASE = """
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.5 var(--sans)}
h1{font-size:1.1rem;font-weight:600;color:var(--muted);margin:0 0 .6rem}
h2{font-size:1.15rem;margin:3.2rem 0 .8rem;padding-top:.7rem;border-top:1px solid var(--grid)}
h3{font-size:.95rem;margin:1.6rem 0 .4rem}
a{color:var(--link);text-underline-offset:3px}
:focus-visible{outline:2px solid var(--link);outline-offset:2px}
.note{border-left:3px solid var(--warn);background:var(--warn-paper);color:var(--warn);
padding:.5rem .8rem;margin:.5rem 0;max-width:62em}
.caption{color:var(--muted);font-size:.85rem;margin:.5rem 0 0;max-width:72em;text-wrap:pretty}
.scroll{overflow-x:auto}
table{border-collapse:collapse;font-size:.875rem;font-variant-numeric:tabular-nums;min-width:100%}
th,td{padding:.4rem .6rem;text-align:right;white-space:nowrap;vertical-align:baseline;
border-bottom:1px solid var(--grid)}
thead th{vertical-align:bottom;font-weight:600;border-bottom:1px solid var(--muted)}
th:first-child,td:first-child{padding-left:0}
tbody th{font-weight:400}
.text{text-align:left}
code,pre{font-family:var(--mono);font-size:.84em}
pre{background:var(--tint);padding:.8rem;margin:.4rem 0 0;overflow-x:auto;white-space:pre-wrap;
overflow-wrap:anywhere;line-height:1.45;max-height:24rem}
figure{margin:.4rem 0 0}
figure svg{display:block;width:100%;height:auto}
.swatch{width:30px;height:12px;margin-right:.55em;vertical-align:-1px;fill:currentColor;
stroke:none;overflow:visible}
.swatch line{stroke:currentColor;stroke-width:2.2}
.legend{display:flex;flex-wrap:wrap;gap:.2rem 1.2rem;padding:0;margin:.6rem 0 0;list-style:none;
font-size:.9rem}
@media(prefers-reduced-motion:no-preference){html{scroll-behavior:smooth}}
"""


def style_sheet(more: str = "") -> str:
    """The CSS of a page: both sets of colours, what all pages share, and `more` of its own.

    Dark where the reader's system is, or where <html data-theme="dark">; light likewise.
    """
    fonts = (
        '--sans:system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif;'
        '--mono:ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;'
    )
    light, dark = _variables(LIGHT, LIGHT_SERIES), _variables(DARK, DARK_SERIES)
    return (
        f":root{{color-scheme:light;{fonts}{light}}}\n"
        f"@media(prefers-color-scheme:dark){{:root:not([data-theme=light])"
        f"{{color-scheme:dark;{dark}}}}}\n"
        f":root[data-theme=dark]{{color-scheme:dark;{dark}}}{BASE}{more}"
    )


def _variables(colours: dict[str, str], series: Sequence[str]) -> str:
    named = colours | {f"series-{index}": colour for index, colour in enumerate(series)}
    return "".join(f"--{name}:{colour};" for name, colour in named.items())
