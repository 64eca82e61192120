"""Dropout that is cheap on a CPU, layer width under it, and stochastic depth.

B batch, T time, C channels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Dropout(nn.Dropout):
    """nn.Dropout (Srivastava et al. 2014), on a CPU with the draws of `drop_out`."""

    def forward(self, x: Tensor) -> Tensor:
        return drop_out(x, self.p) if self.training else x


def drop_out(x: Tensor, rate: float) -> Tensor:
    """Each element is zero with probability `rate`, else divided by 1 - rate, as torch's.

    On a CPU torch draws a double for each, which takes ten times as long as the rest of dropout:
    here 16 bits decide, so the probability is rounded to a multiple of 2⁻¹⁶.
    """
    kept = round((1 - rate) * 2**16)
    on_cpu = x.is_cpu and not torch.compiler.is_compiling()  # which draws in its own way
    if not on_cpu or not 0 < kept < 2**16:
        return F.dropout(x, rate)
    bits = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
    kept_here = bits.view(torch.int16)[: x.numel()].view(x.shape) < kept - 2**15
    return x * kept_here.to(x.dtype).mul_(1 / (1 - rate))


def widened(n_units: int, dropout: float, widen: bool) -> int:
    """The width of a layer with dropout: n_units, or if `widen` n_units / (1 - dropout), rounded,
    so that n_units remain on average (Srivastava et al. 2014, "Dropout", appendix A.1).

    Raises ValueError if dropout is not in [0, 1).
    """
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout={dropout:g} must be at least 0 and below 1")
    return round(n_units / (1 - dropout)) if widen else n_units


class StochasticDepth(nn.Module):
    """In training, drops an addition to the residual stream with probability `rate`, independently
    for each sequence, and scales the others by 1 / (1 - rate) (Huang et al. 2016, arXiv
    1603.09382, section 3)."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        if not 0 <= rate < 1:
            raise ValueError(f"stochastic_depth={rate:g} must be at least 0 and below 1")
        self.rate = rate

    def forward(self, x_BTC: Tensor) -> Tensor:
        if not self.training:
            return x_BTC
        kept_B11 = torch.rand(len(x_BTC), 1, 1, device=x_BTC.device) >= self.rate
        return x_BTC * kept_B11 / (1 - self.rate)
