"""What the seeds so far say about a difference, however often they are looked at.

Each look has one more difference, candidate − baseline, of two trainings with seeds of their own.
If scores over seeds are normal, the differences are, too, with one unknown variance, however unlike
the two models' variances are. An e-value is evidence against "the mean difference is m": a
t-test's likelihood ratio, in which the effect δ = (mean − m) / σ is N(0, g) under the alternative
and the unknown σ has the right Haar prior:

    e = (1 + n g)^(-1/2) · [(1 + t²/ν) / (1 + t²/(ν (1 + n g)))]^((ν + 1)/2),   ν = n - 1

(Wang & Ramdas 2023, "Anytime-valid t-tests and confidence sequences for Gaussian means with unknown
variance", arXiv 2310.03722; Pérez-Ortiz, Lardy, de Heide & Grünwald 2022, arXiv 2208.07610.) If the
mean is m, it is a martingale that starts at 1 (in what the scaled differences alone say), so the
chance that it is ever 1/level or more is at most the level (Ville's inequality). That is why one
may look after every pair, and stop whenever one likes. The mean over several g is such a martingale
again; so no effect has to be guessed. The means that are not refuted at a look are a confidence
interval, and those of all looks a confidence sequence: with a chance of 1 − level all of them hold
the true mean. So a verdict, whichever it is, is wrong with a chance of at most the level.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

# Variances of the effect, in seed standard deviations: 1 is a difference that takes dozens of
# seeds to see, 1000 one between kinds of models.
EFFECTS = (1.0, 10.0, 100.0, 1000.0)
BETTER, WORSE, SAME = "better", "worse", "no difference"
MOST_SEEDS = 10_000


@dataclass(frozen=True)
class Evidence:
    """After `pairs` differences, in bits per byte. low, high: the confidence interval of this look,
    infinite at first. e_values: for each verdict the evidence against its opposite; it is settled
    when one reaches 1/level."""

    pairs: int
    mean: float
    low: float
    high: float
    e_values: dict[str, float]
    verdict: str | None


def weigh(differences: Sequence[float], margin: float, level: float) -> Evidence:
    """What the differences, candidate − baseline, say. Lower scores are better.

    margin: differences up to it do not matter. level: the chance of a wrong verdict, whenever one
    stops. The opposite of "better" is every mean above 0. Its e-value is the least of theirs, which
    belongs to the one nearest to what was found.
    """
    mean = float(np.mean(differences))
    at_zero = e_value(differences, 0.0)
    nearest = e_value(differences, mean)
    inside = min(e_value(differences, margin), e_value(differences, -margin))
    e_values = {
        BETTER: at_zero if mean < 0 else nearest,
        WORSE: at_zero if mean > 0 else nearest,
        SAME: inside if abs(mean) < margin else nearest,
    }
    settled = [verdict for verdict, e in e_values.items() if e >= 1 / level]
    half = _half_width(differences, level)
    return Evidence(
        len(differences), mean, mean - half, mean + half, e_values, settled[0] if settled else None
    )


def e_value(differences: Sequence[float], mean: float) -> float:
    """The evidence against this mean of the differences; at least 1/level by chance alone, at any
    look, with a probability of at most the level."""
    count = len(differences)
    if count < 2:
        return 1.0
    distance = abs(float(np.mean(differences)) - mean)
    error = float(np.std(differences, ddof=1)) / math.sqrt(count)
    if error == 0:
        return e_of_t(math.inf if distance else 0.0, count)
    return e_of_t(distance / error, count)


def e_of_t(t: float, count: int) -> float:
    """The e-value of a t statistic of `count` differences."""
    freedom = count - 1
    logs = []
    for effect in EFFECTS:
        share = 1 + count * effect
        ratio = share if math.isinf(t) else (freedom + t**2) / (freedom + t**2 / share)
        logs.append((count * math.log(ratio) - math.log(share)) / 2)
    largest = max(logs)
    log_e = largest + math.log(sum(math.exp(log - largest) for log in logs) / len(logs))
    return math.exp(min(log_e, 700.0))  # which is evidence enough


def seeds_needed(effect: float, level: float) -> int | None:
    """How many differences settle it, if their mean and standard deviation are as expected. effect:
    the mean over the standard deviation of one difference. None: more than any that are trained."""
    for count in range(2, MOST_SEEDS):
        if e_of_t(effect * math.sqrt(count), count) >= 1 / level:
            return count
    return None


def _half_width(differences: Sequence[float], level: float) -> float:
    """Of the means that are not refuted at this look."""
    count = len(differences)
    if count < 2:
        return math.inf
    return critical_t(count, level) * float(np.std(differences, ddof=1)) / math.sqrt(count)


@cache
def critical_t(count: int, level: float) -> float:
    """The t from which on the e-value is at least 1/level; infinite if none is."""
    if e_of_t(math.inf, count) <= 1 / level:
        return math.inf
    low, high = 0.0, 1.0
    while e_of_t(high, count) < 1 / level:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if e_of_t(middle, count) < 1 / level else (low, middle)
    return high
