"""The temperature that calibrates a model, against closed forms and a fine grid."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from harness.evaluation.calibration import fit_temperature
from harness.evaluation.nats import nats_N
from tests.evaluation.calibrating import calibrated, fixed
from tests.zoo_models import random_ids


@pytest.mark.parametrize("factor", [0.05, 0.3, 1.0, 1.5, 4.0, 20.0])
def test_finds_the_factor_that_the_logits_were_multiplied_by(factor: float) -> None:
    logits, targets = calibrated()
    found = fit_temperature(fixed(factor * logits + 3.0, targets))
    assert found.value == pytest.approx(factor, rel=2e-4)
    entropy = nats_N(logits, targets).mean().item()
    assert found.nats_per_token[1] == pytest.approx(entropy, rel=1e-7)
    assert found.nats_per_token[0] >= found.nats_per_token[1]
    assert (found.nats_per_token[0] == found.nats_per_token[1]) == (factor == 1)
    assert found.passes <= 10
    assert found.is_best


@pytest.mark.parametrize("seed", range(5))
def test_no_temperature_of_a_fine_grid_is_better(seed: int) -> None:
    """Nor is it ever worse than none."""
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(400, 12, generator=generator).double()
    right = torch.rand(400, generator=generator) < 0.6
    targets = torch.where(right, logits.argmax(-1), random_ids(1, 400, seed, 12)[0])
    found = fit_temperature(fixed(logits, targets))
    grid = [
        nats_N(logits / temperature, targets).mean().item()
        for temperature in np.geomspace(0.03, 40, 2000)
    ]
    assert found.nats_per_token[1] <= min(grid) + 1e-7
    assert found.nats_per_token[1] <= found.nats_per_token[0]
    at = nats_N(logits / found.value, targets).mean().item()
    assert found.nats_per_token[1] == pytest.approx(at, rel=1e-12)


def test_logits_that_say_nothing_have_no_temperature() -> None:
    found = fit_temperature(fixed(torch.full((9, 4), 2.5), torch.zeros(9, dtype=torch.int64)))
    assert (found.value, found.passes) == (1, 1)


@pytest.mark.parametrize("right", [True, False])
def test_where_no_temperature_is_best_it_says_so(right: bool) -> None:
    """Always right: the colder the better. Always wrong: the hotter."""
    logits = torch.tensor([[4.0, 0.0, 0.0]]).expand(50, -1)
    found = fit_temperature(fixed(logits, torch.full((50,), 0 if right else 1)))
    assert not found.is_best
    assert (found.value < 1) == right
    assert found.nats_per_token[1] < found.nats_per_token[0]


def test_logits_of_minus_infinity() -> None:
    """Of ids that a model rules out."""
    logits, targets = calibrated()
    ruled_out = torch.full((len(logits), 2), -torch.inf).double()
    found = fit_temperature(fixed(torch.cat([2 * logits, ruled_out], dim=-1), targets))
    assert found.value == pytest.approx(2, rel=2e-4)
