"""Normalization over the channels of each position."""

from __future__ import annotations

from typing import Literal

from torch import nn

Norm = Literal["layer_norm", "rms_norm"]

EPS = 1e-5


def make_norm(norm: Norm, n_embd: int, bias: bool) -> nn.Module:
    """Layer norm (Ba et al. 2016, arXiv 1607.06450), or RMS norm (Zhang & Sennrich 2019, arXiv
    1910.07467), which neither subtracts the mean nor has a bias."""
    if norm == "layer_norm":
        return nn.LayerNorm(n_embd, EPS, bias=bias)
    if norm == "rms_norm":
        return nn.RMSNorm(n_embd, EPS)
    raise ValueError(f"norm={norm!r} is not one of layer_norm, rms_norm")
