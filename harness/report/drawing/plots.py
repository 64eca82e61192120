"""Figures of a comparison: curves over a cost, and scores against costs.

The same code draws for pages (colours are placeholders that become CSS variables) and for files
(real colours on white).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.common.files import atomic_write, write_atomically
from harness.report.drawing import parts
from harness.report.drawing.curves import (
    CURVE_AXES,
    SCATTER_COSTS,
    Axis,
    Cost,
    Series,
    as_measured,
    as_series,
    drawable,
    pareto_front,
    validation_series,
)
from harness.report.drawing.own_matplotlib import Axes, Figure, own_style
from harness.report.drawing.svg import ON_WHITE, Palette, draw_svg
from harness.report.records.groups import Group
from harness.report.records.selection import WORDS
from harness.report.statistics.ranking import Comparison

FEW = 5  # evaluations
WIDE, NARROW, SMALL = (10.0, 4.4), (4.2, 3.9), (5.1, 3.6)


def curves_figure(
    series: Sequence[Series], axis: Axis, y_title: str, palette: Palette, size: tuple[float, float]
) -> Figure:
    """Mean lines with a band over seeds, lowest to highest. In a WIDE figure they have labels."""
    free = [line for line in series if line.level or (axis.log and max(line.x) <= 0)]
    costly = [line for line in series if line not in free]
    why = {line.style: " (floor)" if line.level else " (no cost)" for line in free}
    names = {line.style: parts.shorten(line.label) + why.get(line.style, "") for line in series}
    direct = size == WIDE
    figure, axes = parts.new_axes(
        palette, size, right=parts.label_width(names.values()) if direct else 0.15
    )
    axes.set_xlabel(axis.title)
    axes.set_ylabel(y_title)
    if axis.log and costly:
        axes.set_xscale("log")
        costly = [_positive(line) for line in costly]
    for line in costly:
        own = parts.line_kwargs(line.style, palette)
        if line.low != line.high:
            axes.fill_between(line.x, line.low, line.high, color=own["color"], alpha=0.16, lw=0)
        every = max(1, len(line.x) // 8)
        axes.plot(
            line.x, line.y, markevery=every, gid=f"curve-{line.style}",
            url=parts.link(line.style, palette), **own,
        )  # fmt: skip
    for line in free:
        own = parts.line_kwargs(line.style, palette) | {"marker": ""}
        axes.axhline(line.y[-1], gid=f"curve-{line.style}", **own)
    if axis.log and not costly:
        axes.set_xticks([])
    else:
        axes.margins(x=0.01)
    _set_y_limits(axes, series, costly, palette)
    parts.set_ticks(axes, axis.log and bool(costly))
    if direct:
        parts.label_ends(axes, [*costly, *free], names, {line.style for line in free}, palette)
    return figure


def _positive(line: Series) -> Series:
    """The curve without its point at cost 0, which a log axis can't show."""
    kept = [
        point for point in zip(line.x, line.y, line.low, line.high, strict=True) if point[0] > 0
    ]
    return as_series(line.label, line.style, kept)


@dataclass(frozen=True)
class Point:
    """A group in a scatter plot: mean cost and score, lowest and highest score of a seed."""

    label: str
    style: int
    cost: float
    score: float
    low: float
    high: float


def scatter_points(groups: Sequence[Group], cost: Cost) -> tuple[list[Point], list[Point]]:
    """All groups whose score and cost are known; and those of them on the Pareto front. A cost of
    zero is one that nobody counted, such as the FLOPs of look-ups: it neither is on the front nor
    keeps others off it."""
    points = []
    for style, group in drawable(groups):
        scores, score, spent = group.scores, group.score, group.spread(cost.read)
        if score is not None and spent is not None:
            ends = min(scores), max(scores)
            points.append(Point(group.label, style, spent.mean, score.mean, *ends))
    known = [point for point in points if point.cost > 0]
    return points, [
        known[index] for index in pareto_front([(point.cost, point.score) for point in known])
    ]


def scatter_figure(
    groups: Sequence[Group], cost: Cost, palette: Palette, size: tuple[float, float]
) -> Figure:
    """Mean bits per byte against a cost, and the Pareto front of the means.

    Whiskers go from the lowest to the highest seed. Markers on the front are filled.
    """
    points, front = scatter_points(groups, cost)
    figure, axes = parts.new_axes(palette, size, right=0.2)
    axes.set_xlabel(cost.title)
    axes.set_ylabel(groups[0].measure)
    positive = [point.cost for point in points if point.cost > 0]
    zero_at = parts.log_axis(axes, positive, len(points) > len(positive), palette)
    for point in points:
        whiskers = ([point.score - point.low], [point.high - point.score])
        own = parts.line_kwargs(point.style, palette) | {"linestyle": "", "markersize": 7}
        own |= {"markeredgewidth": 1.5, "markeredgecolor": own["color"]}
        if point not in front:
            own["markerfacecolor"] = palette.paper
        drawn = axes.errorbar(
            point.cost or zero_at, point.score, yerr=whiskers, capsize=3, elinewidth=1, **own
        )
        drawn[0].set(gid=f"point-{point.style}", url=parts.link(point.style, palette))
    axes.margins(y=0.18)
    axes.autoscale_view(scalex=False)
    corners = _draw_front(axes, [(point.cost or zero_at, point.score) for point in front], palette)
    named = [(point.cost or zero_at, point.score, point.label, point.style) for point in points]
    parts.name_points(axes, named, corners, palette)
    return figure


def _draw_front(
    axes: Axes, front: Sequence[tuple[float, float]], palette: Palette
) -> list[tuple[float, float]]:
    """Draw the front as a staircase that ends at the edges of the axes. Returns its corners."""
    if not front:
        return []
    (_, top), (_, edge) = axes.get_ylim(), axes.get_xlim()
    corners = [(front[0][0], top)]
    for x, y in front:
        corners += [(x, corners[-1][1]), (x, y)]
    corners.append((edge, corners[-1][1]))
    axes.plot(
        *zip(*corners, strict=True), gid="front",
        color=palette.muted, lw=1.1, dashes=(3, 2), zorder=1,
    )  # fmt: skip
    axes.set_ylim(top=top)
    return corners


def _set_y_limits(
    axes: Axes, series: Sequence[Series], shown: Sequence[Series], palette: Palette
) -> None:
    """Cut off the start of training at the top: the untrained loss would flatten every curve. Few
    evaluations are shown whole."""
    few = max(len(line.x) for line in series) <= FEW
    settled = [
        line.high[-1:] if line.level else line.high if few
        else line.high[min(len(line.high) - 1, 1 + len(line.high) // 8) :]
        for line in series
    ]  # fmt: skip
    top, bottom = max(map(max, settled)), min(min(line.low) for line in series)
    room = 0.06 * (top - bottom) or 0.05
    axes.set_ylim(bottom - room, top + room)
    highest = max((max(line.high) for line in shown), default=top)
    if highest > top + room:
        axes.set_title(
            f"the start of training, up to {highest:.2f}, lies above the axis",
            loc="left", fontsize=parts.FONT - 1, color=palette.muted, style="italic", pad=5,
        )  # fmt: skip


@own_style()
def write_plots(comparison: Comparison, folder: Path) -> list[Path]:
    """Write every figure of the ranked runs as PNG and SVG on white; returns the files.

    Raises RunFailure if the folder can't be written.
    """
    written = []
    for name, figure in _file_figures(comparison):
        svg = folder / f"{name}.svg"
        write_atomically(svg, draw_svg(figure).encode())
        png = folder / f"{name}.png"
        with atomic_write(png) as file:
            figure.savefig(file, format="png", dpi=160, metadata={"Software": None})
        written += [svg, png]
    return written


def _file_figures(comparison: Comparison) -> list[tuple[str, Figure]]:
    groups = comparison.ranked
    figures = []
    for axis in (as_measured(axis, groups) for axis in CURVE_AXES):
        series = validation_series(drawable(groups), axis)
        if series:
            title = "validation bits per byte"
            figure = curves_figure(series, axis, title, ON_WHITE, WIDE)
            figures.append((f"validation-over-{axis.name.lower()}", figure))
    for cost in SCATTER_COSTS if groups else ():
        figure = scatter_figure(groups, as_measured(cost, groups), ON_WHITE, SMALL)
        figures.append((f"{WORDS[comparison.split]}-against-{cost.name.lower()}", figure))
    return figures
