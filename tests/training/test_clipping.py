"""Clipping bounds a step's gradient, whose norm is logged before and after."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import pytest
import torch
from torch import nn

from harness.training.gradients import ROW, Gradients
from tests.small_runs import GPT_SMALL, losses, train


@pytest.mark.parametrize("limit", [0.01, 1e9, math.inf], ids=["clipped", "below", "no limit"])
def test_clipping_is_what_torch_calls_clipping(limit: float) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 900), nn.Tanh(), nn.Linear(900, 3)).double()
    model[2].bias.requires_grad_(False)  # a weight that has no gradient
    theirs = copy.deepcopy(model)
    gradients, inputs = Gradients(model.parameters()), torch.randn(4, 5, dtype=torch.float64)
    for each in (model, model, theirs, theirs):
        each(inputs).square().sum().backward()
    assert ROW < sum(p.numel() for p in model.parameters()) < len(gradients.flat) == 2 * ROW
    expected = nn.utils.clip_grad_norm_(theirs.parameters(), limit)
    assert gradients.clip(limit).item() == pytest.approx(expected.item(), rel=1e-12)
    for ours, other in zip(model.parameters(), theirs.parameters(), strict=True):
        assert (ours.grad is None) == (other.grad is None)
        if ours.grad is not None:  # torch adds 1e-6 to the norm it divides by
            torch.testing.assert_close(ours.grad, other.grad, rtol=1e-5, atol=0)
    gradients.zero()
    assert not any(weight.grad.any() for weight in model.parameters() if weight.grad is not None)


def test_the_norm_of_many_gradients_does_not_drift() -> None:
    """One running sum in fp32 loses what is small beside it: over 0.1 % of the norm here."""
    weight = nn.Parameter(torch.empty(30_000_001))
    gradients = Gradients([weight])
    assert weight.grad is not None
    weight.grad += 1.1e-3
    norm = gradients.clip(math.inf).item()
    assert norm == pytest.approx(gradients.flat.double().norm().item(), rel=2e-5)
    naive = torch.linalg.vector_norm(gradients.flat).item()
    assert naive != pytest.approx(norm, rel=1e-3)


def test_clipping_bounds_the_update_and_logs_the_norm_before(tmp_path: Path) -> None:
    plain = (*GPT_SMALL, "optimizer.weight_decay=0.0", "train.steps=1", "schedule=constant")
    train(tmp_path / "a", *plain, "train.clip=null")
    train(tmp_path / "b", *plain, "train.clip=0.001")
    assert losses(tmp_path / "a") == losses(tmp_path / "b")
    moments = [
        torch.load(tmp_path / name / "run/checkpoints/step-00000001.pt", weights_only=True)[
            "optimizer"
        ]["state"]
        for name in "ab"
    ]
    # AdamW's first moment after one step is 0.1 times the gradient: its norm shows the clipping.
    norms = [
        math.sqrt(sum((state["exp_avg"] * 10).square().sum() for state in moment.values()))
        for moment in moments
    ]
    assert norms[0] == pytest.approx(losses(tmp_path / "a")[0][2], rel=1e-4)
    assert norms[1] == pytest.approx(0.001, rel=1e-2)
