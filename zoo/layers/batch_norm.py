"""Batch normalization (Ioffe & Szegedy 2015, arXiv 1502.03167).

B batch, T time, C channels.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from zoo.layers.norms import Norm, make_norm

AnyNorm = Norm | Literal["batch_norm"]


class BatchNorm(nn.BatchNorm1d):
    """Of (B, T, C), each position of each sequence an example.

    While training, the statistics mix all positions of the batch, later ones too: only in
    evaluation mode is a model with it causal.
    """

    def forward(self, x_BTC: Tensor) -> Tensor:
        return super().forward(x_BTC.flatten(0, 1)).view_as(x_BTC)


def make_any_norm(norm: AnyNorm | None, n_channels: int) -> nn.Module:
    """The normalization layer `norm`; None: the identity."""
    if norm is None:
        return nn.Identity()
    return BatchNorm(n_channels) if norm == "batch_norm" else make_norm(norm, n_channels, bias=True)
