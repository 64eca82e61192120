"""Parts of figures: axes, ticks at round numbers, and labels that do not overlap."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any

from harness.common.text import visible
from harness.report.drawing.curves import Series
from harness.report.drawing.own_matplotlib import (
    Axes,
    Figure,
    FixedFormatter,
    FixedLocator,
    FuncFormatter,
    NullLocator,
)
from harness.report.drawing.style import DASHES, MARKERS
from harness.report.drawing.svg import PLACEHOLDERS, Palette, config_link
from harness.report.text.format import PREFIXES

FONT = 9.0


def new_axes(palette: Palette, size: tuple[float, float], right: float) -> tuple[Figure, Axes]:
    """A figure with one pair of axes. size, right: inches; right is the margin on that side."""
    figure = Figure(figsize=size, facecolor="none" if palette is PLACEHOLDERS else palette.paper)
    width, height = size
    axes = figure.add_axes(
        (0.62 / width, 0.52 / height, 1 - (0.62 + right) / width, 1 - 0.72 / height)
    )
    axes.set_facecolor("none")
    style_axes(axes, palette, FONT)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set_color(palette.ink)
        label.set_fontsize(FONT)
    return figure, axes


def style_axes(axes: Axes, palette: Palette, font: float) -> None:
    """A line at the bottom, a grid of y values, small ticks."""
    axes.grid(axis="y", color=palette.grid, lw=0.8)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(palette.muted)
        spine.set_linewidth(0.8)
    axes.tick_params(which="both", colors=palette.muted, labelsize=font, width=0.8)
    axes.tick_params(axis="y", length=0)


def line_kwargs(style: int, palette: Palette) -> dict[str, Any]:
    dash = DASHES[style % len(DASHES)]
    return {
        "color": palette.series[style % len(palette.series)],
        "linestyle": (0, dash) if dash else "-",
        "marker": MARKERS[style % len(MARKERS)],
        "lw": 1.7,
        "markersize": 4.2,
        "markeredgewidth": 0,
    }


def link(style: int, palette: Palette) -> str | None:
    """The link to a configuration, on a page; None in a file."""
    return config_link(style) if palette is PLACEHOLDERS else None


def log_axis(axes: Axes, positive: list[float], any_zero: bool, palette: Palette) -> float:
    """Set a log x axis. Returns where a cost of zero is drawn: left of all, at a tick 0."""
    low, high = (min(positive), max(positive)) if positive else (1.0, 10.0)
    room = max(1.3, (high / low) ** 0.12)
    axes.set_xscale("log")
    zero_at = low / room**3
    left, right = (zero_at if any_zero else low) / room, high * room
    axes.set_xlim(left, right)
    ticks = log_ticks(low / room**0.5, right, right / left) if positive else []
    if any_zero:
        ticks = [zero_at, *ticks]
        axes.axvline(low / room**1.5, ymax=0.06, color=palette.muted, lw=0.8)
    names = ["0" if any_zero and tick == zero_at else tick_text(tick) for tick in ticks]
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_major_formatter(FixedFormatter(names))
    axes.xaxis.set_minor_locator(NullLocator())
    return zero_at


def set_ticks(axes: Axes, log: bool) -> None:
    if log:
        axes.xaxis.set_major_locator(FixedLocator(log_ticks(*axes.get_xlim())))
        axes.xaxis.set_minor_locator(NullLocator())
    elif axes.get_xticks().size:
        axes.locator_params(axis="x", nbins=round(axes.bbox.width / axes.figure.dpi * 1.4))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: tick_text(value)))


def log_ticks(low: float, high: float, span: float | None = None) -> list[float]:
    """Round numbers between low and high, few enough not to overlap.

    span: the ratio of the axis' ends, if it is longer than from low to high.
    """
    nearest = 0.13 * math.log(span or high / low)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)

    def between(digits: Iterable[int]) -> list[float]:
        ticks = [float(f"{digit}e{power}") for power in powers for digit in digits]
        return [tick for tick in ticks if low <= tick <= high]

    for digits in (range(1, 10), (1, 2, 4, 6, 8), (1, 2, 5), (1, 3), (1,)):
        ticks = between(digits)
        gaps = [math.log(after / before) for before, after in itertools.pairwise(ticks)]
        if gaps and (min(gaps) >= nearest or digits == (1,)):
            return ticks[:: math.ceil(len(ticks) / 7)]
    spaced: list[float] = []
    for tick in between(range(1, 10)):
        if not spaced or math.log(tick / spaced[-1]) >= nearest:
            spaced.append(tick)
    return spaced or [float(f"{(low * high) ** 0.5:.2g}")]


def tick_text(value: float) -> str:
    """A tick's label: 20 M with an SI prefix; 0.5 without, below 1000."""
    if abs(value) < 1000:
        return f"{value:g}"
    power = min(len(PREFIXES) - 1, int(math.log10(abs(value)) + 1e-9) // 3)
    return f"{value / 1000**power:g} {PREFIXES[power]}"


def label_width(names: Iterable[str]) -> float:
    """Inches for the widest label: a piece of its line, the last value, the name."""
    return 0.5 + (max(map(len, names), default=0) + 7) * FONT * 0.58 / 72


def shorten(label: str) -> str:
    """At most 34 characters, all of which matplotlib can draw."""
    return visible(label if len(label) <= 34 else label[:33] + "…")


def label_ends(
    axes: Axes,
    series: Sequence[Series],
    names: dict[int, str],
    free: set[int],
    palette: Palette,
) -> None:
    """Label each curve with its last value and name, at the right, joined by a dotted line."""
    to_axes = axes.transData + axes.transAxes.inverted()
    ends = []
    for line in series:
        x = axes.get_xlim()[1] if line.style in free else line.x[-1]
        x_at, y_at = to_axes.transform((x, line.y[-1]))
        ends.append((x_at, min(1.0, max(0.0, y_at))))
    height = axes.get_window_extent().height / axes.figure.dpi * 72
    places = _spread_out([y for _, y in ends], gap=1.45 * FONT / height)
    for line, (x, y), place in zip(series, ends, places, strict=True):
        own = line_kwargs(line.style, palette)
        thin = {"color": own["color"], "lw": 0.8, "dashes": (1, 2), "clip_on": False}
        axes.plot([x, 1.012], [y, place], transform=axes.transAxes, **thin)
        bold = own | {"clip_on": False, "markevery": [1]}
        axes.plot([1.012, 1.027, 1.042], [place] * 3, transform=axes.transAxes, **bold)
        axes.text(
            1.052, place, f"{line.y[-1]:.3f}  {names[line.style]}", transform=axes.transAxes,
            va="center_baseline", fontsize=FONT, color=palette.ink, parse_math=False,
            url=link(line.style, palette),
        )  # fmt: skip


def _spread_out(wanted: Sequence[float], gap: float) -> list[float]:
    """Move positions in [0, 1] apart until neighbours have this gap."""
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
    palette: Palette,
) -> None:
    """Label points beside their markers, where labels overlap neither each other nor the front.

    points: x, y, label, style. corners: of the Pareto front's staircase.
    """
    scale = axes.figure.dpi / 72
    left, bottom, right, top = (edge / scale for edge in axes.get_window_extent().extents)
    centres = [axes.transData.transform((x, y)) / scale for x, y, *_ in points]
    taken = [(x - 5, y - 5, x + 5, y + 5) for x, y in centres]
    steps = [axes.transData.transform(corner) / scale for corner in corners]
    taken += [
        (min(x, to_x) - 1, min(y, to_y) - 1, max(x, to_x) + 1, max(y, to_y) + 1)
        for (x, y), (to_x, to_y) in itertools.pairwise(steps)
    ]

    def overlaps(box: tuple[float, float, float, float]) -> float:
        outside = box[0] < left or box[1] < bottom or box[2] > right + 12 or box[3] > top + 12
        return 100 * outside + sum(
            box[0] < other[2] and other[0] < box[2] and box[1] < other[3] and other[1] < box[3]
            for other in taken
        )

    for (x, y, label, style), (at_x, at_y) in zip(points, centres, strict=True):
        width, height = len(shorten(label)) * FONT * 0.6, FONT * 1.2
        offsets = [(9.0, -height / 2), (-9 - width, -height / 2)]
        offsets += [(shift * width, rise) for rise in (8, -8 - height, 20, -20 - height, 32)
                    for shift in (-0.5, 0, -1)]  # fmt: skip
        boxes = [
            (at_x + dx, at_y + dy, at_x + dx + width, at_y + dy + height) for dx, dy in offsets
        ]
        best = min(range(len(boxes)), key=lambda index: overlaps(boxes[index]))
        taken.append(boxes[best])
        dx, dy = offsets[best]
        axes.annotate(
            shorten(label), (x, y), (dx + width / 2, dy + height / 2),
            textcoords="offset points", ha="center",
            va="center_baseline", fontsize=FONT, color=palette.ink, parse_math=False,
            url=link(style, palette),
            # Where no place is free the front passes behind it.
            bbox={"facecolor": palette.paper, "edgecolor": "none", "pad": 0.7},
        )  # fmt: skip
