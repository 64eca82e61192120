"""What a comparison over seeds can find, said before it starts.

The power of the test that a report makes: Welch's t of two models with equal numbers of seeds and
an equal true spread between them, which the test does not know to be equal. Its degrees of freedom,
and so its critical value, depend on the share that each model has in the sum of the two estimated
variances. That share has a beta distribution and is independent of the sum (Lukacs 1955, Annals of
Mathematical Statistics 26); given the share, t is the pooled one, whose distribution is the
noncentral t with 2 (n - 1) degrees (Cohen 1988, Statistical Power Analysis, chapter 2). So the
power is one integral over the share, and nothing is drawn. Of several pairs the level is that of
the first step of Holm's correction. The choice of the text adds to every difference's interval, and
no number of seeds makes that part smaller.

R shares of the variance, N estimated spreads.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from harness.report.statistics.paired import LEVEL, student

POWER = 0.8
PRIOR_SPREAD = 0.015
"""Bits per byte: about the standard deviation over seeds of small models on tiny_shakespeare."""
MOST_SEEDS = 1000
NODES = 16


def power(standardized: float, seeds: int, pairs: int = 1) -> float:
    """The probability that a difference is significant. standardized: the difference, in standard
    deviations of one seed. seeds: of each model, at least 2."""
    critical_R, share_R = _criticals(seeds, (1 - LEVEL) / pairs)
    ratio_N, weight_N = _ratios(2 * (seeds - 1))
    shift, bound_RN = standardized * math.sqrt(seeds / 2), np.outer(critical_R, ratio_N)
    return float(share_R @ (_normal(shift - bound_RN) + _normal(-shift - bound_RN)) @ weight_N)


def smallest_difference(seeds: int, spread: float, pairs: int = 1) -> float:
    """What is found with POWER. spread: the standard deviation of one seed, in the same unit."""
    low, high = 0.0, 1.0
    while power(high, seeds, pairs) < POWER:
        low, high = high, 2 * high
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (low, middle) if power(middle, seeds, pairs) > POWER else (middle, high)
    return high * spread


def seeds_needed(difference: float, spread: float, pairs: int = 1) -> int | None:
    """Of each model, to find this difference with POWER; None for more than MOST_SEEDS."""
    low, high = 1, 2
    while power(difference / spread, high, pairs) < POWER:
        if high == MOST_SEEDS:
            return None
        low, high = high, min(2 * high, MOST_SEEDS)
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
def _criticals(seeds: int, level: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(R,): what |t| must exceed, by Welch's degrees of freedom, and how probable each is.

    The shares are sin² and cos² of half an angle, whose density is sin^(n-2)."""
    nodes_R, weight_R = np.polynomial.legendre.leggauss(NODES)
    width = min(math.pi / 2, 8 / math.sqrt(seeds - 1))  # beyond it there is nothing to see
    sine_R = np.sin(math.pi / 2 - width * (1 + nodes_R) / 2)
    weight_R = weight_R * sine_R ** (seeds - 2)
    freedom_R = (seeds - 1) / (1 - sine_R**2 / 2)
    critical_R = np.array([student(freedom, 1 - level) for freedom in freedom_R])
    return critical_R, weight_R / weight_R.sum()


@lru_cache(maxsize=64)
def _ratios(freedom: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(N,): estimated over true standard deviation, and how probable each is."""
    even_N = np.arange(1, 401) / 400
    ratio_N = even_N**3 * (1 + 10 / math.sqrt(freedom))  # denser near 0, where t is large
    log_N = (freedom - 1) * np.log(ratio_N) - freedom * ratio_N**2 / 2 + 2 * np.log(even_N)
    weight_N = np.exp(log_N - log_N.max())
    return ratio_N, weight_N / weight_N.sum()


def _normal(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """The normal distribution function."""
    return torch.special.ndtr(torch.from_numpy(x)).numpy()
