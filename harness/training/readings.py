"""Losses and gradient norms on their way from the device.

To read them at each step would make the processor wait for a GPU, which then waits for it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from harness.common.rows import Row

# Steps that are read together, by kind of device. On a CPU there is nothing to wait for.
TOGETHER = {"cuda": 16}


@dataclass(frozen=True)
class StepNumbers:
    """The numbers of one step, for its row.

    loss: summed over `tokens`, (). norm: of the gradient before clipping at `clip`, (). auxiliary:
    losses by name, () each. rates: learning rates by name.
    """

    row: Row
    tokens: int
    loss: Tensor
    norm: Tensor
    clip: float
    auxiliary: Mapping[str, Tensor]
    rates: Mapping[str, float | None]

    def fill(self) -> None:
        """Read all in one transfer, and put them in the row."""
        loss, norm, *others = torch.stack([self.loss, self.norm, *self.auxiliary.values()]).tolist()
        self.row.update(
            {
                "train/loss": loss / self.tokens,
                **dict(zip(self.auxiliary, others, strict=True)),
                **self.rates,
                "grad_norm": norm,
                "grad_norm_clipped": min(norm, self.clip) if math.isfinite(norm) else norm,
            }
        )
