"""How often 95 % intervals hold the truth, and how wide they are on real runs.

python experiments/2026-11-28-intervals/coverage.py [RUN_OR_FOLDER…]
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from harness.report.records.runs import find_runs
from harness.report.statistics import paired
from harness.report.statistics.differences import bits_per_block
from harness.report.statistics.paired import paired_interval
from harness.report.statistics.ranking import compare_runs

BYTES, TRIALS = 256, 2000
Processes = Sequence[tuple[float, float]]  # sums of AR(1): correlation, variance
PROCESSES: dict[str, tuple[int, Processes]] = {
    "independent blocks": (436, ((0.0, 1.0),)),
    "AR(0.6)": (436, ((0.6, 1.0),)),
    "AR(0.9)": (436, ((0.9, 1.0),)),
    "like real losses": (436, ((0.97, 0.27), (0.23, 0.73))),
    "longer still": (436, ((0.985, 0.25), (0.2, 0.75))),
    "like real losses, 109 blocks": (109, ((0.97, 0.27), (0.23, 0.73))),
    "like real losses, 1744 blocks": (1744, ((0.97, 0.27), (0.23, 0.73))),
}
LEVEL_STD, NOISE_STD = 0.03, 0.3  # of the difference, by seed
HalfWidth = Callable[[NDArray, NDArray, NDArray], float]


def ours(first_SK: NDArray, second_SK: NDArray, sizes_K: NDArray) -> float:
    found = paired_interval(first_SK, second_SK, sizes_K)
    return found.high - found.mean


def before(first_SK: NDArray, second_SK: NDArray, sizes_K: NDArray) -> float:
    """As until this study: resampled stretches of √K blocks, and Student's t over the differences
    of equal seeds."""
    bits_SK = second_SK - first_SK
    blocks, total = len(sizes_K), sizes_K.sum()
    length = round(blocks**0.5)
    around = np.concatenate([bits_SK.mean(0), bits_SK.mean(0)[: length - 1]]).cumsum()
    sums = np.concatenate([around[length - 1 : length], around[length:] - around[:-length]])
    freedom = blocks / length - 1
    error = sums.std() * math.sqrt(blocks / length) / total * math.sqrt((freedom + 1) / freedom)
    generator = np.random.default_rng(0)
    drawn = error * generator.standard_t(freedom, paired.DRAWS)
    if len(bits_SK) > 1:
        per_seed = bits_SK.sum(1) / total
        by_seed = per_seed.std(ddof=1) / math.sqrt(len(per_seed))
        drawn += by_seed * generator.standard_t(len(per_seed) - 1, paired.DRAWS)
    return float(np.quantile(np.abs(drawn), paired.LEVEL))


def text(generator: np.random.Generator, blocks: int, parts: Processes) -> NDArray:
    """(TRIALS, blocks): stationary."""
    values = np.zeros((TRIALS, blocks))
    for phi, variance in parts:
        own = generator.standard_normal((TRIALS, blocks)) * math.sqrt(variance * (1 - phi**2))
        own[:, 0] /= math.sqrt(1 - phi**2)
        for at in range(1, blocks):
            own[:, at] += phi * own[:, at - 1]
        values += own
    return values


def synthetic() -> None:
    """Of equal models: how often 0 lies inside, and the width over that of ±1.96 true errors."""
    paired.DRAWS = 1000
    print("| the text's differences | seeds | these intervals | width | before | width |")
    print("|---|---:|---:|---:|---:|---:|")
    for name, (blocks, parts) in PROCESSES.items():
        for seeds in (1, 2, 3, 5):
            generator = np.random.default_rng(seeds)
            sizes = np.full(blocks, BYTES)
            means, halves = [], {ours: list[float](), before: list[float]()}
            for shared in tqdm(text(generator, blocks, parts), f"{name}, {seeds}", leave=False):
                level = generator.standard_normal((2, seeds, 1)) * LEVEL_STD * (seeds > 1)
                noise = generator.standard_normal((2, seeds, blocks)) * NOISE_STD
                first, second = BYTES * (level + noise) / math.sqrt(2)
                second += BYTES * shared
                means.append((second.mean(0) - first.mean(0)).sum() / sizes.sum())
                for method, found in halves.items():
                    found.append(method(first, second, sizes))
            ideal = 1.96 * np.std(means)
            cells = [
                f"{np.mean(np.abs(means) <= found):.1%} | {np.mean(found) / ideal:.2f}"
                for found in map(np.array, halves.values())
            ]
            print(f"| {name} | {seeds} |", " | ".join(cells), "|", flush=True)


def real(paths: list[Path]) -> None:
    """Half widths on runs, in bits per byte, and how the differences of blocks are correlated."""
    paired.DRAWS = 20_000
    print("| pair | difference | ± these | ± before | correlation 1 apart | 8 apart | 32 apart |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for pair in compare_runs(find_runs(paths)).pairs:
        if pair.interval is None:
            continue
        runs = [
            {run.seed: bits_per_block(run) for run in group.counted}
            for group in (pair.better, pair.worse)
        ]
        both = sorted(runs[0].keys() & runs[1].keys())
        models = [np.array([own[seed] for seed in both]) for own in runs]
        blocks = pair.better.counted[0].blocks
        assert blocks is not None
        series = (models[1] - models[0]).mean(0)[:-1]
        series = series - series.mean()
        lags = [(series[:-lag] * series[lag:]).mean() / series.var() for lag in (1, 8, 32)]
        widths = [method(*models, blocks.sizes) for method in (ours, before)]
        numbers = [f"{pair.interval.mean:.3f}", *(f"{width:.3f}" for width in widths)]
        numbers += [f"{lag:.2f}" for lag in lags]
        print(f"| {pair.better.label}, {pair.worse.label} |", " | ".join(numbers), "|")


if __name__ == "__main__":
    if paths := [Path(argument) for argument in sys.argv[1:]]:
        real(paths)
    else:
        synthetic()
