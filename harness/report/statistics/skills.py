"""Tasks that each need one skill: the accuracy of every architecture on each of them."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt

from harness.report.records.groups import Group
from harness.report.statistics.ladder import natural
from harness.report.statistics.paired import student
from harness.report.statistics.ranking import Comparison
from harness.runs.summary import Scored

NORMAL = 1.96  # half of the 95 % interval of a normal distribution, in standard errors


@dataclass(frozen=True)
class Accuracy:
    """half: of the interval of LEVEL; over the seeds, of one seed over its examples. None where
    neither is known. above: how far it is from chance, 0, to all, 1."""

    mean: float
    half: float | None
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
    mean, half = statistics.fmean(shares), None
    if len(shares) > 1:
        spread = statistics.stdev(shares) / sqrt(len(shares))
        half = student(len(shares) - 1) * spread
    elif (error := scores[0].accuracy_error) is not None:
        half = NORMAL * error
    above = min(1.0, max(0.0, (mean - chance) / (1 - chance))) if chance < 1 else 1.0
    return Accuracy(mean, half, len(shares), above)
