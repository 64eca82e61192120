"""Evidence for a difference: closed forms, and how often a verdict is wrong."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from harness.judging import evidence
from harness.judging.evidence import (
    BETTER,
    EFFECTS,
    SAME,
    WORSE,
    critical_t,
    e_of_t,
    e_value,
    seeds_needed,
    weigh,
)

SCORES = (0.3, -0.1, 0.25, 0.9, 0.4)
LOOKS = 20


def by_integration(differences: Sequence[float], effect: float) -> float:
    """The likelihood ratio itself: over δ ~ N(0, effect), and σ with the density 1/σ."""
    data_N = np.array(differences)
    log_sigma_S = np.linspace(-7, 7, 701)
    delta_D = np.linspace(-8, 8, 401) * math.sqrt(effect)

    def likelihood(delta_D: np.ndarray) -> np.ndarray:
        scaled_SN = data_N / np.exp(log_sigma_S)[:, None]
        squares_SD = np.square(scaled_SN[:, None] - delta_D[None, :, None]).sum(-1)
        return np.exp(-squares_SD / 2 - len(data_N) * log_sigma_S[:, None]).sum(0)

    prior_D = np.exp(-np.square(delta_D) / 2 / effect)
    ratio: float = (likelihood(delta_D) * prior_D).sum() / prior_D.sum()
    return ratio / float(likelihood(np.zeros(1))[0])


def test_it_is_the_likelihood_ratio(monkeypatch: pytest.MonkeyPatch) -> None:
    for effect in (0.5, 2.0):
        monkeypatch.setattr(evidence, "EFFECTS", (effect,))
        for differences in (SCORES[:2], SCORES[:3], SCORES):
            assert e_value(differences, 0) == pytest.approx(
                by_integration(differences, effect), rel=1e-3
            )


@pytest.mark.parametrize("count", [2, 3, 5, 12])
def test_its_mean_is_one_if_nothing_differs(count: int) -> None:
    """Over Student's t, which is integrated by its angle."""
    freedom = count - 1
    angles = (np.arange(200_000) + 0.5) / 200_000 * math.pi - math.pi / 2
    weights = np.cos(angles) ** (freedom - 1)  # of t = √ν tan(angle)
    t = math.sqrt(freedom) * np.tan(angles)
    values = np.array([e_of_t(each, count) for each in t[::100]])
    assert (values * weights[::100]).sum() / weights[::100].sum() == pytest.approx(1, rel=0.02)


def test_the_mean_of_several_effects() -> None:
    alone = []
    for effect in EFFECTS:
        share = 1 + 4 * effect
        alone.append(share**-0.5 * ((1 + 9 / 3) / (1 + 9 / 3 / share)) ** 2)
    assert e_of_t(3, 4) == pytest.approx(np.mean(alone), rel=1e-12)
    assert e_of_t(math.inf, 4) == pytest.approx(
        np.mean([(1 + 4 * effect) ** 1.5 for effect in EFFECTS]), rel=1e-12
    )


def test_units_and_sides_make_no_difference() -> None:
    assert e_value([1000 * each for each in SCORES], 0) == pytest.approx(e_value(SCORES, 0))
    assert e_value([each + 5 for each in SCORES], 5) == pytest.approx(e_value(SCORES, 0))
    one, other = weigh(SCORES, 0.1, 0.5), weigh([-each for each in SCORES], 0.1, 0.5)
    assert one.e_values[WORSE] == other.e_values[BETTER]
    assert one.e_values[SAME] == other.e_values[SAME]


def test_one_difference_is_no_evidence_and_equal_ones_are_much() -> None:
    assert e_value([5.0], 0) == 1
    assert math.isinf(weigh([5.0], 1, 0.05).high)
    assert weigh([0.0] * 6, 0.01, 0.05).verdict == SAME
    assert weigh([-0.5] * 6, 0.01, 0.05).verdict == BETTER


def test_a_verdict_is_what_the_interval_says() -> None:
    generator = np.random.default_rng(0)
    seen = set()
    for _ in range(300):
        differences = generator.normal(generator.choice([-3, 0, 3]), 1, generator.integers(2, 12))
        found = weigh(differences.tolist(), 1.5, 0.05)
        holds = {
            BETTER: found.high < 0,
            WORSE: found.low > 0,
            SAME: found.low > -1.5 and found.high < 1.5,
        }
        assert found.verdict == next((name for name, held in holds.items() if held), None)
        seen.add(found.verdict)
    assert seen == {BETTER, WORSE, SAME, None}


def test_the_critical_t_is_where_the_evidence_is_enough() -> None:
    assert e_of_t(critical_t(6, 0.02), 6) == pytest.approx(50)
    assert math.isinf(critical_t(2, 0.02))


def test_seeds_that_are_needed() -> None:
    for effect, level in ((1.0, 0.05), (4.0, 0.025), (8.0, 1e-4)):
        needed = seeds_needed(effect, level)
        assert needed is not None
        assert e_of_t(effect * math.sqrt(needed), needed) >= 1 / level
        assert e_of_t(effect * math.sqrt(needed - 1), needed - 1) < 1 / level
    assert seeds_needed(0.0, 0.05) is None


# The level


def by_evidence(differences: np.ndarray) -> bool:
    return weigh(differences.tolist(), 1e-9, 0.05).verdict is not None


def by_t_test(differences: np.ndarray) -> bool:
    """What people do: as if each look were the only one."""
    critical = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201]
    critical += [2.179, 2.16, 2.145, 2.131, 2.12, 2.11, 2.101, 2.093]
    count = len(differences)
    error = differences.std(ddof=1) / math.sqrt(count)
    return bool(abs(differences.mean()) > critical[count - 2] * error)


def wrong(rule: Callable[[np.ndarray], bool], trials: int, spread: float) -> int:
    """Judgements of two models of equal means, ended by the rule within LOOKS looks."""
    generator = np.random.default_rng(1)
    count = 0
    for _ in range(trials):
        differences = generator.normal(0, spread, LOOKS) - generator.normal(0, 1, LOOKS)
        count += any(rule(differences[:look]) for look in range(2, LOOKS + 1))
    return count


def test_looking_after_each_pair_costs_nothing() -> None:
    """A rule that is wrong in 5 of 100 is wrong in more than 27 of 300 once in 1,000 times."""
    assert wrong(by_evidence, 300, 1) <= 27
    assert wrong(by_t_test, 300, 1) > 45


@pytest.mark.long
@pytest.mark.parametrize("spread", [1, 10])
def test_the_level_holds(spread: float) -> None:
    """Of 10,000: 5 % and three standard errors."""
    assert wrong(by_evidence, 10_000, spread) <= 500 + 3 * 22
