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


def test_in_bf16_a_sum_over_many_positions_is_not_rounded_on_the_way() -> None:
    """All of 4,096 positions add the same to each weight: in bf16 a sum ends at 256."""
    conv = CausalConv1d(3, 3, 1, depthwise=True)
    with torch.autocast("cpu", torch.bfloat16):
        y_BTC = conv(torch.ones(2, 2048, 3))
    assert y_BTC.dtype == torch.bfloat16
    y_BTC.sum().backward()
    for parameter in conv.parameters():
        assert parameter.grad is not None
        assert parameter.grad.flatten().tolist() == [4096.0] * 3


def test_what_is_not_trained_gets_no_gradient() -> None:
    x, weight, bias = tensors(4, 1, torch.float32)
    Depthwise.apply(x, weight.detach(), bias.detach(), 1).sum().backward()
    assert [each.grad is None for each in (x, weight, bias)] == [False, True, True]


def tensors(taps: int, dilation: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """An input of two rows, a filter for each of its channels, and a bias."""
    channels = 5
    shapes = (2, 7 + (taps - 1) * dilation, channels), (channels, 1, taps), (channels,)
    generator = torch.Generator().manual_seed(0)
    x, weight, bias = (
        torch.randn(shape, generator=generator, dtype=dtype).requires_grad_() for shape in shapes
    )
    return x, weight, bias
