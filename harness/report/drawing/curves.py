"""What is drawn: curves over a cost with their band over seeds, and the Pareto front."""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harness.report.records.groups import Group, Reader, reader

# More lines than this can't be told apart, and would make the report heavy.
MOST_DRAWN = 12
MOST_POINTS = 200
TRAINING_BINS = 80
ENDS_APART = 0.9  # of the last step of one seed to that of another, to be drawn as one end


@dataclass(frozen=True)
class Axis:
    """A cost that curves are drawn over: its key in metrics.jsonl, its title, and its scale."""

    name: str
    key: str
    title: str
    log: bool


CURVE_AXES = (
    Axis("steps", "step", "update steps", log=False),
    Axis("tokens", "tokens", "training tokens", log=False),
    Axis("FLOPs", "flops", "training FLOPs", log=True),
    Axis("seconds", "seconds", "training seconds", log=True),
)


@dataclass(frozen=True)
class Cost:
    """A cost that final scores are drawn against."""

    name: str
    title: str
    read: Reader


SCATTER_COSTS = (
    Cost("parameters", "parameters", reader("parameters")),
    Cost("FLOPs", "training FLOPs", reader("train.flops")),
    Cost("seconds", "training seconds", reader("train.seconds")),
    Cost("memory", "peak memory, bytes", reader("train.peak_memory_bytes")),
)


@dataclass(frozen=True)
class Series:
    """One group's curve: the mean over its seeds, and their lowest and highest value."""

    label: str
    style: int
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


def drawable(groups: Sequence[Group]) -> list[tuple[int, Group]]:
    """The groups that are drawn, each with the number of its line style."""
    return list(enumerate(groups))[:MOST_DRAWN]


def validation_series(
    styled: Sequence[tuple[int, Group]], axis: Axis, key: str = "val/bits_per_byte"
) -> list[Series]:
    """Each group's validation curve over a cost; a group without one is left out."""
    series = []
    for style, group in styled:
        points = _over_seeds(group, axis.key, key)
        if points:
            thinned = points[:: math.ceil(len(points) / MOST_POINTS)]
            series.append(as_series(group.label, style, thinned[:-1] + points[-1:]))
    return series


def _over_seeds(group: Group, x_key: str, y_key: str) -> list[tuple[float, ...]]:
    """(x, mean, lowest, highest) at the steps that all seeds have (a mean over fewer would jump),
    and at their ends, which a budget in bytes or seconds puts at somewhat different steps."""
    runs = [
        {row["step"]: row for row in run.metrics.evaluations if x_key in row and y_key in row}
        for run in group.counted
    ]
    common = sorted(set.intersection(*(set(rows) for rows in runs)))
    places = [[step] * len(runs) for step in common]
    ends = [max(rows, default=0) for rows in runs]
    if max(common, default=-1) < min(ends) and ENDS_APART * max(ends) <= min(ends):
        places.append(ends)
    points: list[tuple[float, ...]] = []
    for steps in places:
        rows = [rows[step] for rows, step in zip(runs, steps, strict=True)]
        values = [row[y_key] for row in rows]
        cost = statistics.fmean(row[x_key] for row in rows)
        points.append((cost, statistics.fmean(values), min(values), max(values)))
    return points


def training_series(styled: Sequence[tuple[int, Group]]) -> list[Series]:
    """Each group's training loss in nats per token over steps: means over bins of steps."""
    series = []
    for style, group in styled:
        losses = [run.metrics.losses for run in group.counted]
        steps = functools.reduce(np.intersect1d, [of_run[:, 0] for of_run in losses])
        if not len(steps):
            continue
        of_seeds = np.stack([own[np.searchsorted(own[:, 0], steps), 1] for own in losses])
        points = np.stack([steps, of_seeds.mean(0), of_seeds.min(0), of_seeds.max(0)])
        bins = np.arange(0, len(steps), math.ceil(len(steps) / TRAINING_BINS))
        means = np.add.reduceat(points, bins, axis=1) / np.diff([*bins, len(steps)])
        series.append(as_series(group.label, style, means.T.tolist()))
    return series


def as_series(label: str, style: int, points: Sequence[Sequence[float]]) -> Series:
    """From (x, mean, lowest, highest)."""
    x, y, low, high = zip(*points, strict=True)
    return Series(label, style, x, y, low, high)


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Which (cost, score) no other point beats in one without losing in the other, cheapest first.

    Lower is better in both. Of equal points all are on the front.
    """

    def beaten(cost: float, score: float) -> bool:
        return any(
            other_cost <= cost
            and other_score <= score
            and (other_cost, other_score) != (cost, score)
            for other_cost, other_score in points
        )

    front = [index for index, point in enumerate(points) if not beaten(*point)]
    return sorted(front, key=lambda index: points[index])
