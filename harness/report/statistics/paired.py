"""Whether two models differ: a test in pairs, on the same bytes of text, over the same seeds.

A score depends on chance in two ways: by the choice of the test text, and by training
(initialization, batches). The interval covers both:

- The text: neighbouring blocks of text resemble each other, so stretches of neighbouring blocks are
  resampled together, around the end (circular block bootstrap; Politis & Romano 1992, in "Exploring
  the Limits of Bootstrap"). A stretch has as many blocks as there are stretches: the third root,
  best where memory is short (Hall, Horowitz & Jing 1995, Biometrika 82), is too little for text,
  whose scores drift over pages. That few stretches know little of their own spread is paid for as
  in Student's t: each resampled deviation is divided by a drawn root of chi-squared.
- Training: a comparison has two to five seeds. Resampling so few gives intervals that are far too
  narrow: of three seeds' mean, the bootstrap's variance is a third too small, and its tails end at
  the best and the worst seed. Student's t for the mean of the seeds' differences has no such fault,
  so a draw of it is added to each resampled text (tests/report/test_paired.py measures both).

Pairs take out what two models share: how hard a passage is, and which batches a seed draws.
S seeds, K blocks of text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95
DRAWS = 20_000  # so many that 66 pairs can be told apart after Holm's correction
LEAST_BLOCKS = 32
SEED = 0


@dataclass(frozen=True)
class Interval:
    """A mean difference, its confidence interval, and the two-sided p of no difference.

    With one seed it speaks of the text alone.
    """

    mean: float
    low: float
    high: float
    p: float


def compare_in_pairs(difference_SK: NDArray[np.floating], sizes_K: NDArray[np.integer]) -> Interval:
    """The mean of the differences per byte.

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
    """(DRAWS,): the mean per byte of as many texts made of this one's stretches, spread as far as
    so few stretches leave it open."""
    blocks = len(sizes_K)
    length = stretch(blocks)
    starts = _starts(blocks, length)
    resampled = _sums(difference_K, length)[starts].sum(axis=1)
    resampled /= _sums(sizes_K, length)[starts].sum(axis=1)
    mean = difference_K.sum() / sizes_K.sum()
    freedom = blocks / length - 1
    chi_squared = np.random.default_rng([SEED, 1]).chisquare(freedom, DRAWS)
    drawn: NDArray[np.float64] = mean + (resampled - mean) * np.sqrt((freedom + 1) / chi_squared)
    return drawn


def stretch(blocks: int) -> int:
    """How many neighbouring blocks are resampled together: the root of their number."""
    return max(1, round(blocks**0.5))


@lru_cache(maxsize=4)
def _starts(blocks: int, length: int) -> NDArray[np.integer]:
    """Where the stretches of each resampled text begin: the same for all pairs of a comparison."""
    generator = np.random.default_rng([SEED, blocks])
    return generator.integers(0, blocks, (DRAWS, -(-blocks // length)))


def _sums(values_K: NDArray[np.number], length: int) -> NDArray[np.float64]:
    """(K,): of the stretch that begins at each block and goes on at the start after the end."""
    total = np.concatenate(([0.0], np.cumsum(np.concatenate((values_K, values_K[: length - 1])))))
    return total[length:] - total[:-length]


def holm(p_values: Sequence[float]) -> list[float]:
    """Each p as it counts when all are looked at (Holm 1979, Scandinavian J. of Statistics 6): the
    chance that any true null among them is called a difference stays below the level."""
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted
