"""The closed form behind a linear head equals what autograd finds through F.cross_entropy."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.compute.device import Compute
from harness.data.batches import IGNORED
from harness.training.linear_head import add_linear_gradients

CPU = torch.device("cpu")
N, C, V = 23, 12, 50
EPSILON = {"fp32": 2.0**-20, "bf16": 2.0**-7, "fp16": 2.0**-10}


def linear_head(bias: bool, dtype: torch.dtype) -> nn.Linear:
    head = nn.Linear(C, V, bias=bias, dtype=dtype)
    nn.init.normal_(head.weight, std=2.0)  # far from uniform
    return head


def positions(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Features and targets; some don't count, at the ends and between."""
    targets_N = torch.randint(V, (N,))
    targets_N[[0, 5, 6, N - 1]] = IGNORED
    return torch.randn(N, C, dtype=dtype), targets_N


def gradients(head: nn.Linear) -> dict[str, Tensor]:
    found = {name: p.grad for name, p in head.named_parameters() if p.grad is not None}
    head.zero_grad()
    return found


def by_autograd(
    head: nn.Linear,
    features_NC: Tensor,
    targets_N: Tensor,
    compute: Compute,
    weight: Tensor,
    smoothing: float,
) -> tuple[dict[str, Tensor], float]:
    leaf_NC = features_NC.clone().requires_grad_()
    with compute.autocast():
        logits_NV = head(leaf_NC)
    wide_NV = logits_NV.float() if compute.precision != "fp32" else logits_NV
    options = {"ignore_index": IGNORED, "reduction": "sum"}
    F.cross_entropy(wide_NV, targets_N, label_smoothing=smoothing, **options).backward(weight)
    nats = F.cross_entropy(wide_NV.detach(), targets_N, **options).item()
    return gradients(head) | {"features": leaf_NC.grad}, nats


def by_hand(
    head: nn.Linear,
    features_NC: Tensor,
    targets_N: Tensor,
    compute: Compute,
    weight: Tensor,
    smoothing: float,
) -> tuple[dict[str, Tensor], float]:
    gradient_NC = torch.zeros_like(features_NC)
    parts = [each.split(7) for each in (features_NC, targets_N, gradient_NC)]
    chunks = zip(*parts, strict=True)
    nats = add_linear_gradients(head, chunks, compute, weight, smoothing)
    return gradients(head) | {"features": gradient_NC}, nats.item()


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("bias", [True, False])
def test_the_gradients_are_those_of_cross_entropy(bias: bool, smoothing: float) -> None:
    head, weight = linear_head(bias, torch.float64), torch.tensor(0.3, dtype=torch.float64)
    given = (head, *positions(torch.float64), Compute(CPU, "fp32"), weight, smoothing)
    expected, nats = by_autograd(*given)
    found, sum_of_nats = by_hand(*given)
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], rtol=0, atol=1e-12)
    assert sum_of_nats == pytest.approx(nats, rel=1e-6)  # it is summed in fp32


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_in_every_precision_they_are_as_exact_as_autograds(
    precision: str, smoothing: float
) -> None:
    """weight: as a gradient scaler would have it. Each beside the same in float64, by the rounding
    of the precision and the size of the largest."""
    head, (features_NC, targets_N) = linear_head(True, torch.float32), positions(torch.float32)
    weight, compute = torch.tensor(8.0), Compute(CPU, precision)
    found, nats = by_hand(head, features_NC, targets_N, compute, weight, smoothing)
    own, own_nats = by_autograd(head, features_NC, targets_N, compute, weight, smoothing)
    fp32 = Compute(CPU, "fp32")
    exact, _ = by_autograd(
        head.double(), features_NC.double(), targets_N, fp32, weight.double(), smoothing
    )
    assert nats == pytest.approx(own_nats, rel=1e-6)
    for name, gradient in found.items():
        assert gradient.dtype == torch.float32
        largest = exact[name].abs().max()
        errors = [(each[name] - exact[name]).abs().max() / largest for each in (found, own)]
        assert errors[0] < 2 * errors[1] + EPSILON[precision], name


def test_what_is_there_is_added_to_and_what_is_frozen_left_alone() -> None:
    head = linear_head(True, torch.float64)
    weight = torch.ones((), dtype=torch.float64)
    given = (head, *positions(torch.float64), Compute(CPU, "fp32"), weight)
    once, _ = by_hand(*given, 0.0)
    head.weight.grad, head.bias.grad = (once[name].clone() for name in ("weight", "bias"))
    twice, _ = by_hand(*given, 0.0)
    for name in ("weight", "bias"):
        torch.testing.assert_close(twice[name], 2 * once[name], rtol=0, atol=1e-12)
    head.requires_grad_(False)
    assert by_hand(*given, 0.0)[0].keys() == {"features"}


def test_a_target_that_has_no_chance_has_finite_nats() -> None:
    """Its probability is less than the least number of fp32."""
    head = nn.Linear(1, 2, bias=False)
    with torch.no_grad():
        head.weight.copy_(torch.tensor([[0.0], [-300.0]]))
    ones, gradient = torch.ones(1, 1), torch.zeros(1, 1)
    chunk = (ones, torch.tensor([1]), gradient)
    nats = add_linear_gradients(head, [chunk], Compute(CPU, "fp32"), torch.tensor(1.0), 0.0)
    assert nats.item() == 300.0
    assert gradient.item() == 300.0


def test_a_target_that_does_not_count_spoils_no_sum() -> None:
    head = nn.Linear(1, 2, bias=False)
    features = torch.tensor([[torch.inf], [1.0]])
    chunk = (features, torch.tensor([IGNORED, 0]), torch.zeros(2, 1))
    nats = add_linear_gradients(head, [chunk], Compute(CPU, "fp32"), torch.tensor(1.0), 0.0)
    alone = F.cross_entropy(head(features[1:]), torch.tensor([0]))
    assert nats.item() == pytest.approx(alone.item())


def test_hooks_see_every_pass() -> None:
    head, seen = linear_head(True, torch.float64), []
    head.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    weight = torch.ones((), dtype=torch.float64)
    by_hand(head, *positions(torch.float64), Compute(CPU, "fp32"), weight, 0.0)
    assert seen == [7, 7, 7, 2]
