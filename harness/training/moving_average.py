"""A moving average of a model's weights, which is then what is evaluated."""

from __future__ import annotations

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


class MovingAverage(AveragedModel):
    """An exponential moving average of the weights and of the buffers that can be averaged (Polyak
    & Juditsky 1992). The first update copies all of them.

    Other buffers are copied at every update: counts, indices and flags, of which torch would round
    the average down, and masks of infinities, of which it would make NaN.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
        self._copied = [name for name, buffer in model.named_buffers() if not _averages(buffer)]

    def update_parameters(self, model: nn.Module) -> None:
        super().update_parameters(model)
        for name in self._copied:
            self.module.get_buffer(name).copy_(model.get_buffer(name))


def _averages(buffer: Tensor) -> bool:
    return buffer.is_floating_point() and bool(buffer.isfinite().all())
