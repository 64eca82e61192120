"""The test in pairs: closed forms, and how often its intervals hold the truth."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from harness.report.statistics import paired
from harness.report.statistics.paired import Interval, holm, paired_interval

K = 216
SIZES = np.full(K, 256)


@pytest.fixture(autouse=True)
def _fewer_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paired, "DRAWS", 1000)
    paired._starts.cache_clear()


def text(generator: np.random.Generator, correlation: float, scale: float = 1.0) -> NDArray:
    """A stationary AR(1) sequence of blocks with that standard deviation."""
    noise = generator.standard_normal(K) * math.sqrt(1 - correlation**2)
    values = np.empty(K)
    values[0] = generator.standard_normal()
    for at in range(1, K):
        values[at] = correlation * values[at - 1] + noise[at]
    return scale * values


def test_a_constant_difference_has_an_interval_of_no_width() -> None:
    sizes = np.append(SIZES, 17)
    found = paired_interval(np.tile(0.25 * sizes, (3, 1)), sizes)
    assert (found.mean, found.low, found.high) == pytest.approx((0.25, 0.25, 0.25))
    assert found.p == pytest.approx(2 / 1001)


def test_no_difference_at_all_is_no_difference() -> None:
    assert paired_interval(np.zeros((3, K)), SIZES) == Interval(0, 0, 0, 1)


def test_swapping_the_models_mirrors_the_interval() -> None:
    difference = np.random.default_rng(0).normal(0.1, 1, (1, K))
    one, other = paired_interval(difference, SIZES), paired_interval(-difference, SIZES)
    assert (one.mean, one.low, one.high) == pytest.approx((-other.mean, -other.high, -other.low))
    assert one.p == other.p


def test_the_interval_of_one_seed_is_that_of_a_mean_over_text() -> None:
    """Independent blocks: ± 2.16 standard errors, Student's t for 216 / 15 stretches."""
    generator = np.random.default_rng(0)
    ratios = []
    for _ in range(100):
        bits = generator.normal(0, 256, (1, K))
        found = paired_interval(bits, SIZES)
        assert found.mean == pytest.approx(bits.mean() / 256)
        ratios.append((found.high - found.low) / 2 / (bits.std() / 256 / math.sqrt(K)))
    assert np.sqrt(np.square(ratios).mean()) == pytest.approx(2.16, rel=0.05)


def test_the_interval_of_seeds_alone_is_students(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the text adds nothing: the mean ± 4.303 standard errors for three seeds."""
    monkeypatch.setattr(paired, "DRAWS", 100_000)
    levels = np.array([0.1, 0.2, 0.6])
    found = paired_interval(levels[:, None] * SIZES, SIZES)
    half = 4.303 * levels.std(ddof=1) / math.sqrt(3)
    assert (found.low, found.high) == pytest.approx((0.3 - half, 0.3 + half), rel=0.05, abs=0.02)


def covered(
    seeds: int, correlation: float, test: Callable[..., Interval] = paired_interval
) -> float:
    """How often the interval holds the truth, 0, when text and training both vary."""
    trials = 400
    generator = np.random.default_rng(1)
    hits = 0
    for _ in range(trials):
        shared = text(generator, correlation, 256 * 0.5)
        own = generator.standard_normal((seeds, K)) * 256 * 0.3
        level = generator.standard_normal((seeds, 1)) * 256 * 0.1 * (seeds > 1)
        found = test(shared + own + level, SIZES)
        hits += found.low <= 0 <= found.high
    return hits / trials


@pytest.mark.parametrize(("seeds", "correlation"), [(1, 0.0), (1, 0.6), (2, 0.3), (3, 0.3)])
def test_intervals_hold_the_truth_as_often_as_they_say(seeds: int, correlation: float) -> None:
    assert 0.915 <= covered(seeds, correlation) <= 0.99


def test_resampling_blocks_one_by_one_would_claim_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paired, "stretch_length", lambda blocks: 1)
    assert covered(1, 0.6) < 0.75


def test_leaving_the_seeds_out_would_claim_too_much() -> None:
    """As an interval over text alone does, however many seeds its mean is over."""

    def text_alone(difference_SK: NDArray, sizes_K: NDArray) -> Interval:
        return paired_interval(difference_SK.mean(axis=0, keepdims=True), sizes_K)

    assert covered(3, 0.0, text_alone) < 0.85


def test_resampling_three_seeds_would_claim_too_much() -> None:
    """The plain hierarchical bootstrap: why Student's t is drawn instead."""

    def hierarchical(difference_SK: NDArray, sizes_K: NDArray) -> Interval:
        generator = np.random.default_rng(0)
        per_seed = difference_SK.sum(axis=1) / sizes_K.sum()
        chosen = generator.integers(0, len(per_seed), (paired.DRAWS, len(per_seed)))
        of_text = paired.resample_text(difference_SK.mean(axis=0), sizes_K) - per_seed.mean()
        low, high = np.quantile(per_seed[chosen].mean(axis=1) + of_text, [0.025, 0.975])
        return Interval(per_seed.mean(), low, high, 0)

    assert covered(3, 0.0, hierarchical) < 0.9


def test_pairs_are_narrower_than_two_texts_would_be() -> None:
    """How hard a passage is for both drops out: an unpaired test does not see the difference."""
    generator = np.random.default_rng(0)
    hard = text(generator, 0.4, 256 * 0.5)
    first, second = (hard + generator.standard_normal((3, K)) * 256 * 0.05 for _ in range(2))
    second += 0.03 * 256
    found = paired_interval(second - first, SIZES)
    alone = [paired_interval(model, SIZES) for model in (first, second)]
    unpaired = math.hypot(*(interval.high - interval.low for interval in alone)) / 2
    assert found.low > 0
    assert unpaired > 4 * (found.high - found.low) / 2
    assert found.mean - unpaired < 0


def test_holm_is_holms() -> None:
    assert holm([]) == []
    assert holm([0.04]) == [0.04]
    # By hand: 0.01·4, 0.02·3, 0.03·2 (not below what comes before), 0.5·1.
    assert holm([0.03, 0.01, 0.5, 0.02]) == pytest.approx([0.06, 0.04, 0.5, 0.06])
    assert holm([0.9, 0.8]) == [1, 1]
