"""How the cost of a step grows, measured beside counted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from harness.common.files import atomic_write
from harness.report.drawing.own_matplotlib import (
    Axes,
    Figure,
    FixedFormatter,
    FixedLocator,
    NullLocator,
    own_style,
)
from harness.report.drawing.parts import FONT, line_kwargs, log_ticks, style_axes
from harness.report.drawing.svg import ON_WHITE

SIZE = (9.0, 6.4)
TITLES = {"context": "context, tokens", "width": "width, × the model's own"}


class MeasuredStep(Protocol):
    """A point of the picture (harness.diagnostics.scaling.ScalingPoint)."""

    @property
    def model(self) -> str: ...
    @property
    def axis(self) -> str: ...
    @property
    def value(self) -> int: ...
    @property
    def flops(self) -> float: ...
    @property
    def seconds(self) -> float: ...
    @property
    def memory(self) -> int: ...


@own_style()
def write_scaling(out: Path, points: Sequence[MeasuredStep]) -> None:
    """Draw time and memory over context and width into a PNG; a thin line is what the FLOPs alone
    would give, from a model's first point on. Raises RunFailure if it can't be written."""
    models = list(dict.fromkeys(point.model for point in points))
    figure = Figure(figsize=SIZE, facecolor=ON_WHITE.paper)
    grid = figure.subplots(2, 2, sharex="col", sharey="row")
    for row, is_time in zip(grid, (True, False), strict=True):
        title = "ms a step" if is_time else "memory of a step, MB"
        row[0].set_ylabel(title, color=ON_WHITE.ink, fontsize=FONT)
        for axis, axes in zip(TITLES, row, strict=True):
            style_axes(axes, ON_WHITE, FONT)
            axes.set_xscale("log")
            axes.set_yscale("log")
            for style, model in enumerate(models):
                own = [each for each in points if each.model == model and each.axis == axis]
                if own:
                    _draw(axes, own, style, is_time=is_time, label=model)
    for axes, axis in zip(grid[1], TITLES, strict=True):
        axes.set_xlabel(TITLES[axis], color=ON_WHITE.ink, fontsize=FONT)
        values = sorted({point.value for point in points if point.axis == axis})
        axes.xaxis.set_major_locator(FixedLocator(values))
        axes.xaxis.set_major_formatter(FixedFormatter([f"{value:,}" for value in values]))
        axes.xaxis.set_minor_locator(NullLocator())
    for row in grid:
        ticks = log_ticks(*row[0].get_ylim())
        row[0].yaxis.set_major_locator(FixedLocator(ticks))
        row[0].yaxis.set_major_formatter(FixedFormatter([f"{tick:,g}" for tick in ticks]))
        row[0].yaxis.set_minor_locator(NullLocator())
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="upper center", ncols=min(len(labels), 5), frameon=False,
        fontsize=FONT, labelcolor=ON_WHITE.ink,
    )  # fmt: skip
    figure.text(
        0.5, 0.005, "thin: what the counted FLOPs alone would give, from a model's first point on",
        ha="center", color=ON_WHITE.muted, fontsize=FONT,
    )  # fmt: skip
    rows = -(-len(labels) // 5)
    figure.subplots_adjust(
        left=0.09, right=0.98, bottom=0.11, top=0.98 - 0.04 * rows, hspace=0.12, wspace=0.06
    )
    with atomic_write(out) as file:
        figure.savefig(file, format="png", dpi=160)


def _draw(
    axes: Axes, own: Sequence[MeasuredStep], style: int, *, is_time: bool, label: str
) -> None:
    x = [point.value for point in own]
    y = [1e3 * point.seconds if is_time else point.memory / 1e6 for point in own]
    line = line_kwargs(style, ON_WHITE)
    axes.plot(x, y, label=label, **line)
    if is_time:
        counted = [y[0] * point.flops / own[0].flops for point in own]
        axes.plot(x, counted, color=line["color"], lw=0.7, ls=(0, (1, 2)))
