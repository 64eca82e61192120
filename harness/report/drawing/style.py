"""The style of pages and figures: colour-blind safe colours for light and dark pages, and dashes
and markers to go with them.

Pages have the colours as the CSS variables --ink, --muted, --grid, --paper and --series-0 to
--series-6, so that one drawing serves light and dark.
"""

# Okabe & Ito's hues (2008, "Color Universal Design"), moved in lightness until the first five stay
# apart for deuteranopes, protanopes and tritanopes (tests/report/test_style.py), each with a
# contrast of 3:1 with the paper (WCAG 2.2, 1.4.11).
LIGHT_SERIES = ("#234ed8", "#e06800", "#159a94", "#8b2f7a", "#a33a00", "#2584b3", "#3a3550")
DARK_SERIES = ("#3f8fe0", "#ff6a2a", "#2fae9c", "#f6c6dc", "#f5e663", "#a9d6ff", "#9a8f86")

LIGHT = {
    "paper": "#fdfdfb", "ink": "#1c1c1c", "muted": "#63635f", "grid": "#e4e3de", "tint": "#f4f3ee",
    "link": "#00609a", "warn": "#8a4b00", "warn-paper": "#fff6e3", "heat": "#f08a24",
}  # fmt: skip
DARK = {
    "paper": "#141516", "ink": "#e9e7e1", "muted": "#a09f99", "grid": "#303133", "tint": "#1d1f20",
    "link": "#7cc0f2", "warn": "#ffc76b", "warn-paper": "#2b2314", "heat": "#a54400",
}  # fmt: skip

DASHES: tuple[tuple[float, ...], ...] = ((), (5, 1.8), (1.3, 1.5), (7, 1.8, 1.3, 1.8))
MARKERS = ("o", "s", "^", "D", "v", "P")
