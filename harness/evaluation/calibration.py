"""Calibration: of the tokens predicted with confidence c, a share of c should come true.

Measured in the windows of the exact evaluation. N tokens, V vocabulary, G guesses.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.linalg import vecdot

from harness.evaluation.nats import Measure
from harness.evaluation.nats import nats_N as nats_per_target
from harness.evaluation.score import Score

BINS = 15  # as in Guo et al.
GUESSES = 3
MIN_TEMPERATURE, MAX_TEMPERATURE = 0.02, 50.0
MAX_PASSES = 16
CHUNK = 2**18  # logits processed at a time: 1 MiB in fp32
TOLERANCE = 1e-4  # relative change of the temperature at convergence

Pass = Callable[[Measure], NDArray[np.floating]]
"""One exact evaluation of a split: the values of a measure for each token, (N, …)."""
Floats = NDArray[np.floating]


@dataclass(frozen=True)
class Temperature:
    """value: divides the logits. nats_per_token: before and after, on the tokens that it was fitted
    to. passes: evaluations it took. is_best: whether the minimum lies within the searched range."""

    value: float
    nats_per_token: tuple[float, float]
    passes: int
    is_best: bool


def fit_temperature(one_pass: Pass) -> Temperature:
    """Temperature scaling (Guo et al. 2017, arXiv 1706.04599, section 4.2).

    The loss is convex in the inverse temperature b. For logits z and target y it is
    ln Σ exp(b z) - b z_y, its slope E[z] - z_y and its curvature Var[z] under softmax(b z).
    Newton's method within a shrinking bracket, one pass a step.
    """
    low, high = 1 / MAX_TEMPERATURE, 1 / MIN_TEMPERATURE
    inverse, losses, converged = 1.0, dict[float, float](), False
    while len(losses) < MAX_PASSES and not converged:
        nats, slope, curvature = one_pass(_slope(inverse)).mean(0, dtype=np.float64).tolist()
        losses[inverse] = nats
        low, high = (low, inverse) if slope > 0 else (inverse, high)
        after = inverse - slope / curvature if curvature > 0 else inverse
        if not low <= after <= high:
            after = (low * high) ** 0.5
        converged = abs(after - inverse) <= TOLERANCE * inverse
        inverse = after
    # The best of those tried, 1 included: the loss never rises. NaN is never the best.
    best = min(losses, key=lambda tried: (np.isnan(losses[tried]), losses[tried]))
    inside = 1.01 * MIN_TEMPERATURE < 1 / best < MAX_TEMPERATURE / 1.01
    return Temperature(1 / best, (losses[1.0], losses[best]), len(losses), converged and inside)


def _slope(inverse: float) -> Measure:
    """Loss, slope and curvature at an inverse temperature, (N, 3)."""

    def measure(logits_NV: Tensor, targets_N: Tensor) -> Tensor:
        # Relative to the largest; finite, so that a logit of -inf times 0 is 0.
        z_NV = (logits_NV - logits_NV.amax(-1, keepdim=True)).clamp_(min=-1e30)
        p_NV = (inverse * z_NV).softmax(-1)
        nats_N = nats_per_target(inverse * z_NV, targets_N)
        mean_N, square_N = vecdot(p_NV, z_NV), vecdot(p_NV * z_NV, z_NV)
        slope_N = mean_N - z_NV.gather(-1, targets_N[:, None])[:, 0]
        return torch.stack([nats_N, slope_N, square_N - mean_N**2], dim=-1)

    return _in_chunks(measure)


def _in_chunks(measure: Measure) -> Measure:
    """The measure on a few positions at a time: its intermediate results then fit into a CPU's
    cache, which is many times faster with a large vocabulary."""

    def measure_chunks(logits_NV: Tensor, targets_N: Tensor) -> Tensor:
        rows = max(1, CHUNK // logits_NV.shape[-1])
        wide = logits_NV.dtype.itemsize >= 4
        pieces = zip(logits_NV.split(rows), targets_N.split(rows), strict=True)
        return torch.cat(
            [measure(piece if wide else piece.float(), targets) for piece, targets in pieces]
        )

    return measure_chunks


@dataclass(frozen=True)
class TokenStatistics:
    """Of each of N tokens: nats and confidence (the probability of the likeliest id), (N, 2) each,
    before and after scaling; the likeliest ids `guesses` and their `probabilities`, (N, G) each,
    before scaling; `unused`, the probability of ids that train lacks, (N,)."""

    targets: NDArray[np.integer]
    nats: Floats
    confidence: Floats
    guesses: NDArray[np.int64]
    probabilities: Floats
    unused: Floats

    @property
    def correct(self) -> NDArray[np.bool_]:
        """(N,): whether the likeliest id is the target, at any temperature."""
        return np.asarray(self.guesses[:, 0] == self.targets)


def token_statistics(
    one_pass: Pass, targets: NDArray[np.integer], temperature: float, unused_V: NDArray[np.bool_]
) -> TokenStatistics:
    """One pass over the tokens `targets`. unused_V: whether train lacks each id."""
    found = one_pass(_all_statistics(1 / temperature, torch.from_numpy(unused_V)))
    guesses = (found.shape[1] - 4) // 2
    return TokenStatistics(
        targets=targets,
        nats=found[:, :2],
        confidence=found[:, [4, 2]],
        guesses=found[:, 4 + guesses :].astype(np.int64),
        probabilities=found[:, 4 : 4 + guesses],
        unused=found[:, 3],
    )


def _all_statistics(inverse: float, unused_V: Tensor) -> Measure:
    """(N, 4 + 2 G): nats before and after, confidence after, unused; the guesses' probabilities
    (the first is the confidence before) and ids."""

    def measure(logits_NV: Tensor, targets_N: Tensor) -> Tensor:
        p_NV = logits_NV.softmax(-1)
        likeliest = p_NV.topk(min(GUESSES, p_NV.shape[-1]))
        scaled_NV = inverse * logits_NV
        found = [nats_per_target(logits_NV, targets_N), nats_per_target(scaled_NV, targets_N)]
        found += [scaled_NV.softmax(-1).amax(-1), p_NV @ unused_V.to(p_NV)]
        # Ids are exact in fp32 up to 2^24.
        guesses = [likeliest.values, likeliest.indices.to(p_NV.dtype)]
        return torch.cat([torch.stack(found, dim=-1), *guesses], dim=-1)

    return _in_chunks(measure)


@dataclass(frozen=True)
class Bin:
    """Tokens of similar confidence: their count, mean confidence and accuracy."""

    tokens: int
    confidence: float
    accuracy: float


def equal_width_bins(confidence: Floats) -> NDArray[np.int64]:
    """The bin of each confidence among BINS equally wide intervals, closed above, (N,) (Guo et al.
    2017, section 3)."""
    return np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)


def equal_mass_bins(confidence: Floats) -> NDArray[np.int64]:
    """The bin of each confidence among BINS bins of equally many tokens, (N,) (Nixon et al. 2019,
    arXiv 1904.01685, section 3.2). Equal confidences share a bin."""
    before = np.searchsorted(np.sort(confidence), confidence, side="left")
    return before * BINS // len(confidence)


def reliability(
    confidence: Floats, correct: NDArray[np.bool_], place: NDArray[np.int64]
) -> list[Bin]:
    """The non-empty bins of the reliability diagram. place: each token's bin, (N,)."""
    tokens = np.bincount(place, minlength=BINS)
    sums = [np.bincount(place, values, BINS) for values in (confidence, correct)]
    return [
        Bin(int(n), float(confident / n), float(right / n))
        for n, confident, right in zip(tokens, *sums, strict=True)
        if n
    ]


def calibration_error(bins: list[Bin]) -> float:
    """The expected calibration error: the mean over tokens of the gap between their bin's accuracy
    and confidence (Guo et al. 2017, equation 3)."""
    off = sum(each.tokens * abs(each.accuracy - each.confidence) for each in bins)
    return off / sum(each.tokens for each in bins)


@dataclass(frozen=True)
class Calibration:
    """The calibration of one split. All pairs are before and after scaling."""

    temperature: Temperature
    tokens: TokenStatistics
    scores: tuple[Score, Score]

    def diagrams(self, place: Callable[[Floats], NDArray[np.int64]]) -> tuple[list[Bin], list[Bin]]:
        """The reliability diagrams. place: `equal_width_bins` or `equal_mass_bins`."""
        before, after = (
            reliability(confidence, self.tokens.correct, place(confidence))
            for confidence in self.tokens.confidence.T.astype(np.float64)
        )
        return before, after

    def errors(self, place: Callable[[Floats], NDArray[np.int64]]) -> tuple[float, float]:
        """The expected calibration errors."""
        before, after = self.diagrams(place)
        return calibration_error(before), calibration_error(after)

    def confidence(self) -> tuple[float, float]:
        """The mean confidence."""
        before, after = self.tokens.confidence.mean(0, dtype=np.float64).tolist()
        return before, after

    def unused_nats_per_token(self) -> float:
        """What the probability of ids that train lacks adds to the loss: without them all others
        would be 1 / (1 - unused) times as likely."""
        with np.errstate(divide="ignore"):  # infinite if they have all the probability
            return abs(float(np.log1p(-self.tokens.unused.astype(np.float64)).mean()))  # not -0.0

    def summary(self) -> dict[str, Any]:
        """As in calibration.json."""
        before, after = self.scores
        diagrams = {
            f"reliability{kind}": {
                name: [asdict(each) for each in bins]
                for name, bins in zip(("before", "after"), self.diagrams(place), strict=True)
            }
            for kind, place in (("", equal_width_bins), ("_equal_mass", equal_mass_bins))
        }
        return {
            "temperature": self.temperature.value,
            "temperature_is_best": self.temperature.is_best,
            "fitted_nats_per_token": self.temperature.nats_per_token,
            "nats_per_token": (before.nats_per_token, after.nats_per_token),
            "bits_per_byte": (before.bits_per_byte, after.bits_per_byte),
            "expected_calibration_error": self.errors(equal_width_bins),
            "expected_calibration_error_equal_mass": self.errors(equal_mass_bins),
            "bins": BINS,
            "confidence": self.confidence(),
            "accuracy": float(self.tokens.correct.mean()),
            "unused_probability": float(self.tokens.unused.mean(dtype=np.float64)),
            "unused_nats_per_token": self.unused_nats_per_token(),
            **diagrams,
        }
