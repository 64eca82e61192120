"""The report's figures: validation over costs, quality against cost, losses per token."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from harness.common.rows import strict_json
from harness.report.drawing import plots, svg
from harness.report.drawing.context import context_figure
from harness.report.drawing.curves import (
    CURVE_AXES,
    SCATTER_COSTS,
    Axis,
    Cost,
    Series,
    as_measured,
    drawable,
    training_series,
    validation_series,
)
from harness.report.drawing.own_matplotlib import Figure, own_style
from harness.report.drawing.targets import cost_series, costs_figure
from harness.report.records.groups import Group
from harness.report.statistics.ranking import Comparison
from harness.report.statistics.targets import Target
from harness.report.statistics.where import ContextCurve
from harness.report.text.format import human

Size = tuple[float, float]
Content = dict[str, Any]
"""The values of a section's template."""


def curves(comparison: Comparison) -> Content | None:
    """Validation bits per byte over each cost, one at a time."""
    styled = drawable(comparison.ranked)
    axes = [as_measured(axis, comparison.ranked) for axis in CURVE_AXES]
    panels = [(axis, validation_series(styled, axis)) for axis in axes]
    panels = [(axis, series) for axis, series in panels if series]
    if not panels:
        return None
    title = "validation bits per byte"
    return {
        "panels": [
            {
                "key": axis.key,
                "name": axis.name,
                "drawings": _curves(series, axis, title, f"val-{axis.key}", plots.WIDE),
            }
            for axis, series in panels
        ],
        "legend": _legend(panels[0][1]),
        "free": any(max(line.x) <= 0 for axis, series in panels if axis.log for line in series),
        "floor": any(line.level for _, series in panels for line in series),
    }


def costs(comparison: Comparison) -> Content | None:
    """Bits per byte against each cost, with the Pareto front."""
    shown = [as_measured(cost, comparison.ranked) for cost in SCATTER_COSTS]
    found = [_scatter(comparison.ranked, cost) for cost in shown]
    figures = [figure for figure in found if figure]
    return {"figures": figures} if figures else None


def losses(comparison: Comparison) -> Content | None:
    """Training loss per token, a figure for each tokenizer; for lossy ones validation loss, too."""
    styled = drawable(comparison.groups)
    steps = CURVE_AXES[0]
    found: list[tuple[str, str, list[Series]]] = []
    for tokenizer in dict.fromkeys(group.tokenizer for _, group in styled):
        own = [(style, group) for style, group in styled if group.tokenizer == tokenizer]
        lossy = [(style, group) for style, group in own if group in comparison.lossy]
        validation = validation_series(lossy, steps, "val/nats_per_token")
        found += [("training", tokenizer, training_series(own))]
        found += [("validation", tokenizer, validation)]
    found = [each for each in found if each[2]]
    size = plots.WIDE if len(found) == 1 else plots.SMALL
    pictures = [
        {
            "heading": f"{split.capitalize()} · {tokenizer}",
            "legend": _legend(series),
            "drawings": _curves(
                series, steps, f"{split} loss, nats per token", f"loss-{number}", size
            ),
        }
        for number, (split, tokenizer, series) in enumerate(found)
    ]
    return {"pictures": pictures} if pictures else None


def contexts(
    comparison: Comparison, curves: Sequence[tuple[Group, ContextCurve]]
) -> Content | None:
    """Bits per byte over the length of the context."""
    styled = [(comparison.number(group), group.label, curve) for group, curve in curves]
    if max(len(curve.last) for _, _, curve in styled) < 2:
        return None
    ends = {
        f"curve-{style}": f"{label}: {curve.bits[0]:.3f} to {curve.bits[-1]:.3f}"
        for style, label, curve in styled
    }
    drawings = _drawings(
        lambda size: context_figure(styled, svg.PLACEHOLDERS, size),
        "context",
        f"bits per byte over tokens of context: {'; '.join(ends.values())}",
        ends,
        plots.WIDE,
    )
    return {"drawings": drawings, "legend": [(style, label) for style, label, _ in styled]}


def target_costs(comparison: Comparison, target: Target) -> Content | None:
    """Costs against targets, one currency at a time."""
    styled = drawable(comparison.ranked)
    panels = []
    legend: list[tuple[int, str]] = []
    for axis in (as_measured(axis, comparison.ranked) for axis in CURVE_AXES):
        series = cost_series(styled, axis, target.key)
        if series:
            legend = legend or _legend(series)
            drawings = _target_drawings(series, axis, target)
            panels.append({"key": axis.key, "name": axis.name, "drawings": drawings})
    return {"panels": panels, "legend": legend} if panels else None


def _target_drawings(series: Sequence[Series], axis: Axis, target: Target) -> dict[str, str]:
    ends = {
        f"curve-{line.style}": f"{line.label}: {human(line.y[-1])} to {line.x[-1]:.3f}"
        for line in series
    }
    return _drawings(
        lambda size: costs_figure(series, axis, target, svg.PLACEHOLDERS, size),
        f"target-{axis.key}",
        f"{axis.title} against the target: {'; '.join(ends.values())}",
        ends,
        plots.WIDE,
    )


def _curves(
    series: Sequence[Series], axis: Axis, y_title: str, name: str, wide: Size
) -> dict[str, str]:
    ends = {f"curve-{line.style}": f"{line.label} ends at {line.y[-1]:.3f}" for line in series}
    return _drawings(
        lambda size: plots.curves_figure(series, axis, y_title, svg.PLACEHOLDERS, size),
        name,
        f"{y_title} over {axis.title}: {'; '.join(ends.values())}",
        ends,
        wide,
        lambda figure: _readings(series, figure, axis),
    )


def _scatter(groups: Sequence[Group], cost: Cost) -> Content | None:
    points, front = plots.scatter_points(groups, cost)
    if not points:
        return None
    titles = {
        f"point-{point.style}": (
            f"{point.label}: {point.score:.3f} bits per byte, {human(point.cost)} {cost.title}"
        )
        for point in points
    }
    on_front = ", ".join(point.label for point in front) or "none"
    drawings = _drawings(
        lambda size: plots.scatter_figure(groups, cost, svg.PLACEHOLDERS, size),
        f"{groups[0].split}-{cost.name}",
        f"{groups[0].measure} against {cost.title}: {'; '.join(titles.values())}. "
        f"On the Pareto front: {on_front}",
        titles,
        plots.SMALL,
    )
    return {"drawings": drawings, "front": on_front}


@own_style()
def _drawings(
    draw: Callable[[Size], Figure],
    name: str,
    description: str,
    titles: Mapping[str, str],
    wide: Size,
    readings: Callable[[Figure], Content] | None = None,
) -> dict[str, str]:
    """For wide pages and for phones; with readings, also what a pointer over each reads off."""
    found = {}
    for kind, size in (("wide", wide), ("narrow", plots.NARROW)):
        figure = draw(size)
        if readings is not None:
            found[f"{kind}_readings"] = strict_json(readings(figure))
        found[kind] = svg.inline_svg(figure, f"{name}-{kind}", description, titles)
    return found


def _readings(series: Sequence[Series], figure: Figure, axis: Axis) -> Content:
    """The curves' points as shares of the figure from its left, and in words."""
    axes = figure.axes[0]
    to_figure = axes.transData + figure.transFigure.inverted()
    lines = []
    for line in series:
        log = axes.get_xscale() == "log"
        shown = [(x, y) for x, y in zip(line.x, line.y, strict=True) if x > 0 or not log]
        if line.level or not shown:
            continue
        at = to_figure.transform(shown)[:, 0]
        points = [
            (round(float(place), 4), f"{human(x)}", f"{y:.3f}")
            for place, (x, y) in zip(at, shown, strict=True)
        ]
        lines.append({"style": line.style, "label": line.label, "points": points})
    return {"x": axis.title, "lines": lines}


def _legend(series: Sequence[Series]) -> list[tuple[int, str]]:
    return [(line.style, line.label) for line in series]
