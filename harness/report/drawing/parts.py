"""Parts of figures: axes, ticks on round numbers, and labels that overlap nothing."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, FuncFormatter, NullLocator

from harness.report.drawing.curves import Series
from harness.report.drawing.style import DASHES, MARKERS
from harness.report.drawing.svg import PLACEHOLDERS, Paint, config_link
from harness.report.text.format import PREFIXES, visible

FONT = 9.0


def canvas(paint: Paint, size: tuple[float, float], right: float) -> tuple[Figure, Axes]:
    """A figure of `size` inches with one pair of axes, and this much room to the right of them."""
    figure = Figure(figsize=size, facecolor="none" if paint is PLACEHOLDERS else paint.paper)
    width, height = size
    axes = figure.add_axes(
        (0.62 / width, 0.52 / height, 1 - (0.62 + right) / width, 1 - 0.72 / height)
    )
    axes.set_facecolor("none")
    plain_axes(axes, paint, FONT)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set_color(paint.ink)
        label.set_fontsize(FONT)
    return figure, axes


def plain_axes(axes: Axes, paint: Paint, font: float) -> None:
    """One line at the bottom, a grid of values, and ticks that are set in small print."""
    axes.grid(axis="y", color=paint.grid, lw=0.8)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(paint.muted)
        spine.set_linewidth(0.8)
    axes.tick_params(which="both", colors=paint.muted, labelsize=font, width=0.8)
    axes.tick_params(axis="y", length=0)


def line_look(style: int, paint: Paint) -> dict[str, Any]:
    dash = DASHES[style % len(DASHES)]
    return {
        "color": paint.series[style % len(paint.series)],
        "linestyle": (0, dash) if dash else "-",
        "marker": MARKERS[style % len(MARKERS)],
        "lw": 1.7,
        "markersize": 4.2,
        "markeredgewidth": 0,
    }


def link(style: int, paint: Paint) -> str | None:
    """On a page each drawn thing leads to its configuration; a file stands alone."""
    return config_link(style) if paint is PLACEHOLDERS else None


def zero_slot(axes: Axes, positive: list[float], any_zero: bool, paint: Paint) -> float:
    """Sets a log axis; a cost of zero gets a place of its own left of it, marked 0."""
    low, high = (min(positive), max(positive)) if positive else (1.0, 10.0)
    room = max(1.3, (high / low) ** 0.12)
    axes.set_xscale("log")
    zero_at = low / room**3
    left, right = (zero_at if any_zero else low) / room, high * room
    axes.set_xlim(left, right)
    ticks = log_ticks(low / room**0.5, right, right / left) if positive else []
    if any_zero:
        ticks = [zero_at, *ticks]
        axes.axvline(low / room**1.5, ymax=0.06, color=paint.muted, lw=0.8)
    names = ["0" if any_zero and tick == zero_at else _tick_text(tick) for tick in ticks]
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_major_formatter(FixedFormatter(names))
    axes.xaxis.set_minor_locator(NullLocator())
    return zero_at


def number_ticks(axes: Axes, log: bool) -> None:
    if log:
        axes.xaxis.set_major_locator(FixedLocator(log_ticks(*axes.get_xlim())))
        axes.xaxis.set_minor_locator(NullLocator())
    elif axes.get_xticks().size:
        axes.locator_params(axis="x", nbins=round(axes.bbox.width / axes.figure.dpi * 1.4))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _tick_text(value)))


def log_ticks(low: float, high: float, span: float | None = None) -> list[float]:
    """Round numbers in between, as many as can be read on an axis that spans this ratio."""
    nearest = 0.13 * math.log(span or high / low)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks: list[float] = []
    for digits in (range(1, 10), (1, 2, 4, 6, 8), (1, 2, 5), (1, 3), (1,)):
        ticks = [float(f"{digit}e{power}") for power in powers for digit in digits]
        ticks = [tick for tick in ticks if low <= tick <= high]
        gaps = [math.log(after / before) for before, after in itertools.pairwise(ticks)]
        if not gaps or min(gaps) >= nearest:
            break
    return ticks[:: max(1, math.ceil(len(ticks) / 7))] or [float(f"{(low * high) ** 0.5:.2g}")]


def _tick_text(value: float) -> str:
    """A round number with an SI prefix: 20 M; small ones as they are: 0.5."""
    if abs(value) < 1000:
        return f"{value:g}"
    power = min(len(PREFIXES) - 1, int(math.log10(abs(value)) + 1e-9) // 3)
    return f"{value / 1000**power:g} {PREFIXES[power]}"


def label_width(names: Iterable[str]) -> float:
    """Inches for the widest label: the line's piece, the last value, the name."""
    return 0.5 + (max(map(len, names), default=0) + 7) * FONT * 0.58 / 72


def short(label: str) -> str:
    """A name as figures have it: matplotlib can't draw every character."""
    return visible(label if len(label) <= 34 else label[:33] + "…")


def label_ends(
    axes: Axes,
    series: Sequence[Series],
    names: dict[int, str],
    free: set[int],
    paint: Paint,
) -> None:
    """Names each curve and its last value at the right, joined to its end by a dotted line."""
    to_axes = axes.transData + axes.transAxes.inverted()
    ends = []
    for line in series:
        x = axes.get_xlim()[1] if line.style in free else line.x[-1]
        x_at, y_at = to_axes.transform((x, line.y[-1]))
        ends.append((x_at, min(1.0, max(0.0, y_at))))
    height = axes.get_window_extent().height / axes.figure.dpi * 72
    places = _spread_out([y for _, y in ends], gap=1.45 * FONT / height)
    for line, (x, y), place in zip(series, ends, places, strict=True):
        own = line_look(line.style, paint)
        thin = {"color": own["color"], "lw": 0.8, "dashes": (1, 2), "clip_on": False}
        axes.plot([x, 1.012], [y, place], transform=axes.transAxes, **thin)
        bold = own | {"clip_on": False, "markevery": [1]}
        axes.plot([1.012, 1.027, 1.042], [place] * 3, transform=axes.transAxes, **bold)
        axes.text(
            1.052, place, f"{line.y[-1]:.3f}  {names[line.style]}", transform=axes.transAxes,
            va="center_baseline", fontsize=FONT, color=paint.ink, parse_math=False,
            url=link(line.style, paint),
        )  # fmt: skip


def _spread_out(wanted: Sequence[float], gap: float) -> list[float]:
    """Moves positions in [0, 1] as little as needed for a gap between neighbours."""
    order = sorted(range(len(wanted)), key=lambda index: wanted[index])
    gap = min(gap, 1 / max(1, len(wanted) - 1))
    places = list(wanted)
    for before, after in itertools.pairwise(order):
        places[after] = max(places[after], places[before] + gap)
    ceiling = 1.0
    for index in reversed(order):
        places[index] = min(places[index], ceiling)
        ceiling = places[index] - gap
    return places


def name_points(
    axes: Axes,
    points: Sequence[tuple[float, float, str, int]],
    corners: Sequence[tuple[float, float]],
    paint: Paint,
) -> None:
    """Names points beside their markers, where they cross neither a name nor the staircase."""
    scale = axes.figure.dpi / 72
    left, bottom, right, top = (edge / scale for edge in axes.get_window_extent().extents)
    centres = [axes.transData.transform((x, y)) / scale for x, y, *_ in points]
    taken = [(x - 5, y - 5, x + 5, y + 5) for x, y in centres]
    steps = [axes.transData.transform(corner) / scale for corner in corners]
    taken += [
        (min(x, to_x) - 1, min(y, to_y) - 1, max(x, to_x) + 1, max(y, to_y) + 1)
        for (x, y), (to_x, to_y) in itertools.pairwise(steps)
    ]

    def crowding(box: tuple[float, float, float, float]) -> float:
        outside = box[0] < left or box[1] < bottom or box[2] > right + 12 or box[3] > top + 12
        return 100 * outside + sum(
            box[0] < other[2] and other[0] < box[2] and box[1] < other[3] and other[1] < box[3]
            for other in taken
        )

    for (x, y, label, style), (at_x, at_y) in zip(points, centres, strict=True):
        width, height = len(short(label)) * FONT * 0.6, FONT * 1.2
        offsets = [(9.0, -height / 2), (-9 - width, -height / 2)]
        offsets += [(shift * width, rise) for rise in (8, -8 - height, 20, -20 - height, 32)
                    for shift in (-0.5, 0, -1)]  # fmt: skip
        boxes = [
            (at_x + dx, at_y + dy, at_x + dx + width, at_y + dy + height) for dx, dy in offsets
        ]
        best = min(range(len(boxes)), key=lambda index: crowding(boxes[index]))
        taken.append(boxes[best])
        dx, dy = offsets[best]
        axes.annotate(
            short(label), (x, y), (dx + width / 2, dy + height / 2),
            textcoords="offset points", ha="center",
            va="center_baseline", fontsize=FONT, color=paint.ink, parse_math=False,
            url=link(style, paint),
        )  # fmt: skip
