"""The floor of a comparison: what counting reaches without training, and who crosses it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.report.records.groups import Group, reader
from harness.report.records.runs import RunRecord

validation_score = reader("val.bits_per_byte")


@dataclass(frozen=True)
class Floor:
    """Of one data set. group: the counted model with the best validation score, or the best test
    score where there is no validation split. level: its validation bits per byte, if known."""

    group: Group
    level: float | None

    def crossings(self, group: Group) -> list[float | None] | None:
        """For each seed of another model the training tokens at its first evaluation below the
        floor; None for a seed that stays above. None if there is nothing to tell it by."""
        level = self.level
        if level is None or not all(run.metrics.evaluations for run in group.counted):
            return None
        return [_first_below(run, level) for run in group.counted]


def find_floor(groups: Sequence[Group]) -> Floor | None:
    """The floor among the groups of one data set; None if no model was counted."""
    levels = []
    for group in groups:
        if group.is_floor:
            val, test = group.spread(validation_score), group.score
            level = val.mean if val else None
            key = (level is None, level if level is not None else test.mean if test else 0.0)
            levels.append((key, Floor(group, level)))
    return min(levels, key=lambda each: each[0])[1] if levels else None


def _first_below(run: RunRecord, level: float) -> float | None:
    below = (
        row["tokens"]
        for row in run.metrics.evaluations
        if "tokens" in row and row.get("val/bits_per_byte", level) < level
    )
    return min(below, default=None)


@dataclass(frozen=True)
class Reference:
    """A compressor, in a table beside the models. score: test bits per byte."""

    label: str
    data: str
    score: float
    window: float


def references(groups: Sequence[Group]) -> list[Reference]:
    """What compressors make of the texts of these groups, the best first."""
    found = {
        (group.data, name): Reference(name, group.data, result.bits_per_byte, result.window)
        for group in groups
        for run in group.counted
        for name, result in run.compressors.items()
    }
    return sorted(found.values(), key=lambda each: (each.data, each.score))
