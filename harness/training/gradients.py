"""All gradients of a model in one buffer."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

ROW = 4096  # values summed in sequence in fp32; longer sums lose small values


class Gradients:
    """Every trained weight's `.grad` as a view of one buffer `flat`: norm, clipping, all-reduce and
    zeroing are then one operation each, not one for each weight. Backward passes add to it.

    A weight that no backward pass reaches has a gradient of zero, not None: optimizers step and
    decay it, too. `flat` ends in zeros. All weights have one dtype and one device.
    """

    def __init__(self, weights: Iterable[nn.Parameter]) -> None:
        trained = [weight for weight in weights if weight.requires_grad]
        sizes = [weight.numel() for weight in trained]
        self.flat = trained[0].new_zeros(-(-sum(sizes) // ROW) * ROW).detach()
        parts = self.flat[: sum(sizes)].split(sizes)
        for weight, part in zip(trained, parts, strict=True):
            weight.grad = part.view_as(weight)

    def clip(self, limit: float) -> Tensor:
        """Clip the joint norm to `limit` (Pascanu et al. 2013, arXiv 1211.5063, section 3.2);
        returns the norm before clipping, (). NaN and infinite gradients are left as they are.
        Nothing is asked of the device."""
        row_norms = torch.linalg.vector_norm(self.flat.view(-1, ROW), dim=1)
        norm = torch.linalg.vector_norm(row_norms)
        if limit < math.inf:
            is_clipped = (norm > limit) & norm.isfinite()
            wide = norm if norm.device.type == "mps" else norm.double()  # Apple's has no float64
            self.flat.mul_(torch.where(is_clipped, limit / wide, 1.0))
        return norm

    def zero(self) -> None:
        self.flat.zero_()
