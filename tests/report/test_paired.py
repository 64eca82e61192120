"""The test in pairs: closed forms, and how often its intervals hold the truth."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from harness.report.statistics import paired
from harness.report.statistics.paired import Interval, holm, paired_interval

K = 436  # blocks of 256 bytes in a tenth of tiny_shakespeare
SIZES = np.full(K, 256)
Test = Callable[[NDArray, NDArray, NDArray], Interval]


@pytest.fixture(autouse=True)
def _fewer_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paired, "DRAWS", 1000)


def text(
    generator: np.random.Generator, parts: Sequence[tuple[float, float]], trials: int
) -> NDArray:
    """(trials, K): stationary sums of AR(1) sequences of these correlations and variances."""
    values = np.zeros((trials, K))
    for phi, variance in parts:
        noise = generator.standard_normal((trials, K)) * math.sqrt(variance * (1 - phi**2))
        noise[:, 0] /= math.sqrt(1 - phi**2)
        for at in range(1, K):
            noise[:, at] += phi * noise[:, at - 1]
        values += noise
    return values


def zeros(seeds: int = 1) -> NDArray:
    return np.zeros((seeds, K))


def test_a_constant_difference_has_an_interval_of_no_width() -> None:
    sizes = np.append(SIZES, 17)
    found = paired_interval(np.zeros((3, K + 1)), np.tile(0.25 * sizes, (3, 1)), sizes)
    assert (found.mean, found.low, found.high) == pytest.approx((0.25, 0.25, 0.25))
    assert found.p == pytest.approx(1 / 1001)


def test_no_difference_at_all_is_no_difference() -> None:
    assert paired_interval(zeros(3), zeros(3), SIZES) == Interval(0, 0, 0, 1)


def test_swapping_the_models_mirrors_the_interval() -> None:
    first, second = np.random.default_rng(0).normal(0.1, 1, (2, 3, K))
    one, other = (
        paired_interval(*pair, SIZES) for pair in ((first, second[:2]), (second[:2], first))
    )
    assert (one.mean, one.low, one.high) == pytest.approx((-other.mean, -other.high, -other.low))
    assert one.p == other.p


def test_relabelling_seeds_changes_nothing() -> None:
    first, second = np.random.default_rng(0).normal(0.1, 1, (2, 3, K))
    one, other = (paired_interval(first[order], second, SIZES) for order in ([0, 1, 2], [2, 0, 1]))
    assert (one.low, one.high, one.p) == pytest.approx((other.low, other.high, other.p))


def test_the_interval_of_one_seed_is_that_of_a_mean_over_text() -> None:
    """Independent blocks: Student's t for 4 cosines, widened by the share shown."""
    bits = np.random.default_rng(0).normal(0, 256, (200, K))
    half = [
        found.high - found.mean for b in bits if (found := paired_interval(zeros(), b[None], SIZES))
    ]
    exact = 2.776 / math.sqrt(paired.share_shown(K, 256)) / math.sqrt(K)
    assert np.sqrt(np.square(half).mean()) == pytest.approx(exact, rel=0.06)


def test_the_cosines_are_orthonormal_and_see_no_constant() -> None:
    cosines = np.vstack([np.full(K, K**-0.5), paired._cosines(K)])
    assert len(cosines) == 5
    np.testing.assert_allclose(cosines @ cosines.T, np.eye(5), atol=1e-12)


def test_the_estimate_is_unbiased_for_the_reference() -> None:
    """By simulation: the variance of the mean against the mean of its estimates."""
    bits = text(np.random.default_rng(0), paired.REFERENCE, 4000)
    squares = [paired.text_error(own, np.ones(K, int) * 256)[0] ** 2 for own in bits]
    assert np.mean(squares) == pytest.approx((bits.mean(axis=1) / 256).var(), rel=0.08)


def test_the_share_shown_grows_with_the_text() -> None:
    shares = [paired.share_shown(blocks, 256) for blocks in (40, 109, 436, 1744)]
    assert shares == sorted(shares)
    assert shares[-1] > 0.85
    # Larger blocks of a longer text are less correlated: they show more.
    assert paired.share_shown(436, 1024) > paired.share_shown(436, 256)


def test_the_interval_of_seeds_alone_is_welchs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the text adds nothing. By hand: variances 0.07/3 and 0.02/2."""
    monkeypatch.setattr(paired, "DRAWS", 200_000)
    first, second = np.array([0.1, 0.2, 0.6]), np.array([0.4, 0.6])
    error, freedom = paired.training_error(first[:, None] * SIZES, second[:, None] * SIZES, SIZES)
    by_hand = (0.07 / 3, 0.02 / 2)
    assert error == pytest.approx(math.sqrt(sum(by_hand)))
    assert freedom == pytest.approx(sum(by_hand) ** 2 / (by_hand[0] ** 2 / 2 + by_hand[1] ** 2))
    found = paired_interval(first[:, None] * SIZES, second[:, None] * SIZES, SIZES)
    # Student's t for 2.93 degrees of freedom, between 4.303 for 2 and 3.182 for 3.
    assert (found.high - found.mean) / error == pytest.approx(3.23, rel=0.03)


def test_seeds_that_agree_to_the_last_bit_add_nothing() -> None:
    error, freedom = paired.training_error(zeros(3), zeros(2), SIZES)
    assert (error, freedom) == (0, 1)


@pytest.mark.parametrize("stretch", [slice(0, K), slice(100, 145), slice(0, K, 7)])
def test_the_share_of_a_part_is_that_of_the_whole_covariance(stretch: slice) -> None:
    """And for all of the text it is the share of the whole, a little less than four freedoms."""
    sizes = np.zeros(K)
    sizes[stretch] = 8.0
    lags = np.abs(np.subtract.outer(np.arange(K), np.arange(K)))
    covariance = sum(variance * phi**lags for phi, variance in paired.REFERENCE)
    centred = np.eye(K) - np.outer(np.ones(K), sizes) / sizes.sum()
    maps = paired._cosines(K) @ centred.T * sizes
    terms = maps @ covariance @ maps.T
    share, freedom = paired.share_of_part(sizes, 256)
    assert share == pytest.approx(np.trace(terms) / len(maps) / (sizes @ covariance @ sizes / K))
    assert freedom == pytest.approx(np.trace(terms) ** 2 / np.square(terms).sum())
    if stretch == slice(0, K):
        assert share == pytest.approx(paired.share_shown(K, 256))
        assert 3.8 < freedom < 4


def part_of_page(generator: np.random.Generator, long: int, honest: bool) -> float:
    """How often a part without a difference, in one stretch, is called different."""
    sizes = np.zeros(K)
    sizes[150 : 150 + long] = 256.0
    wrong, trials = 0, 200
    for own in text(generator, HARD, trials):
        loss = own * (sizes > 0)
        found = paired_interval(zeros(), loss[None], sizes, 256)
        wrong += found.p < 0.05 if honest else _as_a_whole(loss, sizes)
    return wrong / trials


def _as_a_whole(loss: NDArray, sizes: NDArray) -> bool:
    """With the share and the freedom of a text that is all of the part."""
    deviations = loss - sizes * (loss.sum() / sizes.sum())
    variance = np.square(paired._cosines(K) @ deviations).mean() / paired.share_shown(K, 256)
    return abs(loss.sum()) > 2.776 * math.sqrt(K * variance)  # Student's t, four freedoms


@pytest.mark.parametrize("long", [40, 145])
def test_a_part_in_one_stretch_is_as_uncertain_as_it_is(long: int) -> None:
    generator = np.random.default_rng(6)
    assert part_of_page(generator, long, honest=True) <= 0.08
    assert part_of_page(generator, long, honest=False) > 0.2


HARD = ((0.97, 0.27), (0.23, 0.73))  # as the real losses whose intervals held the truth in 71 %
MILD = ((0.6, 1.0),)
NONE = ((0.0, 1.0),)


def covered(
    seeds: int, parts: Sequence[tuple[float, float]], test: Test = paired_interval
) -> float:
    """How often the interval holds the truth, 0, when text and training both vary."""
    trials = 600
    generator = np.random.default_rng(1)
    shared = text(generator, parts, trials)
    hits = 0
    for own in shared:
        level = generator.standard_normal((2, seeds, 1)) * 0.03 / math.sqrt(2) * (seeds > 1)
        noise = generator.standard_normal((2, seeds, K)) * 0.3 / math.sqrt(2)
        first, second = 256 * (level + noise)
        found = test(first, second + 256 * own, SIZES)
        hits += found.low <= 0 <= found.high
    return hits / trials


@pytest.mark.parametrize(
    ("seeds", "parts"), [(1, HARD), (3, HARD), (5, HARD), (1, MILD), (3, MILD), (1, NONE)]
)
def test_intervals_hold_the_truth_as_often_as_they_say(
    seeds: int, parts: Sequence[tuple[float, float]]
) -> None:
    """93 to 97 %, and 2 % for the chance in 600 trials."""
    assert 0.91 <= covered(seeds, parts) <= 0.99


def stretches(first: NDArray, second: NDArray, sizes: NDArray) -> Interval:
    """Stretches of √K blocks resampled: what this test was before."""
    own = (second - first).mean(axis=0) / 256
    length = round(math.sqrt(K))
    around = np.cumsum(np.concatenate([[0], own, own[: length - 1]]))
    means = (around[length:] - around[:-length]) / length
    half = 2.1 * means.std() / math.sqrt(K / length - 1)
    return Interval(own.mean(), own.mean() - half, own.mean() + half, 0)


def test_resampling_short_stretches_would_claim_too_much() -> None:
    assert covered(1, HARD, stretches) < 0.8


def test_cosines_alone_would_claim_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the share that they show."""
    monkeypatch.setattr(paired, "share_shown", lambda blocks, block_bytes: 1.0)
    monkeypatch.setattr(
        paired, "_cosines", lambda blocks, of=paired._cosines: of(6 * blocks)[:12, ::6]
    )
    assert covered(1, HARD) < 0.88


def test_leaving_the_seeds_out_would_claim_too_much() -> None:
    """As an interval over text alone does, however many seeds its mean is over."""

    def text_alone(first: NDArray, second: NDArray, sizes: NDArray) -> Interval:
        return paired_interval(first.mean(0, keepdims=True), second.mean(0, keepdims=True), sizes)

    generator = np.random.default_rng(0)
    hits = 0
    for _ in range(300):
        level = generator.standard_normal((2, 3, 1)) * 0.1
        found = text_alone(*(256 * (level + generator.standard_normal((2, 3, K)) * 0.3)), SIZES)
        hits += found.low <= 0 <= found.high
    assert hits < 0.75 * 300


def test_pairs_are_narrower_than_two_texts_would_be() -> None:
    """How hard a passage is for both drops out: an unpaired test does not see the difference."""
    generator = np.random.default_rng(0)
    (hard,) = 256 * 0.5 * text(generator, ((0.4, 1.0),), 1)
    first, second = (hard + generator.standard_normal((3, K)) * 256 * 0.05 for _ in range(2))
    second += 0.04 * 256
    found = paired_interval(first, second, SIZES)
    alone = [paired_interval(zeros(3), model, SIZES) for model in (first, second)]
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
    # Of six of which four were made: as if the two others had p = 1.
    assert holm([0.03, 0.01, 0.5, 0.02], 6) == pytest.approx([0.12, 0.06, 1, 0.1])


@pytest.mark.parametrize("size", [0.5, 10, 1e3, 1e5])
def test_rare_differences_have_the_closed_forms_p(size: float) -> None:
    """Of t with one and two degrees; two of Cauchy's distributions are one twice as wide."""
    cauchy = 2 / math.pi * math.atan(1 / size)
    assert paired.tail(size, [(1, 1)]) == pytest.approx(cauchy, rel=1e-3)
    assert paired.tail(size, [(0.3, 1), (0.7, 1)]) == pytest.approx(cauchy, rel=5e-3)
    root = math.sqrt(2 + size**2)
    with_two = 2 / (root * (root + size))  # 1 - size / root
    assert paired.tail(size, [(1, 2)]) == pytest.approx(with_two, rel=1e-3)
    assert paired.tail(size, [(1, 2), (1e-3, 5)]) == pytest.approx(with_two, rel=1e-3)


@pytest.mark.parametrize("errors", [[(1.0, 4.0)], [(1.0, 4.0), (0.5, 5.3)], [(0.1, 2.2), (1, 4)]])
def test_where_draws_resolve_p_both_ways_agree(errors: list[tuple[float, float]]) -> None:
    generator = np.random.default_rng(4)
    drawn = np.abs(sum(e * generator.standard_t(freedom, 400_000) for e, freedom in errors))
    for p in (0.5, 0.05, 0.002):
        assert paired.tail(float(np.quantile(drawn, 1 - p)), errors) == pytest.approx(p, rel=0.1)
    least = paired.interval_of(1e4, errors).p
    assert 0 < least < 1e-7  # which a draw could not show


def test_the_error_over_documents_is_that_of_a_bootstrap() -> None:
    """Whole documents drawn again, of unequal lengths that go with their losses."""
    generator = np.random.default_rng(3)
    sizes = generator.integers(1, 40, 300)
    difference = sizes * generator.normal(0.1, 0.2, 300) + generator.normal(0, 1, 300)
    drawn = generator.integers(0, 300, (4000, 300))
    means = difference[drawn].sum(1) / sizes[drawn].sum(1)
    error, freedom = paired.document_error(difference, sizes)
    assert freedom == 299
    assert error == pytest.approx(means.std(), rel=0.05)


def test_documents_are_drawn_as_wholes_and_in_no_order() -> None:
    """A difference that drifts along the test text says nothing of documents' order."""
    sizes = np.full(K, 10)
    drift = np.linspace(-1, 1, K)[None]
    one = paired_interval(zeros(), drift, sizes, documents=True)
    other = paired_interval(zeros(), drift[:, ::-1], sizes, documents=True)
    mixed = np.random.default_rng(0).permutation(drift[0])[None]
    again = paired_interval(zeros(), mixed, sizes, documents=True)
    assert (one.low, one.high) == pytest.approx((other.low, other.high))
    assert (one.low, one.high) == pytest.approx((again.low, again.high))
    assert one.high - one.low < (lambda i: i.high - i.low)(paired_interval(zeros(), drift, sizes))
