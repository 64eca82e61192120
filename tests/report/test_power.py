"""What a planned comparison can find: against closed forms, published values and simulation."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest

from harness.report.statistics.paired import student
from harness.report.statistics.power import (
    PRIOR_SPREAD,
    plan,
    power,
    seeds_needed,
    smallest_difference,
)


def critical_of(freedom: float, level: float) -> float:
    """What |t| exceeds with this probability: the density of t, added up from its far end."""
    t = np.geomspace(1e-3, 1e9, 200_001)[::-1]
    density = (1 + t**2 / freedom) ** (-(freedom + 1) / 2)
    constant = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2))
    constant /= math.sqrt(freedom * math.pi)
    tail = 2 * constant * np.cumsum((density[1:] + density[:-1]) / 2 * -np.diff(t))
    return float(np.interp(level, tail, t[1:]))


def found_by_welch(difference: float, seeds: int, pairs: int, trials: int = 100_000) -> float:
    """How often Welch's t, with degrees of freedom estimated from the samples, finds it."""
    generator = np.random.default_rng(seeds)
    first, second = generator.standard_normal((2, trials, seeds))
    one, other = first.var(1, ddof=1) / seeds, second.var(1, ddof=1) / seeds
    t = (second.mean(1) - first.mean(1) + difference) / np.sqrt(one + other)
    freedom = (one + other) ** 2 / ((one**2 + other**2) / (seeds - 1))
    grid = np.linspace(seeds - 1, 2 * (seeds - 1), 33)
    critical = np.array([critical_of(each, 0.05 / pairs) for each in grid])
    return float((np.abs(t) > np.interp(freedom, grid, critical)).mean())


def test_the_simulation_has_the_tables_quantiles() -> None:
    for freedom, quantile in ((1, 12.706), (4, 2.776), (8, 2.306), (30, 2.042)):
        assert critical_of(freedom, 0.05) == pytest.approx(quantile, abs=1e-3)
        assert student(freedom, 0.95) == pytest.approx(critical_of(freedom, 0.05), rel=1e-5)
        assert student(freedom, 1 - 0.05 / 120) == pytest.approx(
            critical_of(freedom, 0.05 / 120), rel=1e-4
        )


@pytest.mark.parametrize("pairs", [1, 15])
def test_without_a_difference_the_power_is_welch_s_own_level(pairs: int) -> None:
    """Which is below the nominal one: with few seeds there are few degrees of freedom. With many it
    is the nominal one."""
    for seeds in (2, 3, 5):
        size = power(0, seeds, pairs)
        assert size < 0.05 / pairs
        error = math.sqrt(size / 400_000)
        assert size == pytest.approx(found_by_welch(0, seeds, pairs, 400_000), abs=4 * error)
    assert power(0, 900, pairs) == pytest.approx(0.05 / pairs, rel=1e-3)


@pytest.mark.parametrize(("standardized", "seeds"), [(0.5, 64), (0.8, 26), (1.0, 17)])
def test_published_sample_sizes(standardized: float, seeds: int) -> None:
    """Cohen 1992, Psychological Bulletin 112, table 2 (0.5 and 0.8); G*Power (1.0)."""
    assert seeds_needed(standardized, 1.0) == seeds


def test_with_many_seeds_it_is_the_normal_closed_form() -> None:
    quantile = NormalDist().inv_cdf
    for pairs in (1, 15):
        factors = quantile(1 - 0.025 / pairs) + quantile(0.8)
        expected = factors * 0.02 * math.sqrt(2 / 900)
        assert smallest_difference(900, 0.02, pairs) == pytest.approx(expected, rel=0.003)


@pytest.mark.parametrize(("seeds", "pairs"), [(2, 1), (3, 1), (3, 78), (5, 1), (5, 36), (20, 66)])
def test_as_often_as_simulated_tests_of_a_report_find_it(seeds: int, pairs: int) -> None:
    """By pooled t, with 2 (n - 1) degrees, 5 seeds of 36 pairs found 69 of 100 and not 80."""
    difference = smallest_difference(seeds, 1.0, pairs)
    assert power(difference, seeds, pairs) == pytest.approx(0.8, abs=1e-6)
    assert found_by_welch(difference, seeds, pairs) == pytest.approx(0.8, abs=0.005)


def test_fewer_seeds_and_more_pairs_find_less() -> None:
    found = [smallest_difference(seeds, 1.0) for seeds in (2, 3, 5, 10)]
    assert found == sorted(found, reverse=True)
    assert smallest_difference(5, 1.0, 15) > smallest_difference(5, 1.0)
    assert seeds_needed(1e-6, 1.0) is None


def test_the_words() -> None:
    five = plan(5, PRIOR_SPREAD, 15, "assumed")
    assert five.startswith("If seeds spread by 0.015 bits per byte (assumed), 5 seeds each find a")
    assert "Holm's correction for 15 pairs" in five
    assert plan(1, PRIOR_SPREAD, 1, "assumed").startswith("One seed can't show")
