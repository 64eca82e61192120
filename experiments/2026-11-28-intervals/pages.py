"""How often a page of equal models claims that one is better, or gets to a score sooner.

python experiments/2026-11-28-intervals/pages.py
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
from tqdm import tqdm

from harness.report.records.groups import Group
from harness.report.statistics import paired, targets
from harness.report.statistics.paired import holm
from harness.report.statistics.targets import COSTS, GroupCost, SeedCost
from harness.report.statistics.where import Tokens, whole_pairs

BLOCKS, BYTES, PAGES = 436, 256, 1000
PARTS = ((0.97, 0.27), (0.23, 0.73))  # "like real losses" of coverage.py
SPREAD = 0.1  # of the logarithm of the steps, over seeds


def ar(generator: np.random.Generator, models: int) -> np.ndarray:
    """(models, BLOCKS): a stationary sum of AR(1) sequences for each model."""
    values = np.zeros((models, BLOCKS))
    for phi, variance in PARTS:
        own = generator.standard_normal((models, BLOCKS)) * math.sqrt(variance * (1 - phi**2))
        own[:, 0] /= math.sqrt(1 - phi**2)
        for at in range(1, BLOCKS):
            own[:, at] += phi * own[:, at - 1]
        values += own
    return values


def called(name: str, seeds: int) -> Any:
    return Group(name, "", "", "", name, {}, (), (None,) * seeds)  # type: ignore


def where(models: int, seeds: int) -> tuple[float, float]:
    """The share of pages of --where that call the best model ahead of any: by the rule of the
    pairs, and by the uncorrected interval."""
    generator, ours, before = np.random.default_rng(models), 0, 0
    tokens = Tokens(np.full(BLOCKS, BYTES), (BLOCKS - 1) * BYTES)
    groups = [called(str(number), seeds) for number in range(models)]
    for _ in tqdm(range(PAGES), f"{models} models", leave=False):
        text = 0.15 * ar(generator, models)[:, None]
        level = generator.normal(0, 0.01, (models, seeds, 1))
        noise = generator.normal(0, 0.05, (models, seeds, BLOCKS))
        nats = sorted(BYTES * (text + level + noise)[..., 1:], key=np.sum)
        with_best = whole_pairs(groups, nats, tokens, BLOCKS * BYTES)[: models - 1]
        ours += any(pair.is_significant for pair in with_best)
        before += any(pair.interval.low > 0 for pair in with_best if pair.interval)
    return ours / PAGES, before / PAGES


def cost(step: float, budget: float) -> SeedCost:
    spent = dict.fromkeys(COSTS, min(step, budget))
    never = (spent, dict.fromkeys(COSTS, math.inf))
    return SeedCost(spent, step > budget, between=never if step > budget else None)


def target(models: int, seeds: int, budget: float, correct: Callable[..., list[float]]) -> float:
    """The share of pages of --target that say that a model takes more steps than the first one.
    budget: in standard deviations of the logarithm, above the median."""
    generator, wrong = np.random.default_rng(1), 0
    targets.holm = correct  # type: ignore
    for _ in tqdm(range(PAGES), f"{models} models, {seeds} seeds", leave=False):
        found = []
        for number in range(models):
            steps = 1e4 * np.exp(generator.normal(0, SPREAD, seeds))
            own = tuple(cost(step, 1e4 * math.exp(SPREAD * budget)) for step in steps.tolist())
            group = SimpleNamespace(label=str(number), is_floor=False)
            found.append(GroupCost(group, own))  # type: ignore
        found.sort(key=lambda own: (-own.reached, own.mean("step").mean))  # type: ignore
        wrong += any(ratio.is_significant for ratio in targets._ratios(found))
    return wrong / PAGES


if __name__ == "__main__":
    paired.DRAWS = 1000
    print("| models | ahead | ahead by the uncorrected interval |\n|---:|---:|---:|")
    for models in (2, 4, 9):
        print(f"| {models} |", " | ".join(f"{share:.1%}" for share in where(models, 5)), "|")
    rows = itertools.product((3, 5), (2, 4, 8, 12))
    print("| seeds | models | all get there | 84 % do | half do | before, all get there |")
    print("|---:|---:|---:|---:|---:|---:|")
    for seeds, models in rows:
        shares = [target(models, seeds, budget, holm) for budget in (math.inf, 1, 0)]
        shares.append(target(models, seeds, math.inf, lambda p_values, family: holm(p_values)))
        print(f"| {seeds} | {models} |", " | ".join(f"{each:.1%}" for each in shares), "|")
