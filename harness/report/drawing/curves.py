"""The data of figures: curves over a cost with a band over seeds, and the Pareto front."""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from harness.report.records.groups import Group, Reader, reader

# Of the curves in a figure and of the points in a curve: for legibility and the report's size.
MAX_DRAWN = 16
MAX_POINTS = 200
TRAINING_BINS = 80
MIN_END_RATIO = 0.9  # the least ratio of two seeds' last steps for them to be averaged


@dataclass(frozen=True)
class Axis:
    """An x axis of curves: a cost's name, its key in metrics.jsonl, its title, and its scale."""

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
    """An x axis of final scores."""

    name: str
    title: str
    read: Reader


SCATTER_COSTS = (
    Cost("parameters", "parameters", reader("parameters")),
    Cost("FLOPs", "training FLOPs", reader("train.flops")),
    Cost("seconds", "training seconds", reader("train.seconds")),
    Cost("memory", "peak memory, bytes", reader("train.peak_memory_bytes")),
)


C = TypeVar("C", Axis, Cost)


def as_measured(cost: C, groups: Sequence[Group]) -> C:
    """With a title that says whether other jobs shared the machine."""
    if cost.name != "seconds" or not any(group.beside for group in groups):
        return cost
    return replace(cost, title=f"{cost.title} (some beside other jobs)")


@dataclass(frozen=True)
class Series:
    """A group's curve: x, mean over seeds, lowest and highest seed. level: drawn as a level line at
    its last value, as a floor is."""

    label: str
    style: int
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    level: bool = False


def drawable(groups: Sequence[Group]) -> list[tuple[int, Group]]:
    """The groups that fit in a figure, each with the number of its line style."""
    return list(enumerate(groups))[:MAX_DRAWN]


def validation_series(
    styled: Sequence[tuple[int, Group]], axis: Axis, key: str = "val/bits_per_byte"
) -> list[Series]:
    """Each group's validation curve over a cost; a group without one is left out."""
    series = []
    for style, group in styled:
        points = _over_seeds(group, axis.key, key)
        if points:
            thinned = points[:: math.ceil(len(points) / MAX_POINTS)]
            kept = thinned[:-1] + points[-1:]
            series.append(as_series(group.label, style, kept, group.is_floor))
    return series


def _over_seeds(group: Group, x_key: str, y_key: str) -> list[tuple[float, ...]]:
    """(x, mean, lowest, highest) at the steps that all seeds have: a mean over fewer would jump.
    And at their last steps, which differ a little under a budget in bytes or seconds."""
    runs = [
        {row["step"]: row for row in run.metrics.evaluations if x_key in row and y_key in row}
        for run in group.counted
    ]
    if not all(runs):  # a row-less run has no curve, and no part in a mean
        return []
    common = sorted(set.intersection(*(set(rows) for rows in runs)))
    places = [[step] * len(runs) for step in common]
    ends = [max(rows, default=0) for rows in runs]
    if max(common, default=-1) < min(ends) and MIN_END_RATIO * max(ends) <= min(ends):
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


def as_series(
    label: str, style: int, points: Sequence[Sequence[float]], level: bool = False
) -> Series:
    """From (x, mean, lowest, highest)."""
    x, y, low, high = zip(*points, strict=True)
    return Series(label, style, x, y, low, high, level)


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """The indices of the (cost, score) that no other point dominates, cheapest first. Lower is
    better in both. Equal points do not dominate each other."""

    def dominated(cost: float, score: float) -> bool:
        return any(
            other_cost <= cost
            and other_score <= score
            and (other_cost, other_score) != (cost, score)
            for other_cost, other_score in points
        )

    front = [index for index, point in enumerate(points) if not dominated(*point)]
    return sorted(front, key=lambda index: points[index])
