"""The ratios of a target's costs: what is equal is seldom called dearer, whatever was censored."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest

from harness.report.statistics import paired, targets
from harness.report.statistics.targets import GroupCost, SeedCost
from harness.report.text.targets import _ratio as words


def of_steps(name: str, *steps: float, budget: float = math.inf) -> GroupCost:
    """A model whose seeds take these steps, and never get there where that is over the budget."""
    group = SimpleNamespace(label=name, is_floor=False, beside=0)
    seeds = []
    for step in steps:
        costs = dict.fromkeys(targets.COSTS, min(step, budget))
        never = (costs, dict.fromkeys(targets.COSTS, math.inf))
        seeds.append(SeedCost(costs, step > budget, between=never if step > budget else None))
    return GroupCost(group, tuple(seeds))  # type: ignore


def ordered(own: list[GroupCost]) -> list[GroupCost]:
    """As `costs_of`."""
    return sorted(own, key=lambda each: (-each.reached, each.mean("step").mean))  # type: ignore


def false_findings(trials: int, models: int, budget: float = math.inf) -> int:
    """Of models of five seeds with equal costs but for chance: how often one is called dearer."""
    generator, wrong = np.random.default_rng(0), 0
    for _ in range(trials):
        costs = np.exp(generator.normal(6, 0.2, (models, 5)))
        own = ordered([of_steps(str(n), *each, budget=budget) for n, each in enumerate(costs)])
        wrong += any(ratio.is_significant for ratio in targets._ratios(own))
    return wrong


def test_equal_models_are_seldom_called_unequal(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first is so by chance: with the correction for its own ratios alone, more than 5 %."""
    monkeypatch.setattr(paired, "DRAWS", 500)
    assert false_findings(200, 8) <= 10
    assert false_findings(200, 4, budget=math.exp(6.1)) <= 10  # a third of the seeds are censored
    monkeypatch.setattr(targets, "holm", lambda p_values, family: paired.holm(p_values))
    assert false_findings(200, 8) > 10


def test_the_correction_is_over_all_pairs_of_the_models() -> None:
    own = [of_steps("a", 90, 100, 110), of_steps("b", 130, 150, 160), of_steps("c", 160, 170, 190)]
    raw = [targets._ratio(own[0], other).p for other in own[1:]]
    corrected = targets._ratios(own)
    assert [ratio.family for ratio in corrected] == [3, 3]
    assert [ratio.p for ratio in corrected] == pytest.approx(paired.holm(raw, 3))  # type: ignore
    _, unsure = targets._ratios([own[0], own[2], of_steps("d", 100, 150, 200)])
    assert words(unsure).endswith("after Holm's correction for 3 pairs).")


def test_a_censored_seed_is_tested_like_any_other() -> None:
    """As if it had got there when it ended: what one step more or less can't decide."""
    first = of_steps("a", 900, 950, 985)
    exact = of_steps("b", 880, 960, 1001)
    censored = of_steps("b", 880, 960, 1001, budget=1000)
    for other in (exact, censored):
        (ratio,) = targets._ratios([first, other])
        assert not ratio.is_significant
        said = words(ratio)
        assert "not told apart" in said or "is not shown to take more steps" in said
    never = of_steps("c", *[2000] * 3, budget=1000)
    (ratio,) = targets._ratios([first, never])
    assert not ratio.is_significant  # as first has seeds near to where c ends
    assert words(ratio).startswith(
        "c is not shown to take more steps than a, or fewer: at least 1.06 times as many (95% "
        "interval from 0.9"
    )
    soon = of_steps("c", *[2000] * 3, budget=500)
    (ratio,) = targets._ratios([first, soon])
    assert words(ratio) == (
        "a and c are not told apart: not every seed of c gets there, and what was seen leaves open "
        "which takes fewer steps."
    )
    (ratio,) = targets._ratios([of_steps("a", 90), of_steps("b", 200, budget=180)])
    assert words(ratio) == (
        "b takes at least 2.00 times the steps of a; one seed says nothing of the chance in "
        "training."
    )
