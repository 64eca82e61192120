"""The short convolution's own backward pass, against torch's."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.layers.causal_conv import CausalConv1d, Depthwise


@pytest.mark.parametrize("dilation", [1, 3])
@pytest.mark.parametrize("taps", [1, 4])
@pytest.mark.parametrize("has_bias", [True, False])
def test_gradients_are_those_of_a_convolution(dilation: int, taps: int, has_bias: bool) -> None:
    x, weight, bias = tensors(taps, dilation, torch.float64)
    bias = bias if has_bias else None
    inputs = [each for each in (x, weight, bias) if each is not None]
    ours = Depthwise.apply(x, weight, bias, dilation)
    theirs = F.conv1d(x.mT, weight, bias, dilation=dilation, groups=len(weight)).mT
    assert torch.autograd.gradcheck(
        lambda *each: Depthwise.apply(*each[:2], each[2] if has_bias else None, dilation), inputs
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    into = torch.randn_like(ours)
    for own, other in zip(
        torch.autograd.grad(ours, inputs, into),
        torch.autograd.grad(theirs, inputs, into),
        strict=True,
    ):
        torch.testing.assert_close(own, other, rtol=1e-12, atol=1e-12)


def test_in_bf16_a_sum_over_many_positions_is_in_fp32() -> None:
    """All of 4,096 positions add the same to each weight: summed in bf16 they would end at 256."""
    conv = CausalConv1d(3, 3, 1, depthwise=True)
    with torch.autocast("cpu", torch.bfloat16):
        y_BTC = conv(torch.ones(2, 2048, 3))
    assert y_BTC.dtype == torch.bfloat16
    y_BTC.sum().backward()
    for parameter in conv.parameters():
        assert parameter.grad is not None
        assert parameter.grad.flatten().tolist() == [4096.0] * 3


def test_in_bf16_gradients_are_as_exact_as_bf16_is() -> None:
    """Of random numbers, against float64."""
    x, weight, bias = tensors(4, 1, torch.float64)
    exact = torch.autograd.grad(Depthwise.apply(x, weight, bias, 1).square().sum(), (x, weight))
    x, weight, bias = (each.detach().float().requires_grad_() for each in (x, weight, bias))
    with torch.autocast("cpu", torch.bfloat16):
        y_BTC = Depthwise.apply(x, weight, bias, 1)
    found = torch.autograd.grad(y_BTC.float().square().sum(), (x, weight))
    for own, expected in zip(found, exact, strict=True):
        assert own.dtype == torch.float32
        assert torch.linalg.vector_norm(own - expected) < 0.01 * torch.linalg.vector_norm(expected)


@pytest.mark.parametrize(
    ("training", "dtype", "taken"),
    [
        (True, torch.float32, True),
        (True, torch.bfloat16, True),
        (True, torch.float16, False),
        (False, torch.float32, False),
    ],
)
def test_it_is_that_of_training(
    training: bool, dtype: torch.dtype, taken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In evaluation it is torch's own, whose FLOPs are counted; in fp16 products could overflow."""
    calls = []
    monkeypatch.setattr(Depthwise, "apply", lambda *given: calls.append(1) or given[0])
    conv = CausalConv1d(3, 3, 4, depthwise=True).train(training).to(dtype)
    conv(torch.ones(1, 5, 3, dtype=dtype))
    assert calls == [1] * taken


@pytest.mark.parametrize("trained", [0, 1, 2])
def test_only_what_is_trained_gets_a_gradient(trained: int) -> None:
    given = [each.requires_grad_(at == trained) for at, each in enumerate(tensors(4, 1))]
    y_BTC = Depthwise.apply(*given, 1)
    found = y_BTC.grad_fn.apply(torch.ones_like(y_BTC))
    assert [each is not None for each in found] == [at == trained for at in range(3)] + [False]


def tensors(
    taps: int, dilation: int, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor, Tensor]:
    """An input of two rows, a filter for each of its channels, and a bias."""
    channels = 5
    shapes = (2, 7 + (taps - 1) * dilation, channels), (channels, 1, taps), (channels,)
    generator = torch.Generator().manual_seed(0)
    x, weight, bias = (
        torch.randn(shape, generator=generator, dtype=dtype).requires_grad_() for shape in shapes
    )
    return x, weight, bias
