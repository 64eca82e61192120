"""A paired test of two models, on the same bytes of text and the same seeds.

Two things vary by chance: the choice of the test text, and training (initialization, batches). The
confidence interval covers both:

- The text: neighbouring blocks of text are correlated, so stretches of consecutive blocks are
  resampled together, wrapping around at the end (circular block bootstrap; Politis & Romano 1992,
  in "Exploring the Limits of Bootstrap"). A stretch is as long as the square root of the number of
  blocks. The cube root, best for short-range correlation (Hall, Horowitz & Jing 1995, Biometrika
  82), is too short for text, whose scores drift over pages. Few stretches underestimate their own
  variance; as in Student's t, each resampled deviation is divided by a draw of the root of
  chi-squared over its degrees of freedom.
- Training: a comparison has two to five seeds. Bootstrapping so few gives intervals that are far
  too narrow: for three seeds, the variance of the mean is a third too small, and no resample is
  outside the best and the worst seed. Instead, a draw of Student's t for the mean difference over
  seeds is added to each resampled text (tests/report/test_paired.py measures both).

Pairing removes what two models share: how hard a passage is, and which batches a seed draws.
S seeds, K blocks of text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95
DRAWS = 20_000  # resolves p after Holm's correction for 66 pairs
MIN_BLOCKS = 32
SEED = 0


@dataclass(frozen=True)
class Interval:
    """A mean difference, its confidence interval, and the two-sided p of no difference.

    With one seed, they cover the choice of the text only.
    """

    mean: float
    low: float
    high: float
    p: float


def paired_interval(difference_SK: NDArray[np.floating], sizes_K: NDArray[np.integer]) -> Interval:
    """The mean difference per byte.

    difference_SK: the loss of one model minus that of the other, by seed and block, in any unit.
    sizes_K: bytes of each block. The same input gives the same interval.
    """
    seeds = difference_SK.shape[0]
    per_seed = difference_SK.sum(axis=1) / sizes_K.sum()
    drawn = resample_text(difference_SK.mean(axis=0), sizes_K)
    if seeds > 1:
        error = per_seed.std(ddof=1) / np.sqrt(seeds)
        drawn = drawn + error * np.random.default_rng(SEED).standard_t(seeds - 1, DRAWS)
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    beyond = min(np.count_nonzero(drawn <= 0), np.count_nonzero(drawn >= 0))
    p = min(1.0, 2 * (beyond + 1) / (DRAWS + 1))
    return Interval(float(per_seed.mean()), float(low), float(high), p)


def resample_text(
    difference_K: NDArray[np.floating], sizes_K: NDArray[np.integer]
) -> NDArray[np.float64]:
    """(DRAWS,): the mean per byte of each resampled text, with the deviations widened as in
    Student's t for the number of stretches."""
    blocks = len(sizes_K)
    length = stretch_length(blocks)
    starts = _starts(blocks, length)
    resampled = _sums(difference_K, length)[starts].sum(axis=1)
    resampled /= _sums(sizes_K, length)[starts].sum(axis=1)
    mean = difference_K.sum() / sizes_K.sum()
    degrees_of_freedom = blocks / length - 1
    chi_squared = np.random.default_rng([SEED, 1]).chisquare(degrees_of_freedom, DRAWS)
    widening = np.sqrt((degrees_of_freedom + 1) / chi_squared)
    drawn: NDArray[np.float64] = mean + (resampled - mean) * widening
    return drawn


def stretch_length(blocks: int) -> int:
    """How many consecutive blocks are resampled together."""
    return max(1, round(blocks**0.5))


@lru_cache(maxsize=4)
def _starts(blocks: int, length: int) -> NDArray[np.integer]:
    """The first block of each resampled stretch: the same for all pairs of a comparison."""
    generator = np.random.default_rng([SEED, blocks])
    return generator.integers(0, blocks, (DRAWS, -(-blocks // length)))


def _sums(values_K: NDArray[np.number], length: int) -> NDArray[np.float64]:
    """(K,): sums over the `length` blocks from each block on, wrapping around at the end."""
    total = np.concatenate(([0.0], np.cumsum(np.concatenate((values_K, values_K[: length - 1])))))
    return total[length:] - total[:-length]


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for multiple comparisons (Holm 1979, Scandinavian J. of Statistics 6): the
    family-wise error rate stays below the level."""
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted
