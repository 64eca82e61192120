"""Tasks that each need one skill: the accuracy of every architecture on each of them.

Two things vary by chance, and an interval covers both where there are several seeds. Which examples
were drawn: the exact interval of a share (Clopper & Pearson 1934, Biometrika 26) for as many
independent answers as the standard error over whole examples is worth (Korn & Graubard 1998, Survey
Methodology 24). It holds at 0 and 1, too, where no answer differs and that error is 0. How training
went: Student's t over the seeds. All seeds have the same examples, so more of them make the first
part no smaller. Both distances from the mean add up as squares (Newcombe 1998, Statistics in
Medicine 17, method 10).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from harness.report.records.groups import Group
from harness.report.statistics.ladder import natural
from harness.report.statistics.paired import LEVEL, student
from harness.report.statistics.ranking import Comparison
from harness.runs.summary import Scored


@dataclass(frozen=True)
class Accuracy:
    """interval: its ends; of one seed over its examples alone. None where nothing is known of the
    examples. above: how far it is from chance, 0, to all, 1."""

    mean: float
    interval: tuple[float, float] | None
    seeds: int
    above: float


@dataclass(frozen=True)
class SkillTask:
    """length: None for that of training. chance: the accuracy of the best constant answer."""

    data: str
    length: str | None
    chance: float


# What decoding keeps, and the accuracies.
Model = tuple[float | None, Mapping[SkillTask, Accuracy]]


@dataclass(frozen=True)
class Grid:
    """models: by name and variant, what decoding keeps of one example of training, in bytes, and
    the accuracy on each task that it has."""

    tasks: Sequence[SkillTask]
    models: Mapping[str, Model]


def grid(comparison: Comparison) -> Grid | None:
    """None if no run is of a task."""
    tasks: list[SkillTask] = []
    models: dict[str, tuple[float | None, dict[SkillTask, Accuracy]]] = {}
    names = _task_names(comparison.groups)
    for group in comparison.groups:
        found = _accuracies(group, names[group.data])
        if not found:
            continue
        name = f"{group.model} ({group.variant})" if group.variant else group.model
        _, cells = models.setdefault(name, (group.counted[0].cache_bytes, {}))
        cells |= found
        tasks += [task for task in found if task not in tasks]
    tasks.sort(key=lambda task: (natural(task.data), natural(task.length or "")))
    return Grid(tasks, models) if models else None


def _task_names(groups: Sequence[Group]) -> dict[str, str]:
    """What a task is called, by its data: of several settings of one task also these."""
    found = {}
    by_task: dict[str, dict[str, Mapping[str, str]]] = {}
    for group in groups:
        by_task.setdefault(group.data.partition("·")[0], {})[group.data] = group.config
    for task, configs in by_task.items():
        keys = sorted({key for config in configs.values() for key in config if key[:5] == "data."})
        differing = [key for key in keys if len({own.get(key) for own in configs.values()}) > 1]
        for data, config in configs.items():
            settings = (f"{key[5:]}={config.get(key, '–')}" for key in differing)
            found[data] = ", ".join([task, *settings])
    return found


def _accuracies(group: Group, name: str) -> dict[SkillTask, Accuracy]:
    """On the split that it is compared on, and on further lengths that each of its runs has."""
    runs = group.counted
    chance = runs[0].chance if runs else None
    if chance is None:
        return {}
    scores: dict[str | None, list[Scored | None]] = {None: [getattr(r, group.split) for r in runs]}
    for text in runs[0].also:
        scores[text.removeprefix("length_")] = [run.also.get(text) for run in runs]
    found = {}
    for length, each in scores.items():
        known = [score for score in each if score is not None and score.accuracy is not None]
        if len(known) == len(runs):
            found[SkillTask(name, length, chance)] = _over_seeds(known, chance)
    return found


def _over_seeds(scores: Sequence[Scored], chance: float) -> Accuracy:
    shares = [score.accuracy for score in scores if score.accuracy is not None]
    mean = statistics.fmean(shares)
    above = min(1.0, max(0.0, (mean - chance) / (1 - chance))) if chance < 1 else 1.0
    number = _independent_answers(scores, mean)
    if number is None:
        return Accuracy(mean, None, len(shares), above)
    low, high = exact_interval(min(1.0, max(0.0, mean)), number)
    if len(shares) > 1:
        half = student(len(shares) - 1) * statistics.stdev(shares) / math.sqrt(len(shares))
        low = max(0.0, mean - math.hypot(mean - low, half))
        high = min(1.0, mean + math.hypot(high - mean, half))
    return Accuracy(mean, (low, high), len(shares), above)


def _independent_answers(scores: Sequence[Scored], share: float) -> float | None:
    """To how many independent answers those of one seed's examples are equal, by their standard
    error; where that is 0 the examples are counted. None if neither is known."""
    errors = [score.accuracy_error for score in scores if score.accuracy_error]
    number = scores[0].documents or scores[0].tokens
    if errors and 0 < share < 1:
        squared = statistics.fmean(errors) * statistics.fmean(errors)
        number = share * (1 - share) / squared if squared else number
        if answers := scores[0].tokens:
            number = min(number or answers, answers)
    return number if number and number > 0 else None


def exact_interval(share: float, number: float) -> tuple[float, float]:
    """The interval of LEVEL of a share of so many independent answers."""
    hits, side = share * number, (1 - LEVEL) / 2
    low = _beta_quantile(side, hits, number - hits + 1) if share > 0 else 0.0
    high = _beta_quantile(1 - side, hits + 1, number - hits) if share < 1 else 1.0
    return low, high


def _beta_quantile(level: float, a: float, b: float) -> float:
    """sin² θ has the beta distribution if θ has the density sin^(2a-1) θ · cos^(2b-1) θ."""
    angles = np.linspace(0, math.pi / 2, 20_001)[1:-1]
    logs = (2 * a - 1) * np.log(np.sin(angles)) + (2 * b - 1) * np.log(np.cos(angles))
    below = np.cumsum(np.exp(logs - logs.max()))
    ends = angles + angles[0] / 2  # of the cells whose mass is added up
    return float(np.sin(np.interp(level, below / below[-1], ends)) ** 2)
