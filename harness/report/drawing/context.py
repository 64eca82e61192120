"""The loss of each model over the length of its context."""

from __future__ import annotations

from collections.abc import Sequence

from harness.report.drawing import parts
from harness.report.drawing.curves import Series
from harness.report.drawing.own_matplotlib import (
    Figure,
    FixedFormatter,
    FixedLocator,
    NullLocator,
)
from harness.report.drawing.plots import WIDE
from harness.report.drawing.svg import Palette
from harness.report.statistics.where import ContextCurve


def context_figure(
    curves: Sequence[tuple[int, str, ContextCurve]], palette: Palette, size: tuple[float, float]
) -> Figure:
    """curves: each with the number of its line style, and its label. A short stroke marks the
    length of the training sequences where the curve goes beyond it."""
    direct = size == WIDE
    names = {style: parts.shorten(label) for style, label, _ in curves}
    right = parts.label_width(names.values()) if direct else 0.2
    figure, axes = parts.new_axes(palette, size, right=right)
    axes.set_xlabel("tokens of context, at most")
    axes.set_ylabel("bits per byte")
    axes.set_xscale("log", base=2)
    series = []
    for style, label, curve in curves:
        own = parts.line_kwargs(style, palette)
        if curve.low != curve.high:
            axes.fill_between(
                curve.last, curve.low, curve.high, color=own["color"], alpha=0.16, lw=0
            )
        axes.plot(
            curve.last, curve.bits, gid=f"curve-{style}", url=parts.link(style, palette), **own
        )
        if curve.trained in curve.last[:-1]:
            at = curve.bits[curve.last.index(curve.trained)]
            axes.plot([curve.trained], [at], color=own["color"], marker="|", markersize=15)
        series.append(Series(label, style, curve.last, curve.bits, curve.low, curve.high))
    ends = sorted({end for _, _, curve in curves for end in curve.last})
    ticks = [end for end in ends if end & (end - 1) == 0]
    every = 1 + len(ticks) // (12 if direct else 7)
    axes.xaxis.set_major_locator(FixedLocator(ticks[::every]))
    axes.xaxis.set_major_formatter(FixedFormatter([f"{tick:,}" for tick in ticks[::every]]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.margins(x=0.01, y=0.08)
    if direct:
        parts.label_ends(axes, series, names, set(), palette)
    return figure
