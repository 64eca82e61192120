"""The report's figures: validation over costs, quality against cost, losses per token."""

from __future__ import annotations

from collections.abc import Sequence

from harness.report import plots, svg
from harness.report.curves import (
    CURVE_AXES,
    MOST_DRAWN,
    SCATTER_COSTS,
    Axis,
    Cost,
    Series,
    drawable,
    training_series,
    validation_series,
)
from harness.report.format_numbers import human
from harness.report.markup import caption
from harness.report.page import escape, section
from harness.report.ranking import Comparison, Group


def curves(comparison: Comparison) -> str:
    """Validation bits per byte over each cost, one at a time."""
    styled = drawable(comparison.ranked)
    panels = [(axis, validation_series(styled, axis)) for axis in CURVE_AXES]
    panels = [(axis, series) for axis, series in panels if series]
    if not panels:
        return ""
    inputs, labels, bodies = "", "", ""
    for index, (axis, series) in enumerate(panels):
        checked = " checked" if index == 0 else ""
        inputs += f'<input type="radio" name="axis" id="axis-{axis.key}"{checked}>'
        labels += f'<label for="axis-{axis.key}">{axis.name}</label>'
        title = "validation bits per byte"
        bodies += f'<div class="panel">{_figure(series, axis, title, f"val-{axis.key}")}</div>'
    free = any(max(line.x) <= 0 for axis, series in panels if axis.log for line in series)
    return section(
        "Validation loss over",
        f'<div class="tabs">{inputs}<div class="tablist">{labels}</div>'
        f"{_legend(panels[0][1])}{bodies}</div>",
        caption(
            "Validation bits per byte, the whole split at each evaluation: mean over seeds, the "
            "band from the lowest to the highest seed. Costs are training's alone.",
            "A model whose counted cost is zero is drawn as a level line at its last value." * free,
            _left_out(comparison.ranked),
        ),
    )


def _figure(series: Sequence[Series], axis: Axis, y_title: str, name: str) -> str:
    """The same figure twice, for wide pages and for phones: text can't shrink with the drawing."""
    wide = _drawing(series, axis, y_title, f"{name}-wide", plots.WIDE)
    narrow = _drawing(series, axis, y_title, f"{name}-narrow", plots.NARROW)
    return f'<figure><div class="wide">{wide}</div><div class="narrow">{narrow}</div></figure>'


def _drawing(
    series: Sequence[Series], axis: Axis, y_title: str, name: str, size: tuple[float, float]
) -> str:
    ends = {f"curve-{line.style}": f"{line.label} ends at {line.y[-1]:.3f}" for line in series}
    description = f"{y_title} over {axis.title}: {'; '.join(ends.values())}"
    figure = plots.curves_figure(series, axis, y_title, svg.PLACEHOLDERS, size)
    return svg.inline_svg(figure, name, description, ends)


def _legend(series: Sequence[Series]) -> str:
    entries = "".join(f"<li>{svg.swatch(line.style)}{escape(line.label)}</li>" for line in series)
    return f'<ul class="legend">{entries}</ul>'


def _left_out(groups: Sequence[Group]) -> str:
    more = len(groups) - MOST_DRAWN
    return f"Only the first {MOST_DRAWN} rows are drawn; {more} more are in the table." * (more > 0)


def costs(comparison: Comparison) -> str:
    """Test bits per byte against each cost, with the Pareto front."""
    if not comparison.ranked:
        return ""
    drawn = "".join(_scatter(comparison, cost) for cost in SCATTER_COSTS)
    return section(
        "Quality against cost",
        f'<div class="two">{drawn}</div>',
        caption(
            "Test bits per byte against what it took; lower left is better. Whiskers: from the "
            "lowest to the highest seed. Dashed: the Pareto front of the means; filled markers are "
            "on it, and no other model here is as good for as little. Seeds may change who is on "
            "it. Peak memory is that of the GPU, or else of the whole process, Python and torch "
            "included.",
            _left_out(comparison.ranked),
        ),
    )


def _scatter(comparison: Comparison, cost: Cost) -> str:
    points, front = plots.scatter_points(comparison.ranked, cost)
    if not points:
        return ""
    titles = {
        f"point-{point.style}": (
            f"{point.label}: {point.score:.3f} bits per byte, {human(point.cost)} {cost.title}"
        )
        for point in points
    }
    on_front = ", ".join(point.label for point in front)
    description = (
        f"test bits per byte against {cost.title}: {'; '.join(titles.values())}. "
        f"On the Pareto front: {on_front}"
    )
    drawn = ""
    for kind, size in (("wide", plots.SMALL), ("narrow", plots.NARROW)):
        figure = plots.scatter_figure(comparison.ranked, cost, svg.PLACEHOLDERS, size)
        drawing = svg.inline_svg(figure, f"test-{cost.name}-{kind}", description, titles)
        drawn += f'<div class="{kind}">{drawing}</div>'
    note = f"<figcaption>On the front: {escape(on_front)}</figcaption>"
    return f"<figure>{drawn}{note}</figure>"


def losses_per_token(comparison: Comparison) -> str:
    """Losses per token, so one figure for each tokenizer; lossy ones show validation too."""
    styled = drawable(comparison.groups)
    steps = CURVE_AXES[0]
    pictures = []
    for tokenizer in dict.fromkeys(group.tokenizer for _, group in styled):
        own = [(style, group) for style, group in styled if group.tokenizer == tokenizer]
        lossy = [(style, group) for style, group in own if group in comparison.lossy]
        pictures.append((tokenizer, "training", training_series(own)))
        validation = validation_series(lossy, steps, "val/nats_per_token")
        pictures.append((tokenizer, "validation", validation))
    pictures = [picture for picture in pictures if picture[2]]
    if not pictures:
        return ""
    drawn = ""
    for number, (tokenizer, split, series) in enumerate(pictures):
        y_title, name = f"{split} loss, nats per token", f"loss-{number}"
        if len(pictures) == 1:
            figure = _figure(series, steps, y_title, name)
        else:
            drawing = _drawing(series, steps, y_title, name, plots.SMALL)
            figure = f"<figure>{drawing}</figure>"
        heading = f"{split.capitalize()} · {escape(tokenizer)}"
        drawn += f"<div><h3>{heading}</h3>{_legend(series)}{figure}</div>"
    return section(
        "Losses per token",
        f'<div class="{"two" if len(pictures) > 1 else "one"}">{drawn}</div>',
        caption(
            "Nats per token compare models on one tokenizer only. Training losses are of random "
            "batches, averaged over neighbouring steps."
        ),
    )
