"""The difference of two models on the same bytes of text, and its confidence interval.

Two things vary by chance, and the interval covers both:

- The text. Losses of neighbouring blocks are correlated over pages. A standard error that takes
  blocks as independent is far too small, and so is one from resampled stretches of a few blocks.
  Here the variance of the mean is estimated from the slowest ν cosines of the differences, and
  Student's t has ν degrees of freedom (Lazarus, Lewis, Stock & Watson 2018, "HAR Inference:
  Recommendations for Practice", Journal of Business & Economic Statistics 36). If correlation
  reaches far, even those cosines are not slow enough. So the variance is divided by the share of it
  that they show of REFERENCE, a process like the losses of real models.
  Documents are independent draws: whole ones vary, whatever happens inside of them. The standard
  error is that of a ratio of means (Cochran 1977, Sampling Techniques, section 6.4), which a
  bootstrap over documents approaches.
- Training: initialization and batches. Welch's t (Biometrika 34, 1947) over each model's seeds.
  Seeds are not paired: the same seed draws the same batches for both models, but that hardly
  correlates their scores, and relabelling the seeds would change the verdict.

The text is paired: how hard a passage is for both models drops out. What the interval speaks of is
text like this passage. It says nothing of other plays, authors or languages.
experiments/2026-11-28-intervals measures how often the intervals hold the truth.
S seeds, K blocks of text, J cosines.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95
DRAWS = 20_000
RESOLVED = 20  # draws beyond a difference; a rarer one has its p integrated
MIN_BLOCKS = 32
SEED = 0
# Sum of two AR(1) sequences: the correlation of neighbouring blocks of 256 bytes, and the variance.
REFERENCE = ((0.97, 0.27), (0.23, 0.73))
REFERENCE_BYTES = 256

Array = NDArray[np.floating]
Sizes = NDArray[np.integer] | NDArray[np.floating]


@dataclass(frozen=True)
class Interval:
    """A mean difference, its confidence interval, and the two-sided p of no difference.

    With one seed of a model, they cover the choice of the text only.
    """

    mean: float
    low: float
    high: float
    p: float


def paired_interval(
    first_SK: Array,
    second_SK: Array,
    sizes_K: Sizes,
    block_bytes: int | None = None,
    *,
    documents: bool = False,
) -> Interval:
    """How much more the second model pays per byte.

    first_SK, second_SK: the loss of each model by seed and block, in any unit. The numbers of seeds
    may differ. sizes_K: bytes of each block, or of those of its tokens that the losses are of.
    block_bytes: of a whole block, if the losses are of a part of the text. documents: blocks are
    whole documents. The same input gives the same interval.
    """
    difference_K = second_SK.mean(axis=0) - first_SK.mean(axis=0)
    mean = float(difference_K.sum() / sizes_K.sum())
    errors = [
        document_error(difference_K, sizes_K)
        if documents
        else text_error(difference_K, sizes_K, block_bytes)
    ]
    if min(len(first_SK), len(second_SK)) > 1:
        errors.append(training_error(first_SK, second_SK, sizes_K))
    return interval_of(mean, errors)


def interval_of(mean: float, errors: Sequence[tuple[float, float]]) -> Interval:
    """errors: of one or two independent sources of chance the standard error and its degrees of
    freedom. Their Student's t add up."""
    generator = np.random.default_rng(SEED)
    drawn = np.abs(sum(e * generator.standard_t(freedom, DRAWS) for e, freedom in errors))
    half = float(np.quantile(drawn, LEVEL))
    beyond = np.count_nonzero(drawn >= abs(mean))
    p = (beyond + 1) / (DRAWS + 1) if beyond >= RESOLVED else tail(abs(mean), errors)
    return Interval(mean, mean - half, mean + half, p)


def tail(size: float, errors: Sequence[tuple[float, float]]) -> float:
    """How probable |the sum| is to be at least `size`, as `interval_of`, by integration: many
    comparisons need p below what can be drawn. size: above 0."""
    real = [(error, freedom) for error, freedom in errors if error > 1e-9 * size]
    if not real:
        return 1 / (DRAWS + 1)  # that no error was seen is not that there is none
    (last, freedom), *others = sorted(real, key=lambda each: each[1], reverse=True)
    even = np.linspace(0, 1, 20_001)
    missing = math.pi / 2 * even**3  # the angle to a right one, where t is large; see `student`
    density = np.sin(missing) ** (freedom - 1) * even**2
    beyond = np.concatenate([[0], np.cumsum(density[1:] + density[:-1])])
    shifts, weights = np.zeros(1), np.ones(1)
    for error, few in others:
        far = error * math.sqrt(few) / np.tan(missing[1:])
        shifts = np.concatenate([-far, far])
        weights = np.tile(np.sin(missing[1:]) ** (few - 1) * even[1:] ** 2, 2)
    rest = size - shifts
    at = np.cbrt(np.arctan2(last * math.sqrt(freedom), np.abs(rest)) / (math.pi / 2))
    one_side = np.interp(at, even, beyond / beyond[-1] / 2)
    return float(2 * weights @ np.where(rest < 0, 1 - one_side, one_side) / weights.sum())


def student(freedom: float, level: float = LEVEL) -> float:
    """What |t| of Student's stays below with this probability: half of its interval. √ν·tan θ is
    distributed like t if θ has the density cos^(ν-1) θ."""
    angles = np.linspace(0, math.pi / 2, 20_001)
    density = np.cos(angles) ** (freedom - 1)
    below = np.concatenate([[0], np.cumsum((density[1:] + density[:-1]) / 2)])
    return math.sqrt(freedom) * float(np.tan(np.interp(level, below / below[-1], angles)))


def text_error(
    difference_K: Array, sizes_K: Sizes, block_bytes: int | None = None
) -> tuple[float, float]:
    """Standard error of the mean per byte, for the choice of the text; degrees of freedom."""
    blocks, total = len(sizes_K), sizes_K.sum()
    deviations_K = difference_K - sizes_K * (difference_K.sum() / total)
    cosines_JK = _cosines(blocks)
    variance = float(np.square(cosines_JK @ deviations_K).mean())  # of a sum, per block
    share, freedom = (
        (share_shown(blocks, int(sizes_K[0])), float(len(cosines_JK)))
        if block_bytes is None
        else share_of_part(sizes_K, block_bytes)
    )
    return math.sqrt(blocks * (variance / share)) / float(total), freedom


def document_error(difference_K: Array, sizes_K: Sizes) -> tuple[float, float]:
    """As `text_error`, where each block is drawn by itself."""
    blocks, total = len(sizes_K), float(sizes_K.sum())
    deviations_K = difference_K - sizes_K * (difference_K.sum() / total)
    variance = float(np.square(deviations_K).sum()) / (blocks - 1)  # of a sum, per block
    return math.sqrt(blocks * variance) / total, blocks - 1


def training_error(first_SK: Array, second_SK: Array, sizes_K: Sizes) -> tuple[float, float]:
    """Standard error of the mean per byte, for the chance in training; degrees of freedom."""
    parts = []
    for model_SK in (first_SK, second_SK):
        per_seed = model_SK.sum(axis=1) / sizes_K.sum()
        parts.append((per_seed.var(ddof=1) / len(per_seed), len(per_seed) - 1))
    variance = sum(part for part, _ in parts)
    below = sum(part**2 / freedom for part, freedom in parts)
    least = min(freedom for _, freedom in parts)
    return math.sqrt(variance), variance**2 / below if below else least


@lru_cache(maxsize=8)
def _cosines(blocks: int) -> Array:
    """(J, K): orthonormal, and orthogonal to a constant."""
    number = max(2, round(0.07 * blocks ** (2 / 3)))
    at_K = (np.arange(blocks) + 0.5) / blocks
    return np.sqrt(2 / blocks) * np.cos(np.pi * np.outer(np.arange(1, number + 1), at_K))


@lru_cache(maxsize=8)
def share_shown(blocks: int, block_bytes: int) -> float:
    """The expected estimate of the variance of the mean over the true one, for REFERENCE."""
    covariance_K = _covariance(blocks, block_bytes)
    covariance_K[1:] *= 2  # to either side
    of_mean = covariance_K @ (1 - np.arange(blocks) / blocks)
    cosines_JK = _cosines(blocks)
    products_JK = [np.correlate(row, row, "full")[blocks - 1 :] for row in cosines_JK]
    return float(np.mean(products_JK @ covariance_K) / of_mean)


def share_of_part(sizes_K: Sizes, block_bytes: int) -> tuple[float, float]:
    """As `share_shown`, for losses of a part of the text, `sizes_K` bytes in each block; and the
    degrees of freedom of the estimate (Satterthwaite 1946, Biometrics Bulletin 2).

    A part that comes in a few long stretches, as the lines of one speaker do, says less of itself
    than as many bytes all over the text.
    """
    blocks = len(sizes_K)
    cosines_JK = _cosines(blocks)
    # The estimate's J terms, as linear maps of the losses per byte: mean taken off, then a cosine.
    maps_JK = (cosines_JK - (cosines_JK @ sizes_K / sizes_K.sum())[:, None]) * sizes_K
    rows_RK = np.vstack([maps_JK, sizes_K])
    # A product with a Toeplitz matrix is a circular convolution of twice the length.
    kernel_K = _covariance(blocks, block_bytes)
    around = np.fft.rfft(np.concatenate([kernel_K, [0.0], kernel_K[:0:-1]]))
    correlated_RK = np.fft.irfft(np.fft.rfft(rows_RK, 2 * blocks) * around)[:, :blocks]
    covariance_JJ = maps_JK @ correlated_RK[:-1].T
    of_mean = float(sizes_K @ correlated_RK[-1]) / blocks
    spread = float(np.trace(covariance_JJ))
    return spread / len(maps_JK) / of_mean, spread**2 / float(np.square(covariance_JJ).sum())


def _covariance(blocks: int, block_bytes: int) -> Array:
    """(K,): of REFERENCE, by the lag in blocks."""
    scale = block_bytes / REFERENCE_BYTES
    return sum(
        (variance * phi ** (scale * np.arange(blocks)) for phi, variance in REFERENCE),
        np.zeros(blocks),
    )


def holm(p_values: Sequence[float], family: int | None = None) -> list[float]:
    """p-values adjusted for multiple comparisons (Holm 1979, Scandinavian J. of Statistics 6): the
    family-wise error rate stays below the level.

    family: how many comparisons there are, if the data chose which of them to make. Those that were
    not made count as ones that find nothing, which is never less strict than to make them."""
    family = len(p_values) if family is None else family
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (family - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted
