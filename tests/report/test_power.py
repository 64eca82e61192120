"""What a planned comparison can find: against closed forms, published values and simulation."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest

from harness.report.statistics.power import (
    PRIOR_SPREAD,
    plan,
    power,
    seeds_needed,
    smallest_difference,
)


@pytest.mark.parametrize("pairs", [1, 15])
def test_without_a_difference_the_power_is_the_level(pairs: int) -> None:
    for seeds in (2, 5, 30):
        assert power(0, seeds, pairs) == pytest.approx(0.05 / pairs, rel=1e-3)


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


def test_as_often_as_a_simulated_t_test_finds_it() -> None:
    """5 seeds; 2.306 is t's 97.5 % quantile with 8 degrees of freedom."""
    generator = np.random.default_rng(0)
    difference = smallest_difference(5, 1.0)
    first = generator.standard_normal((20_000, 5))
    second = generator.standard_normal((20_000, 5)) + difference
    error = np.sqrt((first.var(1, ddof=1) + second.var(1, ddof=1)) / 5)
    found = np.abs(second.mean(1) - first.mean(1)) / error > 2.306
    assert found.mean() == pytest.approx(0.8, abs=0.012)


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
