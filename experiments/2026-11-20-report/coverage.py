"""How often intervals hold the truth, and how wide they are on real runs.

python experiments/2026-11-20-report/coverage.py [RUN_OR_FOLDER…]
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.report.records.runs import find_runs
from harness.report.statistics import paired
from harness.report.statistics.differences import bits_per_block
from harness.report.statistics.paired import paired_interval
from harness.report.statistics.ranking import compare_runs

BLOCKS, BYTES, TRIALS = 216, 256, 1000
Test = Callable[[NDArray, NDArray], tuple[float, float]]


def ours(difference_SK: NDArray, sizes_K: NDArray) -> tuple[float, float]:
    found = paired_interval(difference_SK, sizes_K)
    return found.low, found.high


def text_alone(difference_SK: NDArray, sizes_K: NDArray) -> tuple[float, float]:
    return ours(difference_SK.mean(axis=0, keepdims=True), sizes_K)


def seeds_resampled(difference_SK: NDArray, sizes_K: NDArray) -> tuple[float, float]:
    """The hierarchical bootstrap: seeds and stretches of text, both with replacement."""
    per_seed = difference_SK.sum(axis=1) / sizes_K.sum()
    chosen = np.random.default_rng(0).integers(0, len(per_seed), (paired.DRAWS, len(per_seed)))
    mean_K = difference_SK.mean(axis=0)
    of_text = paired.resample_text(mean_K, sizes_K) - per_seed.mean()
    low, high = np.quantile(per_seed[chosen].mean(axis=1) + of_text, [0.025, 0.975])
    return low, high


def one_by_one(difference_SK: NDArray, sizes_K: NDArray) -> tuple[float, float]:
    """Text alone, each block resampled by itself."""
    stretch_length = paired.stretch_length
    paired.stretch_length = lambda blocks: 1
    try:
        return text_alone(difference_SK, sizes_K)
    finally:
        paired.stretch_length = stretch_length


def difference(generator: np.random.Generator, seeds: int, correlation: float) -> NDArray:
    """Between two equal models, in bits (seeds, blocks): a text that both read, of neighbouring
    blocks that resemble each other, what each seed makes of it, and how well each seed went."""
    noise = generator.standard_normal(BLOCKS)
    shared = np.empty(BLOCKS)
    shared[0] = noise[0]
    for at in range(1, BLOCKS):
        shared[at] = correlation * shared[at - 1] + math.sqrt(1 - correlation**2) * noise[at]
    own = generator.standard_normal((seeds, BLOCKS))
    level = generator.standard_normal((seeds, 1)) * (seeds > 1)
    return BYTES * (0.5 * shared + 0.3 * own + 0.1 * level)


def coverage(test: Test, seeds: int, correlation: float) -> float:
    generator, sizes, hits = np.random.default_rng(1), np.full(BLOCKS, BYTES), 0
    for _ in range(TRIALS):
        low, high = test(difference(generator, seeds, correlation), sizes)
        hits += low <= 0 <= high
    return hits / TRIALS


def synthetic() -> None:
    paired.DRAWS = 1000
    tests = (ours, seeds_resampled, text_alone, one_by_one)
    print("seeds correlation", *(test.__name__ for test in tests))
    for seeds, correlation in ((1, 0.3), (1, 0.6), (2, 0.3), (3, 0.3), (5, 0.3)):
        rates = [f"{coverage(test, seeds, correlation):.1%}" for test in tests]
        print(seeds, correlation, *rates)


def real(paths: list[Path]) -> None:
    print("pair; width: ours, text alone, blocks one by one, two texts; correlation at lags 1, 8")
    for pair in compare_runs(find_runs(paths)).pairs:
        if pair.interval is None:
            continue
        models = [
            np.array([bits_per_block(run) for run in group.counted if run.seed in pair.seeds])
            for group in (pair.better, pair.worse)
        ]
        blocks = pair.better.counted[0].blocks
        assert blocks is not None
        bits = models[1] - models[0]
        widths = [
            high - low
            for low, high in (t(bits, blocks.sizes) for t in (ours, text_alone, one_by_one))
        ]
        widths.append(math.hypot(*(np.diff(text_alone(own, blocks.sizes))[0] for own in models)))
        series = bits.mean(axis=0)[:-1] / blocks.block_bytes
        series -= series.mean()
        lags = [(series[:-lag] * series[lag:]).mean() / series.var() for lag in (1, 8)]
        print(
            pair.better.label, pair.worse.label, *(f"{width:.3f}" for width in widths),
            *(f"{lag:.2f}" for lag in lags),
        )  # fmt: skip


if __name__ == "__main__":
    synthetic()
    if sys.argv[1:]:
        paired.DRAWS = 20_000
        paired._starts.cache_clear()
        real([Path(argument) for argument in sys.argv[1:]])
