"""All gradients of a model in one buffer."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn

ROW = 4096  # numbers summed one after the other in fp32; more, and the sum loses what is small


class Gradients:
    """Every trained weight's `.grad`, as a view of one buffer: what is done to all of them (norm,
    clipping, exchange, setting to zero) is then one operation, not one for each of a hundred small
    weights. Backward passes add to it. A weight that no pass reaches has a gradient of zero and not
    none: optimizers step it, too, and decay it.

    flat: the buffer, with zeros behind the last gradient. All weights are of one type, on one
    device.
    """

    def __init__(self, weights: Iterable[nn.Parameter]) -> None:
        trained = [weight for weight in weights if weight.requires_grad]
        sizes = [weight.numel() for weight in trained]
        self.flat = trained[0].new_zeros(-(-sum(sizes) // ROW) * ROW).detach()
        parts = self.flat[: sum(sizes)].split(sizes)
        for weight, part in zip(trained, parts, strict=True):
            weight.grad = part.view_as(weight)

    def clip(self, limit: float) -> float:
        """Scale all gradients by one factor so that their joint norm is at most `limit` (Pascanu et
        al. 2013, arXiv 1211.5063, section 3.2); returns the norm that they had.

        Non-finite gradients are left as they are, to be found and named.
        """
        norm_of_row = torch.linalg.vector_norm(self.flat.view(-1, ROW), dim=1)
        norm = torch.linalg.vector_norm(norm_of_row).item()
        if limit < norm < math.inf:
            self.flat.mul_(limit / norm)
        return norm

    def zero(self) -> None:
        """For the next step."""
        self.flat.zero_()
