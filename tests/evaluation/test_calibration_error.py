"""The calibration error, against closed forms and plain loops."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from harness.evaluation.calibration import (
    BINS,
    Floats,
    calibration_error,
    equal_mass_bins,
    equal_width_bins,
    reliability,
)


def by_the_book(confidence: list[float], correct: list[bool]) -> float:
    """Equation 3 of Guo et al., bin by bin: ((m - 1) / M, m / M]."""
    error = 0.0
    for m in range(1, BINS + 1):
        inside = [n for n, c in enumerate(confidence) if (m - 1) / BINS < c <= m / BINS]
        if inside:
            right = sum(correct[n] for n in inside) / len(inside)
            sure = sum(confidence[n] for n in inside) / len(inside)
            error += len(inside) / len(confidence) * abs(right - sure)
    return error


def test_the_error_is_the_books() -> None:
    draw = np.random.default_rng(0)
    confidence = np.concatenate([draw.random(2000), np.arange(1, BINS + 1) / BINS, [1.0]])
    correct = draw.random(len(confidence)) < confidence**2
    found = calibration_error(reliability(confidence, correct, equal_width_bins(confidence)))
    assert found == pytest.approx(by_the_book(confidence.tolist(), correct.tolist()), abs=1e-12)
    assert found > 0.1


@pytest.mark.parametrize("place", [equal_width_bins, equal_mass_bins])
def test_the_error_in_closed_form(place: Callable[[Floats], Any]) -> None:
    """90 tokens at 0.9, of which 60 come true; 10 at 0.3, of which 3 do."""
    confidence = np.repeat([0.9, 0.3], [90, 10])
    correct = np.arange(100) < 60
    correct[90:93] = True
    bins = reliability(confidence, correct, place(confidence))
    assert [each.tokens for each in bins] == [10, 90]
    assert calibration_error(bins) == pytest.approx(0.9 * (0.9 - 60 / 90))


@pytest.mark.parametrize("place", [equal_width_bins, equal_mass_bins])
def test_what_is_calibrated_has_almost_no_error(place: Callable[[Floats], Any]) -> None:
    """Of 200,000 draws it is below what chance gives 15 bins; of what is half as true, not."""
    draw = np.random.default_rng(1)
    confidence = draw.random(200_000)
    for share, low, high in ((1.0, 0.0, 0.004), (0.5, 0.24, 0.26)):
        correct = draw.random(len(confidence)) < share * confidence
        assert low <= calibration_error(reliability(confidence, correct, place(confidence))) < high


def test_bins_of_equal_mass_have_it_and_do_not_depend_on_the_order() -> None:
    draw = np.random.default_rng(2)
    confidence = draw.random(1500) ** 4
    places = equal_mass_bins(confidence)
    assert np.bincount(places).tolist() == [100] * BINS
    assert max(confidence[places == 0]) < min(confidence[places == 1])
    order = draw.permutation(1500)
    assert (equal_mass_bins(confidence[order]) == places[order]).all()
    assert (
        len(set(equal_mass_bins(np.array([0.5] * 7 + [0.6] * 3)).tolist())) == 2
    )  # equals stay together
