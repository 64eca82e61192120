"""A bar plot in characters, for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

BARS = " ▁▂▃▄▅▆▇█"


def draw(
    heights: Sequence[float], start: str, end: str, height: int = 10, bottom: float = 0.0
) -> str:
    """One column per value, from `bottom` to the largest; `start` and `end` label the ends of the
    axis."""
    span = max(heights) - bottom or 1.0
    lines = []
    for row in reversed(range(height)):
        cells = (min(1.0, max(0.0, (value - bottom) / span * height - row)) for value in heights)
        shown = row in (height - 1, height // 2 - 1)
        label = f"{bottom + span * (row + 1) / height:9.3g} ┤" if shown else ""
        lines.append(label.rjust(11, " ") if label else " " * 10 + "│")
        lines[-1] += "".join(BARS[round(8 * cell)] for cell in cells)
    lines.append(f"{bottom:9.3g} └" + "─" * len(heights))
    return "\n".join([*lines, " " * 11 + start + end.rjust(len(heights) - len(start))])
