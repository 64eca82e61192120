"""What each score costs each model."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import geometric_mean

import numpy as np

from harness.report.drawing import parts
from harness.report.drawing.curves import Axis, Series, as_series
from harness.report.drawing.own_matplotlib import (
    Figure,
    FixedLocator,
    FuncFormatter,
    NullLocator,
)
from harness.report.drawing.svg import Palette
from harness.report.records.groups import Group
from harness.report.statistics.targets import UNITS, Target, costs_of

POINTS = 60


def cost_series(styled: Sequence[tuple[int, Group]], axis: Axis, key: str) -> list[Series]:
    """Each trained group's cost of the scores that all its seeds reach, down to the worst of their
    best: x is the score, y the geometric mean over seeds. Nothing is drawn at a cost of 0."""
    series = []
    for style, group in styled:
        runs = [
            [row[key] for row in run.metrics.evaluations if key in row] for run in group.counted
        ]
        if group.is_floor or not all(runs):
            continue
        lowest, highest = max(map(min, runs)), min(own[0] for own in runs)
        points = []
        for level in np.linspace(highest, lowest, POINTS).tolist():
            (own,) = costs_of([group], Target(level, key)) or (None,)
            values = own.values(axis.key) if own and own.all_reached else [0.0]
            if min(values) > 0:
                points.append((level, geometric_mean(values), min(values), max(values)))
        if len(points) > 1:
            series.append(as_series(group.label, style, points))
    return series


def costs_figure(
    series: Sequence[Series],
    axis: Axis,
    target: Target,
    palette: Palette,
    size: tuple[float, float],
) -> Figure:
    """Cost against target, better scores to the right; a line at the target that was asked for."""
    figure, axes = parts.new_axes(palette, size, right=0.2)
    axes.set_xlabel(f"target: validation {UNITS[target.key]}")
    axes.set_ylabel(axis.title)
    axes.set_yscale("log")
    for line in series:
        own = parts.line_kwargs(line.style, palette)
        if line.low != line.high:
            axes.fill_between(line.x, line.low, line.high, color=own["color"], alpha=0.16, lw=0)
        axes.plot(
            line.x, line.y, markevery=max(1, len(line.x) // 8), gid=f"curve-{line.style}",
            url=parts.link(line.style, palette), **own,
        )  # fmt: skip
    axes.axvline(target.level, color=palette.muted, lw=1.1, dashes=(3, 2), gid="target")
    axes.margins(x=0.02)
    axes.invert_xaxis()
    axes.yaxis.set_major_locator(FixedLocator(parts.log_ticks(*axes.get_ylim())))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: parts.tick_text(value)))
    return figure
