"""The dilated causal convolution (van den Oord et al. 2016, arXiv 1609.03499, section 2.1) with an
explicit past.

B batch, T time, S time past and present, C channels, N inputs kept.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.amp import custom_bwd, custom_fwd
from torch.autograd.function import once_differentiable

from zoo.language_model import Cache
from zoo.layers.checks import require_positive
from zoo.roles import OTHER


@dataclass
class LastInputs:
    """A convolution's last N = (kernel_size - 1)·dilation inputs, (B, N, C), before position `pos`.

    A ring: the input of position p lies in slot p mod N, so a new token writes one slot and reads
    kernel_size - 1, however far apart (Paine et al. 2016, arXiv 1611.09482). Inputs before the
    text are zero. place: in place of `pos`, see Cache.
    """

    ring: Tensor
    pos: int
    place: Tensor | None = None

    @classmethod
    def of(cls, cache: Cache | None, name: str, pos: int) -> LastInputs | None:
        if cache is None:
            return None
        return cls(cache.tensors[f"{name}.inputs"], pos, cache.place)

    def read(self, distances: Iterable[int]) -> Tensor:
        """The inputs at `distances` (1 to N) before `pos`, (B, len(distances), C)."""
        return self.ring[:, self._slots(-distance for distance in distances)]

    def write(self, x_BTC: Tensor) -> None:
        """Append the present."""
        present = x_BTC.shape[1]
        begin = max(0, present - self.ring.shape[1])
        self.ring[:, self._slots(range(begin, present))] = x_BTC[:, begin:].to(self.ring.dtype)

    def _slots(self, offsets: Iterable[int]) -> list[int] | Tensor:
        size = self.ring.shape[1]
        if self.place is None:
            return [(self.pos + offset) % size for offset in offsets]
        return torch.cat([self.place[:0], *((self.place + offset) % size for offset in offsets)])


class FilterPerChannel(nn.Conv1d):
    """A depthwise convolution, which is no linear map: it has neither decay nor a matrix."""

    parameter_roles: ClassVar = {"weight": OTHER}


class CausalConv1d(nn.Module):
    """y[t] = bias + Σ_j weight[:, :, kernel_size - 1 - j] · x[t - j·dilation], j from 0.

    Maps (B, T, in_channels) to (B, T, out_channels). Inputs before the text are zero.
    depthwise: each channel sees itself alone.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        dilation: int = 1,
        *,
        depthwise: bool = False,
        bias: bool = True,
    ) -> None:
        super().__init__()
        require_positive(kernel_size=kernel_size, dilation=dilation)
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = kernel_size
        self.dilation = dilation
        self.conv = (
            FilterPerChannel(in_channels, in_channels, kernel_size, groups=in_channels, bias=bias)
            if depthwise
            else nn.Conv1d(in_channels, out_channels, kernel_size, bias=bias)
        )

    def forward(self, x_BTC: Tensor, past: LastInputs | None = None) -> Tensor:
        # Of the past, T positions see at most T inputs through each tap. With just these in front,
        # the taps lie `step` apart.
        time = x_BTC.shape[1]
        step = min(self.dilation, time)
        before = self.kernel_size - 1
        if past is None:
            x_BSC = F.pad(x_BTC, (0, 0, before * step, 0))
        else:
            taps = range(before * self.dilation, 0, -self.dilation)
            earlier_BSC = past.read(tap - i for tap in taps for i in range(step))
            x_BSC = torch.cat([earlier_BSC, x_BTC], dim=1)
            past.write(x_BTC)
        weight, bias = self.conv.weight, self.conv.bias
        if self.conv.groups > 1:
            is_wide = x_BSC.dtype != torch.float16  # in which products could overflow
            if x_BSC.is_cpu and is_wide and self.training and not torch.compiler.is_compiling():
                y_BTC: Tensor = Depthwise.apply(x_BSC, weight, bias, step)
                return y_BTC
            return depthwise(x_BSC, weight, bias, step)
        # As one product: torch's convolution puts time last first, which costs more than this copy.
        seen = [x_BSC[:, tap * step : tap * step + time] for tap in range(self.kernel_size)]
        return F.linear(torch.stack(seen, dim=-1).flatten(2), weight.flatten(1), bias)

    def empty(self, batch_size: int) -> Tensor:
        """The initial ring of `LastInputs`, (B, N, C)."""
        kept = (self.kernel_size - 1) * self.dilation
        return self.conv.weight.new_zeros(batch_size, kept, self.in_channels)


def depthwise(x_BSC: Tensor, weight_C1K: Tensor, bias_C: Tensor | None, dilation: int) -> Tensor:
    """(B, T, C), where T = S - (K - 1)·dilation, of K taps for each channel."""
    # As an image of one row, whose channels lie side by side: nothing is copied.
    x_BC1S, weight_C11K = x_BSC.mT[:, :, None], weight_C1K[:, :, None]
    groups = len(weight_C1K)
    y_BC1T = F.conv2d(x_BC1S, weight_C11K, bias_C, dilation=(1, dilation), groups=groups)
    return y_BC1T[:, :, 0].mT.contiguous()  # the next layers work position by position


class Depthwise(torch.autograd.Function):
    """`depthwise` with a faster backward pass on a CPU, where torch's takes ten to thirty times as
    long as the forward pass: a convolution with the taps in reverse for the inputs' gradient, and
    for that of the weights a sum for each tap."""

    @staticmethod
    @custom_fwd(device_type="cpu")
    def forward(
        ctx: Any, x_BSC: Tensor, weight_C1K: Tensor, bias_C: Tensor | None, dilation: int
    ) -> Tensor:
        y_BTC = depthwise(x_BSC, weight_C1K, bias_C, dilation)
        ctx.save_for_backward(x_BSC.to(y_BTC.dtype), weight_C1K)
        ctx.dilation = dilation
        return y_BTC

    @staticmethod
    @custom_bwd(device_type="cpu")
    @once_differentiable
    def backward(ctx: Any, dy_BTC: Tensor) -> tuple[Tensor | None, ...]:
        x_BSC, weight_C1K = ctx.saved_tensors
        taps, dilation = weight_C1K.shape[-1], ctx.dilation
        dx_BSC = dweight_C1K = dbias_C = None
        if ctx.needs_input_grad[0]:  # torch's function for it puts time last first
            later = (taps - 1) * dilation
            backwards_C1K = weight_C1K.flip(-1).to(dy_BTC.dtype)
            dx_BSC = depthwise(F.pad(dy_BTC, (0, 0, later, later)), backwards_C1K, None, dilation)
        if ctx.needs_input_grad[1]:
            seen = (x_BSC[:, tap * dilation :][:, : dy_BTC.shape[1]] for tap in range(taps))
            sums_KC = torch.stack([(dy_BTC * x_BTC).sum((0, 1)) for x_BTC in seen])
            dweight_C1K = sums_KC.mT[:, None]
        if ctx.needs_input_grad[2]:
            dbias_C = dy_BTC.sum((0, 1))
        return dx_BSC, dweight_C1K, dbias_C, None
