"""FLOPs that torch does not count, or not rightly."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from harness.compute import costs
from tests.zoo_models import fresh, node


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("groups", [1, 2, 8])
def test_a_convolution_s_gradients_cost_what_it_costs(groups: int, transposed: bool) -> None:
    """By the inputs, and by the weight: twice the forward pass; of one group, as torch counts."""
    make = torch.nn.ConvTranspose1d if transposed else torch.nn.Conv1d
    conv = make(8, 16, 4, stride=2, groups=groups, device="meta")
    x = torch.empty(3, 8, 30, device="meta", requires_grad=True)
    # Multiply-adds of a position: of the output, or of a transposed one of the input.
    positions = 30 if transposed else 14
    forward = 2 * 3 * positions * 8 * 16 * 4 // groups

    def backward(mapping: object) -> int:
        y = conv(x)
        with FlopCounterMode(display=False, custom_mapping=mapping) as counter:  # type: ignore
            y.sum().backward()
        return counter.get_total_flops()

    assert backward(costs.COUNTED_HERE) == 2 * forward
    assert (backward({}) == 2 * forward) == (groups == 1)


@pytest.mark.parametrize("name", ["mamba2", "gated_deltanet", "hnet", "wavenet"])
def test_a_step_costs_three_forward_passes(name: str) -> None:
    """One for the loss, and one for each of two gradients."""
    forward = costs.forward_flops(lambda: fresh(node(name)), 64)
    assert costs.step_flops(lambda: fresh(node(name)), 64) == pytest.approx(3 * forward, rel=0.02)
