"""A moving average of a model's weights, which is evaluated in their place."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


class MovingAverage(AveragedModel):
    """An exponential moving average of the weights and the finite floating-point buffers (Polyak &
    Juditsky 1992). The first update copies them.

    Other buffers are copied at every update: torch would round the average of counts and flags, and
    turn masks of infinities into NaN.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__(model)
        self._decay, self._begun = decay, False
        self._copied = {
            name
            for name, buffer in model.named_buffers()
            if not (buffer.is_floating_point() and buffer.isfinite().all())
        }

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """As torch's, which makes the processor wait for a GPU at every update."""
        own, theirs = self._averaged(self.module), self._averaged(model)
        self._begun = self._begun or bool(self.n_averaged > 0)
        torch._foreach_lerp_(own, theirs, 1 - self._decay if self._begun else 1.0)
        for name in self._copied:
            self.module.get_buffer(name).copy_(model.get_buffer(name))
        self.n_averaged += 1
        self._begun = True

    def _averaged(self, model: nn.Module) -> list[Tensor]:
        buffers = (each for name, each in model.named_buffers() if name not in self._copied)
        return [*(p.detach() for p in model.parameters()), *buffers]
