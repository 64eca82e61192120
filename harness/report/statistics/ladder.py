"""What each step of a ladder gains over the one before: recipes that add one part at a time."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass

from harness.report.records.groups import Group, score_reader
from harness.report.statistics.ranking import Comparison


@dataclass(frozen=True)
class Rung:
    """gain: how many bits per byte lower its score is than that of the step before; None for the
    first. gains: the same with each seed that both have."""

    group: Group
    gain: float | None = None
    gains: tuple[float, ...] = ()


def steps(comparison: Comparison) -> list[Rung]:
    """The ranked groups in the order of their names, in which 2 comes before 10."""
    groups = sorted(comparison.ranked, key=lambda group: natural(group.label))
    later = [_step(before, group) for before, group in itertools.pairwise(groups)]
    return [*(Rung(group) for group in groups[:1]), *later]


def _step(before: Group, group: Group) -> Rung:
    own, others = _by_seed(group), _by_seed(before)
    gains = tuple(others[seed] - own[seed] for seed in own if seed in others)
    score, last = group.score, before.score
    assert score is not None  # a ranked group has this number
    assert last is not None
    return Rung(group, last.mean - score.mean, gains)


def _by_seed(group: Group) -> dict[float | None, float]:
    read = score_reader(group.split, lossless=True)
    return {run.seed: score for run in group.counted if (score := read(run)) is not None}


def span(found: Sequence[Rung]) -> tuple[float, float]:
    """The ends of an axis for all gains, zero included."""
    values = [0.0, *(gain for step in found for gain in (step.gain, *step.gains) if gain)]
    return min(values), max(values)


def natural(label: str) -> list[tuple[int, str]]:
    """A sort key by which 2 comes before 10. A name from elsewhere may have more digits than Python
    makes a number of."""
    parts = re.findall(r"\d+|\D+", label)
    digits = [part.lstrip("0") if part.isdecimal() else None for part in parts]
    return [
        (-1, part) if number is None else (len(number), number)
        for part, number in zip(parts, digits, strict=True)
    ]
