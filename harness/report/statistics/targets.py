"""What it costs to reach a validation score: steps, tokens, bytes, FLOPs and seconds.

Validation is scored every `eval.every` steps. A seed's cost is interpolated linearly between the
first evaluation that is as good as the target and the one before it. No curve is a line there, so
two models that get there between evaluations that overlap are not told apart, and no interval is
narrower than what the evaluations leave open. A seed that never gets there is censored: its cost is
more than what it spent, and is tested as if it were that. Means and intervals are of the logarithms
of the costs, as costs differ by ratios: Student's t over the seeds of a model, Welch's for two
models. The first to get there is found in the same seeds that it is compared by. So Holm's
correction is over all pairs of the models, of which those with the first one are made.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from harness.common.errors import UsageError
from harness.common.values import did_you_mean
from harness.report.records.groups import Group
from harness.report.statistics.floor import find_floor, validation_score
from harness.report.statistics.paired import LEVEL, holm, interval_of, student, training_error
from harness.report.statistics.ranking import Comparison
from harness.runs.metrics import COSTS

BITS, NATS = "val/bits_per_byte", "val/nats_per_token"
UNITS = {BITS: "bits per byte", NATS: "nats per token"}


@dataclass(frozen=True)
class Target:
    """A validation score. key: of metrics.jsonl. source: whose score it is; None for a number."""

    level: float
    key: str = BITS
    source: str | None = None

    def __str__(self) -> str:
        whose = f", the score of {self.source}" if self.source else ""
        return f"{self.level:.3f} validation {UNITS[self.key]}{whose}"


def read_target(text: str, comparison: Comparison) -> Target:
    """`2.1` in bits per byte, `1.4nats` per token, `floor`, or a model's label: its validation
    score, the mean over seeds.

    Raises UsageError for none of these, and for runs that a target can't be common to.
    """
    groups = comparison.ranked
    if not groups:
        raise UsageError("--target: no run here is ranked; harness.compare without it says why")
    data = sorted({group.data for group in groups})
    if len(data) > 1:
        raise UsageError(f"--target is a score on one text, and these runs have {', '.join(data)}")
    if found := re.fullmatch(r"(\d+\.?\d*|\.\d+)(nats)?", text):
        level, key = float(found[1]), NATS if found[2] else BITS
        tokenizers = sorted({group.tokenizer for group in groups})
        if found[2] and len(tokenizers) > 1:
            raise UsageError(
                f"--target {text}: nats per token of several tokenizers ({', '.join(tokenizers)}) "
                "do not compare; give bits per byte"
            )
        return Target(level, key)
    if text == "floor":
        floor = find_floor(groups)
        if floor is None or floor.level is None:
            raise UsageError("--target floor: none of these runs was counted (model=ngram)")
        return Target(floor.level, source=floor.group.label)
    named = {group.label: group for group in reversed(groups)}
    by_model = {group.model: group for group in groups}
    alone = [group.model for group in groups].count(text) == 1
    group = named.get(text) or (by_model[text] if alone else None)
    if group is None:
        known = ["floor", *reversed(named)]
        raise UsageError(
            f"--target {text}: give a number of bits per byte, one of nats as 1.4nats, or one of: "
            f"{', '.join(known)}{did_you_mean(text, known)}"
        )
    score = group.spread(validation_score)
    if score is None:
        raise UsageError(f"--target {text}: {group.label} has no validation score")
    return Target(score.mean, source=group.label)


@dataclass(frozen=True)
class SeedCost:
    """costs: by the names of COSTS. censored: the target was not reached within them. first: it was
    reached at the first evaluation, so they are the most that it took. between: the costs at the
    evaluations around it, which is all that was seen; None: at one of them."""

    costs: Mapping[str, float]
    censored: bool = False
    first: bool = False
    between: tuple[Mapping[str, float], Mapping[str, float]] | None = field(
        default=None, compare=False
    )

    def seen(self, currency: str) -> tuple[float, float]:
        """The least and the most that it took, by the evaluations around it."""
        before, after = self.between or (self.costs, self.costs)
        return before[currency], after[currency]


def crossing(
    evaluations: Sequence[Mapping[str, float]], target: Target, interpolated: bool = True
) -> SeedCost | None:
    """What a run took to reach the target; None for one without evaluations.

    interpolated: False for a model that is counted in one pass: nothing lies between."""
    rows = [row for row in evaluations if target.key in row and all(name in row for name in COSTS)]
    if not rows:
        return None
    at = next((n for n, row in enumerate(rows) if row[target.key] <= target.level), None)
    if at is None:
        last = _costs(rows[-1])
        return SeedCost(last, censored=True, between=(last, dict.fromkeys(COSTS, math.inf)))
    if at == 0 or not interpolated:
        found = _costs(rows[at])
        if at == 0 and found["step"] > 0:
            return SeedCost(found, first=True, between=(dict.fromkeys(COSTS, 0.0), found))
        return SeedCost(found)
    before, after = _costs(rows[at - 1]), _costs(rows[at])
    scores = rows[at - 1][target.key], rows[at][target.key]
    part = (scores[0] - target.level) / (scores[0] - scores[1])
    costs = {name: before[name] + part * (after[name] - before[name]) for name in COSTS}
    return SeedCost(costs, between=(before, after))


def _costs(row: Mapping[str, float]) -> dict[str, float]:
    return {name: row[name] for name in COSTS}


@dataclass(frozen=True)
class MeanCost:
    """Over seeds, by the mean of logarithms. low, high: its interval, no narrower than what was
    seen; None for one seed, or where a seed did not get there: `mean` is then the least that it can
    be."""

    mean: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class GroupCost:
    """A group's costs of a target. seeds: of each run with evaluations."""

    group: Group
    seeds: tuple[SeedCost, ...]

    @property
    def reached(self) -> int:
        return sum(not seed.censored for seed in self.seeds)

    @property
    def all_reached(self) -> bool:
        return self.reached == len(self.seeds) > 0

    @property
    def between(self) -> tuple[float, float]:
        """The steps of the evaluations around the target, of all seeds."""
        starts, ends = zip(*(seed.seen("step") for seed in self.seeds), strict=True)
        return min(starts), max(ends)

    def seen(self, currency: str) -> tuple[float, float]:
        """The least and the most that the mean of the logarithms can be, by what was seen: if each
        seed got there at the evaluation before, or at that after. The first step was taken by
        all."""
        starts, ends = zip(*(seed.seen(currency) for seed in self.seeds), strict=True)
        first = [seed.costs[currency] / max(seed.costs["step"], 1) for seed in self.seeds]
        if currency == "step":
            first = [1.0] * len(first)
        least, most = (float(np.log(np.maximum(each, first)).mean()) for each in (starts, ends))
        return least, most

    def values(self, currency: str) -> list[float]:
        return [seed.costs[currency] for seed in self.seeds]

    def mean(self, currency: str) -> MeanCost | None:
        """None without evaluations."""
        values = self.values(currency)
        if not values:
            return None
        if min(values) <= 0:  # look-ups have no FLOPs
            return MeanCost(float(np.mean(values)), None, None)
        logs = np.log(values)
        mean = float(logs.mean())
        if len(values) < 2 or not self.all_reached:
            return MeanCost(math.exp(mean), None, None)
        half = float(logs.std(ddof=1)) / math.sqrt(len(logs)) * student(len(logs) - 1)
        least, most = self.seen(currency)
        low, high = min(mean - half, least), max(mean + half, most)
        return MeanCost(math.exp(mean), math.exp(low), math.exp(high))


@dataclass(frozen=True)
class Ratio:
    """How many times the steps of the first group another one takes. low, high: its interval; None
    without two seeds of each. p: after Holm's correction for `family` pairs. bound: the other never
    gets there with some seed, so that `times` and `low` are the least that they can be, and `high`
    is infinite. together: both get there between evaluations that overlap, in the mean over seeds,
    or the other may, so that nobody saw who is first."""

    first: Group
    other: Group
    times: float
    low: float | None = None
    high: float | None = None
    p: float | None = None
    family: int = 0
    bound: bool = False
    together: bool = False

    @property
    def is_significant(self) -> bool:
        return self.p is not None and self.p < 1 - LEVEL


@dataclass(frozen=True)
class TargetCosts:
    """text: as it was asked for. groups: those that reach it with all seeds first, the fewest
    steps first. ratios: of the trained ones to the first of them."""

    text: str
    target: Target
    groups: tuple[GroupCost, ...]
    ratios: tuple[Ratio, ...]


def find_costs(comparison: Comparison, text: str) -> TargetCosts:
    """Raises UsageError for a target that none of the runs reaches, and as `read_target`."""
    target = read_target(text, comparison)
    found = costs_of(comparison.ranked, target)
    if not any(own.reached for own in found):
        scores = [
            (row[target.key], group.label)
            for group in comparison.ranked
            for run in group.counted
            for row in run.metrics.evaluations
            if target.key in row
        ]
        lowest = f"; the lowest is {min(scores)[0]:.3f} ({min(scores)[1]})" if scores else ""
        raise UsageError(f"--target {text}: no run has such a validation score{lowest}")
    return TargetCosts(text, target, tuple(found), tuple(_ratios(found)))


def costs_of(groups: Sequence[Group], target: Target) -> list[GroupCost]:
    """In the order of `TargetCosts`; groups without evaluations are left out."""
    found = []
    for group in groups:
        crossings = [
            crossing(run.metrics.evaluations, target, not group.is_floor) for run in group.counted
        ]
        seeds = tuple(seed for seed in crossings if seed is not None)
        if seeds:
            found.append(GroupCost(group, seeds))

    def key(own: GroupCost) -> tuple[float, float]:
        mean = own.mean("step")
        return own.reached / len(own.seeds) * -1, mean.mean if mean else 0.0

    return sorted(found, key=key)


def _ratios(found: Sequence[GroupCost]) -> list[Ratio]:
    """Each trained group against the first of them that reaches the target with all seeds."""
    trained = [own for own in found if not own.group.is_floor]
    if not trained or not trained[0].all_reached:
        return []
    ratios = [_ratio(trained[0], other) for other in trained[1:]]
    family = math.comb(len(trained), 2)
    tested = iter(holm([ratio.p for ratio in ratios if ratio.p is not None], family))
    return [
        ratio if ratio.p is None else replace(ratio, p=next(tested), family=family)
        for ratio in ratios
    ]


def _ratio(first: GroupCost, other: GroupCost) -> Ratio:
    first_S, other_S = (np.log(np.maximum(own.values("step"), 1)) for own in (first, other))
    mean = float(other_S.mean() - first_S.mean())
    plain = Ratio(first.group, other.group, math.exp(mean), bound=not other.all_reached)
    of_first, of_other = first.seen("step"), other.seen("step")
    least, most = of_other[0] - of_first[1], of_other[1] - of_first[0]
    if least < 0:
        return replace(plain, together=True)
    if min(len(first_S), len(other_S)) < 2:
        return plain
    own = interval_of(mean, [training_error(first_S[:, None], other_S[:, None], np.ones(1))])
    # The line between two evaluations is no more than a guess of where in between.
    low, high = min(own.low, least), max(own.high, most)
    return replace(plain, low=math.exp(low), high=math.exp(high), p=own.p)
