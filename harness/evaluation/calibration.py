"""How far a model's probabilities can be believed.

A model is calibrated if of all tokens that it predicts with confidence c a share of c comes true.
Here each token of a split is looked at once, in the windows of the exact evaluation, and a few
numbers of it are kept. N tokens, V vocabulary.
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

BINS = 15  # as Guo et al. have
GUESSES = 3
COLDEST, HOTTEST = 0.02, 50.0
MOST_PASSES = 16
PIECE = 2**18  # logits looked at at a time: 1 MiB in fp32
CLOSE_ENOUGH = 1e-4  # of the temperature, relatively: the loss is flat there

Pass = Callable[[Measure], NDArray[np.floating]]
"""One exact evaluation of a split: (N, …), what a measure finds of each token."""
Floats = NDArray[np.floating]


@dataclass(frozen=True)
class Temperature:
    """value: what to divide the logits by. nats_per_token: before and after, on the tokens that it
    was fitted to. passes: evaluations it took. is_best: false where the loss has no minimum in what
    was searched, and still fell at `value`."""

    value: float
    nats_per_token: tuple[float, float]
    passes: int
    is_best: bool


def fit_temperature(one_pass: Pass) -> Temperature:
    """The temperature that gives these tokens the least loss (temperature scaling: Guo et al. 2017,
    arXiv 1706.04599, section 4.2).

    The loss is convex in the inverse temperature b. With logits z and target y, of one token it is
    ln Σ exp(b z) - b z_y, its slope E[z] - z_y and its curvature Var[z], under softmax(b z): hence
    Newton's method, each step a pass, kept between what is known to be too small and too large.
    """
    low, high = 1 / HOTTEST, 1 / COLDEST
    inverse, steps, settled = 1.0, dict[float, float](), False
    while len(steps) < MOST_PASSES and not settled:
        nats, slope, curvature = one_pass(_slope(inverse)).mean(0, dtype=np.float64).tolist()
        steps[inverse] = nats
        low, high = (low, inverse) if slope > 0 else (inverse, high)
        after = inverse - slope / curvature if curvature > 0 else inverse
        if not low <= after <= high:
            after = (low * high) ** 0.5
        settled = abs(after - inverse) <= CLOSE_ENOUGH * inverse
        inverse = after
    # One that was tried, 1 among them: the loss never rises.
    best = min(steps, key=lambda tried: steps[tried])
    inside = 1.01 * COLDEST < 1 / best < HOTTEST / 1.01
    return Temperature(1 / best, (steps[1.0], steps[best]), len(steps), settled and inside)


def _slope(inverse: float) -> Measure:
    """(N, 3): loss, slope and curvature at an inverse temperature."""

    def measure(logits_NV: Tensor, targets_N: Tensor) -> Tensor:
        # Relative to the largest; finite, so that what is ruled out, times 0, is 0.
        z_NV = (logits_NV - logits_NV.amax(-1, keepdim=True)).clamp_(min=-1e30)
        p_NV = (inverse * z_NV).softmax(-1)
        nats_N = nats_per_target(inverse * z_NV, targets_N)
        mean_N, square_N = vecdot(p_NV, z_NV), vecdot(p_NV * z_NV, z_NV)
        slope_N = mean_N - z_NV.gather(-1, targets_N[:, None])[:, 0]
        return torch.stack([nats_N, slope_N, square_N - mean_N**2], dim=-1)

    return _in_pieces(measure)


def _in_pieces(measure: Measure) -> Measure:
    """The same of a few positions at a time: what is computed on the way then stays in a CPU's
    cache, which is many times as fast where the vocabulary is large."""

    def measure_pieces(logits_NV: Tensor, targets_N: Tensor) -> Tensor:
        rows = max(1, PIECE // logits_NV.shape[-1])
        wide = logits_NV.dtype.itemsize >= 4
        pieces = zip(logits_NV.split(rows), targets_N.split(rows), strict=True)
        return torch.cat(
            [measure(piece if wide else piece.float(), targets) for piece, targets in pieces]
        )

    return measure_pieces


@dataclass(frozen=True)
class Observed:
    """What is known of each of N tokens.

    nats and confidence have two columns: as the model is, and at the temperature. confidence: the
    probability of the likeliest id. guesses (N, G) and their probabilities: the likeliest ids, as
    the model is. unused: the probability of ids that train never shows.
    """

    targets: NDArray[np.integer]
    nats: Floats
    confidence: Floats
    guesses: NDArray[np.int64]
    probabilities: Floats
    unused: Floats

    @property
    def correct(self) -> NDArray[np.bool_]:
        """Whether the likeliest id came: no temperature changes which it is."""
        return np.asarray(self.guesses[:, 0] == self.targets)


def observe(
    one_pass: Pass, targets: NDArray[np.integer], temperature: float, unused_V: NDArray[np.bool_]
) -> Observed:
    """One pass over the tokens `targets`. unused_V: which ids train never shows."""
    found = one_pass(_everything(1 / temperature, torch.from_numpy(unused_V)))
    guesses = (found.shape[1] - 4) // 2
    return Observed(
        targets=targets,
        nats=found[:, :2],
        confidence=found[:, [4, 2]],
        guesses=found[:, 4 + guesses :].astype(np.int64),
        probabilities=found[:, 4 : 4 + guesses],
        unused=found[:, 3],
    )


def _everything(inverse: float, unused_V: Tensor) -> Measure:
    """(N, 4 + 2 G): nats before and after, confidence after, unused; then the guesses'
    probabilities, the first of which is the confidence before, and their ids."""

    def measure(logits_NV: Tensor, targets_N: Tensor) -> Tensor:
        p_NV = logits_NV.softmax(-1)
        likeliest = p_NV.topk(min(GUESSES, p_NV.shape[-1]))
        scaled_NV = inverse * logits_NV
        found = [nats_per_target(logits_NV, targets_N), nats_per_target(scaled_NV, targets_N)]
        found += [scaled_NV.softmax(-1).amax(-1), p_NV @ unused_V.to(p_NV)]
        # Ids are exact in fp32 up to 2^24.
        guesses = [likeliest.values, likeliest.indices.to(p_NV.dtype)]
        return torch.cat([torch.stack(found, dim=-1), *guesses], dim=-1)

    return _in_pieces(measure)


@dataclass(frozen=True)
class Bin:
    """Tokens of similar confidence: how many, their mean confidence, the share that came true."""

    tokens: int
    confidence: float
    accuracy: float


def by_width(confidence: Floats) -> NDArray[np.int64]:
    """(N,): which of BINS equally wide intervals, closed above, each confidence lies in (Guo et al.
    2017, section 3)."""
    return np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)


def by_mass(confidence: Floats) -> NDArray[np.int64]:
    """(N,): which of BINS parts of equally many tokens each is in, from the least confident on
    (Nixon et al. 2019, arXiv 1904.01685, section 3.2). Equal confidences share a bin, whatever the
    order of the tokens."""
    before = np.searchsorted(np.sort(confidence), confidence, side="left")
    return before * BINS // len(confidence)


def reliability(
    confidence: Floats, correct: NDArray[np.bool_], place: NDArray[np.int64]
) -> list[Bin]:
    """The reliability diagram: its bins that hold any token, `place` being each token's."""
    tokens = np.bincount(place, minlength=BINS)
    sums = [np.bincount(place, values, BINS) for values in (confidence, correct)]
    return [
        Bin(int(n), float(confident / n), float(right / n))
        for n, confident, right in zip(tokens, *sums, strict=True)
        if n
    ]


def calibration_error(bins: list[Bin]) -> float:
    """The expected calibration error: the mean over tokens of how far the accuracy of their bin is
    from its confidence (Guo et al. 2017, equation 3)."""
    off = sum(each.tokens * abs(each.accuracy - each.confidence) for each in bins)
    return off / sum(each.tokens for each in bins)


@dataclass(frozen=True)
class Calibration:
    """All that is found of one split. scores: as the model is, and at the temperature; so are the
    pairs that its methods give."""

    temperature: Temperature
    observed: Observed
    scores: tuple[Score, Score]

    def diagrams(self, place: Callable[[Floats], NDArray[np.int64]]) -> tuple[list[Bin], list[Bin]]:
        """The reliability diagrams, by bins of equal width or of equal mass."""
        before, after = (
            reliability(confidence, self.observed.correct, place(confidence))
            for confidence in self.observed.confidence.T.astype(np.float64)
        )
        return before, after

    def errors(self, place: Callable[[Floats], NDArray[np.int64]]) -> tuple[float, float]:
        """The expected calibration errors."""
        before, after = self.diagrams(place)
        return calibration_error(before), calibration_error(after)

    def confidence(self) -> tuple[float, float]:
        """The mean confidence."""
        before, after = self.observed.confidence.mean(0, dtype=np.float64).tolist()
        return before, after

    def unused_nats_per_token(self) -> float:
        """What the probability of ids that train never shows adds to the loss: without them that of
        any other would be 1 / (1 - unused) times as high."""
        with np.errstate(divide="ignore"):  # an infinity, if they have all of it
            return abs(float(np.log1p(-self.observed.unused.astype(np.float64)).mean()))  # not -0.0

    def summary(self) -> dict[str, Any]:
        """As calibration.json has it: a pair is before and after."""
        before, after = self.scores
        diagrams = {
            f"reliability{kind}": {
                name: [asdict(each) for each in bins]
                for name, bins in zip(("before", "after"), self.diagrams(place), strict=True)
            }
            for kind, place in (("", by_width), ("_equal_mass", by_mass))
        }
        return {
            "temperature": self.temperature.value,
            "temperature_is_best": self.temperature.is_best,
            "fitted_nats_per_token": self.temperature.nats_per_token,
            "nats_per_token": (before.nats_per_token, after.nats_per_token),
            "bits_per_byte": (before.bits_per_byte, after.bits_per_byte),
            "expected_calibration_error": self.errors(by_width),
            "expected_calibration_error_equal_mass": self.errors(by_mass),
            "bins": BINS,
            "confidence": self.confidence(),
            "accuracy": float(self.observed.correct.mean()),
            "unused_probability": float(self.observed.unused.mean(dtype=np.float64)),
            "unused_nats_per_token": self.unused_nats_per_token(),
            **diagrams,
        }
