"""Losses and gradient norms on their way from the device.

To read them at each step would make the processor wait for a GPU, which then waits for it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

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

    def on_device(self) -> list[Tensor]:
        return [self.loss, self.norm, *self.auxiliary.values()]

    def put(self, loss: float, norm: float, *auxiliary: float) -> None:
        """Into the row: the numbers of `on_device`, read."""
        self.row.update(
            {
                "train/loss": loss / self.tokens,
                **dict(zip(self.auxiliary, auxiliary, strict=True)),
                **self.rates,
                "grad_norm": norm,
                "grad_norm_clipped": min(norm, self.clip) if math.isfinite(norm) else norm,
            }
        )


def fill(steps: Sequence[StepNumbers]) -> None:
    """Read the numbers of several steps in one transfer, and put them in their rows."""
    if not steps:
        return
    tensors = [step.on_device() for step in steps]
    numbers = iter(torch.stack([each for of_step in tensors for each in of_step]).tolist())
    for step, of_step in zip(steps, tensors, strict=True):
        step.put(*islice(numbers, len(of_step)))
