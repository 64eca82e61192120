"""Batch normalization (Ioffe & Szegedy 2015, arXiv 1502.03167).

B batch, T time, S time before the text and in it, C channels, N = B·S.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.layers.norms import Norm, make_norm

AnyNorm = Norm | Literal["batch_norm"]


class BatchNorm(nn.BatchNorm1d):
    """Of (B, S, C), each position of each sequence an example.

    While training, the statistics mix all positions of the batch, later ones too: only in
    evaluation mode is a model with it causal.
    """

    is_text: Tensor | None = None
    """(B, T): which of the last T positions are no padding. The statistics leave the padding out,
    whose own outputs are zeros. None: there is none. Set by whoever trains on padded sequences
    (`harness.evaluation.batch_norm.counting`)."""

    def forward(self, x_BSC: Tensor) -> Tensor:
        x_NC = x_BSC.flatten(0, 1)
        if self.is_text is None or not self.training:
            return super().forward(x_NC).view_as(x_BSC)
        before = x_BSC.shape[1] - self.is_text.shape[1]
        kept = F.pad(self.is_text, (before, 0), value=True).flatten().nonzero()[:, 0]
        y_NC = super().forward(x_NC[kept])
        return torch.zeros_like(x_NC, dtype=y_NC.dtype).index_copy(0, kept, y_NC).view_as(x_BSC)


def make_any_norm(norm: AnyNorm | None, n_channels: int) -> nn.Module:
    """The normalization layer `norm`; None: the identity."""
    if norm is None:
        return nn.Identity()
    return BatchNorm(n_channels) if norm == "batch_norm" else make_norm(norm, n_channels, bias=True)
