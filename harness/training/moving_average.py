"""A moving average of a model's weights, which is evaluated in their place."""

from __future__ import annotations

from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


class MovingAverage(AveragedModel):
    """An exponential moving average of the weights and the finite floating-point buffers (Polyak &
    Juditsky 1992). The first update copies them.

    Other buffers are copied at every update: torch would round the average of counts and flags, and
    turn masks of infinities into NaN.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
        self._copied = [
            name
            for name, buffer in model.named_buffers()
            if not (buffer.is_floating_point() and buffer.isfinite().all())
        ]

    def update_parameters(self, model: nn.Module) -> None:
        super().update_parameters(model)
        for name in self._copied:
            self.module.get_buffer(name).copy_(model.get_buffer(name))
