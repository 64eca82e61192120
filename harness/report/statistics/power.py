"""What a comparison over seeds can find, said before it starts.

Welch's t-test of two models with equal numbers of seeds and an equal spread between them. Its power
follows from the noncentral t distribution (Cohen 1988, Statistical Power Analysis, chapter 2). Of
several pairs the level is that of the first step of Holm's correction. The choice of the text adds
to every difference's interval, and no number of seeds makes that part smaller.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from harness.report.statistics.paired import LEVEL

POWER = 0.8
PRIOR_SPREAD = 0.015
"""Bits per byte: about the standard deviation over seeds of small models on tiny_shakespeare."""
MOST_SEEDS = 1000


def power(standardized: float, seeds: int, pairs: int = 1) -> float:
    """The probability that a difference is significant. standardized: the difference, in standard
    deviations of one seed. seeds: of each model, at least 2."""
    freedom = 2 * (seeds - 1)
    ratio_N, weight_N = _ratios(freedom)
    critical = _critical(freedom, (1 - LEVEL) / pairs)
    shift = standardized * math.sqrt(seeds / 2)
    return float(
        weight_N @ (_normal(shift - critical * ratio_N) + _normal(-shift - critical * ratio_N))
    )


def smallest_difference(seeds: int, spread: float, pairs: int = 1) -> float:
    """What is found with POWER. spread: the standard deviation of one seed, in the same unit."""
    low, high = 0.0, 1e4
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if power(middle, seeds, pairs) > POWER else (middle, high)
    return high * spread


def seeds_needed(difference: float, spread: float, pairs: int = 1) -> int | None:
    """Of each model, to find this difference with POWER; None for more than MOST_SEEDS."""
    low, high = 1, MOST_SEEDS
    if power(difference / spread, high, pairs) < POWER:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        enough = power(difference / spread, middle, pairs) >= POWER
        low, high = (low, middle) if enough else (middle, high)
    return high


def plan(seeds: int, spread: float, pairs: int, source: str) -> str:
    """A sentence: what so many seeds can find, and how many find half of it."""
    of_pairs = f", Holm's correction for {pairs} pairs" if pairs > 1 else ""
    known = f"seeds spread by {spread:.3f} bits per byte ({source})"
    if seeds < 2:
        least = smallest_difference(3, spread, pairs)
        return (
            "One seed can't show that an architecture is better, only that these trained models "
            f"differ. If {known}, 3 seeds each find {least:.3f} in {POWER:.0%} of cases{of_pairs}."
        )
    least = smallest_difference(seeds, spread, pairs)
    more = seeds_needed(least / 2, spread, pairs) or f"more than {MOST_SEEDS}"
    return (
        f"If {known}, {seeds} seeds each find a difference of {least:.3f} in {POWER:.0%} of cases "
        f"(level {1 - LEVEL:.0%}{of_pairs}); half of it takes {more} seeds. The text's part of an "
        "interval comes on top."
    )


@lru_cache(maxsize=64)
def _critical(freedom: int, level: float) -> float:
    """What |t| exceeds with this probability if there is no difference."""
    ratio_N, weight_N = _ratios(freedom)
    low, high = 0.0, 1e5
    for _ in range(60):
        middle = (low + high) / 2
        wrong = 2 * float(weight_N @ _normal(-middle * ratio_N))
        low, high = (middle, high) if wrong > level else (low, middle)
    return high


@lru_cache(maxsize=64)
def _ratios(freedom: int) -> tuple[np.ndarray, np.ndarray]:
    """(N,): estimated over true standard deviation, and how probable each is."""
    ratio_N = np.linspace(1e-4, 1 + 10 / math.sqrt(freedom), 1001)
    log_N = (freedom - 1) * np.log(ratio_N) - freedom * ratio_N**2 / 2
    weight_N = np.exp(log_N - log_N.max())
    return ratio_N, weight_N / weight_N.sum()


def _normal(x_N: np.ndarray) -> np.ndarray:
    """The normal distribution function."""
    return np.array([math.erfc(-x / math.sqrt(2)) / 2 for x in x_N])
