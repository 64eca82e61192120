"""Figures of a comparison, drawn by matplotlib: curves over a cost, and scores against costs.

One code path draws for the report (colours are placeholders that become CSS variables, so that one
SVG serves light and dark) and for files (real colours on white). matplotlib is imported late: it is
slow, and errors and --help must not wait for it.
"""

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.curves import (
    CURVE_AXES,
    SCATTER_COSTS,
    Axis,
    Cost,
    Series,
    as_series,
    drawable,
    pareto_front,
    validation_series,
)
from harness.format_numbers import PREFIXES
from harness.ranking import Comparison, Group, compare_runs, ranking_score
from harness.runs import RunRecord
from harness.svg import DASHES, MARKERS, ON_WHITE, PLACEHOLDERS, Paint, config_link, draw_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FONT = 9.0
WIDE, NARROW, SMALL = (10.0, 4.4), (4.2, 3.9), (5.1, 3.6)


def curves_figure(
    series: Sequence[Series], axis: Axis, y_title: str, paint: Paint, size: tuple[float, float]
) -> "Figure":
    """Mean lines with a lowest-to-highest band over seeds; direct labels where there is room."""
    free = [line for line in series if axis.log and max(line.x) <= 0]
    costly = [line for line in series if line not in free]
    names = {line.style: _short(line.label) + " (no cost)" * (line in free) for line in series}
    direct = size == WIDE
    figure, axes = canvas(paint, size, right=_label_width(names.values()) if direct else 0.15)
    axes.set_xlabel(axis.title)
    axes.set_ylabel(y_title)
    if axis.log and costly:
        axes.set_xscale("log")
        costly = [_positive(line) for line in costly]
    for line in costly:
        look = _look(line.style, paint)
        if line.low != line.high:
            axes.fill_between(line.x, line.low, line.high, color=look["color"], alpha=0.16, lw=0)
        every = max(1, len(line.x) // 8)
        axes.plot(
            line.x, line.y, markevery=every, gid=f"curve-{line.style}",
            url=_link(line.style, paint), **look,
        )  # fmt: skip
    for line in free:
        look = _look(line.style, paint) | {"marker": ""}
        axes.axhline(line.y[-1], gid=f"curve-{line.style}", **look)
    if axis.log and not costly:
        axes.set_xticks([])
    else:
        axes.margins(x=0.01)
    _readable_y(axes, series, costly, paint)
    _number_ticks(axes, axis.log and bool(costly))
    if direct:
        _label_ends(axes, [*costly, *free], names, {line.style for line in free}, paint)
    return figure


def _positive(line: Series) -> Series:
    """Without the untrained start, which has no place on a log axis."""
    kept = [
        point for point in zip(line.x, line.y, line.low, line.high, strict=True) if point[0] > 0
    ]
    return as_series(line.label, line.style, kept)


def _link(style: int, paint: Paint) -> str | None:
    """On a page each drawn thing leads to its configuration; a file stands alone."""
    return config_link(style) if paint is PLACEHOLDERS else None


@dataclass(frozen=True)
class Point:
    """A group in a scatter plot: its mean cost and score, the lowest and highest seed's score."""

    label: str
    style: int
    cost: float
    score: float
    low: float
    high: float


def scatter_points(groups: Sequence[Group], cost: Cost) -> tuple[list[Point], list[Point]]:
    """Every group whose score and cost are known; and those of them on the Pareto front."""
    points = []
    for style, group in drawable(groups):
        scores = [own for run in group.counted if (own := ranking_score(run)) is not None]
        score, spent = group.spread(ranking_score), group.spread(cost.read)
        if score is not None and spent is not None:
            ends = min(scores), max(scores)
            points.append(Point(group.label, style, spent.mean, score.mean, *ends))
    return points, [
        points[index] for index in pareto_front([(point.cost, point.score) for point in points])
    ]


def scatter_figure(
    groups: Sequence[Group], cost: Cost, paint: Paint, size: tuple[float, float]
) -> "Figure":
    """Mean test bits per byte against a cost, and the Pareto front of the means.

    Whiskers go from the lowest to the highest seed. Who is on the front has a filled marker.
    """
    points, front = scatter_points(groups, cost)
    figure, axes = canvas(paint, size, right=0.2)
    axes.set_xlabel(cost.title)
    axes.set_ylabel("test bits per byte")
    positive = [point.cost for point in points if point.cost > 0]
    zero_at = _zero_slot(axes, positive, len(points) > len(positive), paint)
    for point in points:
        whiskers = ([point.score - point.low], [point.high - point.score])
        look = _look(point.style, paint) | {"linestyle": "", "markersize": 7}
        look |= {"markeredgewidth": 1.5, "markeredgecolor": look["color"]}
        if point not in front:
            look["markerfacecolor"] = paint.paper
        drawn = axes.errorbar(
            point.cost or zero_at, point.score, yerr=whiskers, capsize=3, elinewidth=1, **look
        )
        drawn[0].set(gid=f"point-{point.style}", url=_link(point.style, paint))
    axes.margins(y=0.18)
    axes.autoscale_view(scalex=False)
    corners = _draw_front(axes, [(point.cost or zero_at, point.score) for point in front], paint)
    named = [(point.cost or zero_at, point.score, point.label, point.style) for point in points]
    _name_points(axes, named, corners, paint)
    return figure


def _draw_front(
    axes: "Axes", front: Sequence[tuple[float, float]], paint: Paint
) -> list[tuple[float, float]]:
    """The staircase, up to the edges: what these models reach for a cost. Returns its corners."""
    (_, top), (_, edge) = axes.get_ylim(), axes.get_xlim()
    corners = [(front[0][0], top)]
    for x, y in front:
        corners += [(x, corners[-1][1]), (x, y)]
    corners.append((edge, corners[-1][1]))
    axes.plot(
        *zip(*corners, strict=True), gid="front",
        color=paint.muted, lw=1.1, dashes=(3, 2), zorder=1,
    )  # fmt: skip
    axes.set_ylim(top=top)
    return corners


def _zero_slot(axes: "Axes", positive: list[float], any_zero: bool, paint: Paint) -> float:
    """Sets a log axis; a cost of zero gets a place of its own left of it, marked 0."""
    from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

    low, high = (min(positive), max(positive)) if positive else (1.0, 10.0)
    room = max(1.3, (high / low) ** 0.12)
    axes.set_xscale("log")
    zero_at = low / room**3
    left, right = (zero_at if any_zero else low) / room, high * room
    axes.set_xlim(left, right)
    ticks = _log_ticks(low / room**0.5, right, right / left) if positive else []
    if any_zero:
        ticks = [zero_at, *ticks]
        axes.axvline(low / room**1.5, ymax=0.06, color=paint.muted, lw=0.8)
    names = ["0" if any_zero and tick == zero_at else _tick_text(tick) for tick in ticks]
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_major_formatter(FixedFormatter(names))
    axes.xaxis.set_minor_locator(NullLocator())
    return zero_at


def canvas(paint: Paint, size: tuple[float, float], right: float) -> tuple["Figure", "Axes"]:
    """A figure of `size` inches with one pair of axes, and this much room to the right of them."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, facecolor="none" if paint is PLACEHOLDERS else paint.paper)
    width, height = size
    axes = figure.add_axes(
        (0.62 / width, 0.52 / height, 1 - (0.62 + right) / width, 1 - 0.72 / height)
    )
    axes.set_facecolor("none")
    axes.grid(axis="y", color=paint.grid, lw=0.8)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(paint.muted)
        spine.set_linewidth(0.8)
    axes.tick_params(which="both", colors=paint.muted, labelsize=FONT, width=0.8)
    axes.tick_params(axis="y", length=0)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set_color(paint.ink)
        label.set_fontsize(FONT)
    return figure, axes


def _look(style: int, paint: Paint) -> dict[str, Any]:
    dash = DASHES[style % len(DASHES)]
    return {
        "color": paint.series[style % len(paint.series)],
        "linestyle": (0, dash) if dash else "-",
        "marker": MARKERS[style % len(MARKERS)],
        "lw": 1.7,
        "markersize": 4.2,
        "markeredgewidth": 0,
    }


def _readable_y(
    axes: "Axes", series: Sequence[Series], shown: Sequence[Series], paint: Paint
) -> None:
    """Leaves the start of training above the axis: else the untrained loss flattens every curve."""
    settled = [line.high[min(len(line.high) - 1, 1 + len(line.high) // 8) :] for line in series]
    top, bottom = max(map(max, settled)), min(min(line.low) for line in series)
    room = 0.06 * (top - bottom) or 0.05
    axes.set_ylim(bottom - room, top + room)
    highest = max((max(line.high) for line in shown), default=top)
    if highest > top + room:
        axes.set_title(
            f"the start of training, up to {highest:.2f}, lies above the axis",
            loc="left", fontsize=FONT - 1, color=paint.muted, style="italic", pad=5,
        )  # fmt: skip


def _number_ticks(axes: "Axes", log: bool) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    if log:
        axes.xaxis.set_major_locator(FixedLocator(_log_ticks(*axes.get_xlim())))
        axes.xaxis.set_minor_locator(NullLocator())
    elif axes.get_xticks().size:
        axes.locator_params(axis="x", nbins=round(axes.bbox.width / axes.figure.dpi * 1.4))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _tick_text(value)))


def _log_ticks(low: float, high: float, span: float | None = None) -> list[float]:
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
    return ticks[:: max(1, math.ceil(len(ticks) / 7))] or [low]


def _tick_text(value: float) -> str:
    """A round number with an SI prefix: 20 M; small ones as they are: 0.5."""
    if abs(value) < 1000:
        return f"{value:g}"
    power = min(len(PREFIXES) - 1, int(math.log10(abs(value)) + 1e-9) // 3)
    return f"{value / 1000**power:g} {PREFIXES[power]}"


def _label_width(names: Iterable[str]) -> float:
    """Inches for the widest label: the line's piece, the last value, the name."""
    return 0.5 + (max(map(len, names), default=0) + 7) * FONT * 0.58 / 72


def _short(label: str) -> str:
    return label if len(label) <= 34 else label[:33] + "…"


def _label_ends(
    axes: "Axes",
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
        look = _look(line.style, paint)
        thin = {"color": look["color"], "lw": 0.8, "dashes": (1, 2), "clip_on": False}
        axes.plot([x, 1.012], [y, place], transform=axes.transAxes, **thin)
        bold = look | {"clip_on": False, "markevery": [1]}
        axes.plot([1.012, 1.027, 1.042], [place] * 3, transform=axes.transAxes, **bold)
        axes.text(
            1.052, place, f"{line.y[-1]:.3f}  {names[line.style]}", transform=axes.transAxes,
            va="center_baseline", fontsize=FONT, color=paint.ink, parse_math=False,
            url=_link(line.style, paint),
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


def _name_points(
    axes: "Axes",
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
        width, height = len(_short(label)) * FONT * 0.6, FONT * 1.2
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
            _short(label), (x, y), (dx + width / 2, dy + height / 2),
            textcoords="offset points", ha="center",
            va="center_baseline", fontsize=FONT, color=paint.ink, parse_math=False,
            url=_link(style, paint),
        )  # fmt: skip


def write_plots(records: Sequence[RunRecord], folder: Path) -> list[Path]:
    """Writes every figure of the ranked runs as PNG and SVG on white; returns the files.

    Raises OSError if the folder can't be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    comparison = compare_runs(records)
    written = []
    for name, figure in _file_figures(comparison):
        svg = folder / f"{name}.svg"
        svg.write_text(draw_svg(figure), encoding="utf-8")
        png = folder / f"{name}.png"
        figure.savefig(png, dpi=160, metadata={"Software": None})
        written += [svg, png]
    return written


def _file_figures(comparison: Comparison) -> list[tuple[str, "Figure"]]:
    groups = comparison.ranked
    figures = []
    for axis in CURVE_AXES:
        series = validation_series(drawable(groups), axis)
        if series:
            title = "validation bits per byte"
            figure = curves_figure(series, axis, title, ON_WHITE, WIDE)
            figures.append((f"validation-over-{axis.name.lower()}", figure))
    for cost in SCATTER_COSTS if groups else ():
        figure = scatter_figure(groups, cost, ON_WHITE, SMALL)
        figures.append((f"test-against-{cost.name.lower()}", figure))
    return figures
