"""Twenty steps of a model on a device, and the same in float64 on the CPU.

How far two such trainings may lie apart depends on the model. So the reference is trained a second
time with every result rounded to the precision in question: what that changes is what rounding
explains.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from harness.common.rows import Row
from harness.compute.device import DTYPES, Compute
from harness.config.settings import Settings
from harness.training.trainer import Trainer

STEPS = 20
VOCABULARY = 65  # that of tiny_shakespeare
# A training may be off by this much of what rounding every result explains.
FACTOR = 16.0
CPU = torch.device("cpu")
NOTHING = nullcontext()


@dataclass(frozen=True)
class Trained:
    """losses: of each step, nats. gradients: of the first, in float64."""

    losses: list[float]
    gradients: dict[str, Tensor]


@dataclass(frozen=True)
class Deviation:
    """How far a training lies from the reference, in units of what rounding explains. parameter:
    the one with the worst gradient, with its shape."""

    loss: float
    gradients: float
    steps: float
    parameter: str

    @property
    def is_rounding(self) -> bool:
        return max(self.loss, self.gradients, self.steps) <= FACTOR

    @property
    def is_late(self) -> bool:
        """Whether the first step is right, and a later one is not."""
        return max(self.loss, self.gradients) <= FACTOR < self.steps


def train_on(
    settings: Settings, compute: Compute, first: AbstractContextManager[object] = NOTHING
) -> Trained:
    """Twenty steps. first: a context for the first of them."""
    return _train(settings, compute, first=first)


def reference(settings: Settings, rounding: str | None = None) -> Trained:
    """In float64 on the CPU, from the same weights. rounding: a precision that every result is
    rounded to."""
    alone = settings.replace(precision="fp32", compile=False, device="cpu")
    start = Trainer(alone, VOCABULARY, Compute(CPU, "fp32")).model.state_dict()
    mode = Rounding(DTYPES[rounding]) if rounding is not None else NOTHING
    with _default_float64():
        return _train(alone, Compute(CPU, "fp32"), start, each=mode)


def _train(
    settings: Settings,
    compute: Compute,
    start: dict[str, Tensor] | None = None,
    first: AbstractContextManager[object] = NOTHING,
    each: AbstractContextManager[object] = NOTHING,
) -> Trained:
    """start: the weights to begin with, if not the settings' own."""
    plan = settings.train
    trainer = Trainer(settings, VOCABULARY, compute)
    if start is not None:
        trainer.model.load_state_dict(start)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(VOCABULARY, (STEPS, plan.batch_size, plan.seq_len + 1), generator=generator)
    losses: list[float] = []
    gradients: dict[str, Tensor] = {}

    @contextmanager
    def around_update(row: Row, inputs_BT: Tensor) -> Iterator[None]:
        if not gradients:
            for name, parameter in trainer.model.named_parameters():
                if parameter.grad is not None:
                    gradients[name] = parameter.grad.detach().to(CPU, torch.float64, copy=True)
        yield

    for step, ids_BT in enumerate(ids):
        while True:  # fp16 skips an update and halves the loss scale where a gradient overflows
            skipped, row = trainer.guard.skipped, Row({"step": step})
            with NOTHING if gradients else first, each:
                trainer.step((ids_BT[:, :-1], ids_BT[:, 1:]), 1.0, row, around_update)
            if trainer.guard.skipped == skipped:
                break
        losses.append(row["train/loss"])
    return Trained(losses, gradients)


def deviation(own: Trained, exact: Trained, rounded: Trained, precision: str) -> Deviation:
    """Of a training on a device from the reference, in units of what rounding explains."""
    unit = torch.finfo(DTYPES[precision]).eps
    worst, parameter = 0.0, ""
    whole = sum(float(g.square().sum()) for g in exact.gradients.values()) ** 0.5
    for name, right in exact.gradients.items():
        floor = unit * (float(right.norm()) + 1e-3 * whole)
        allowed = float((rounded.gradients[name] - right).norm()) + floor
        error = float((own.gradients[name] - right).norm())
        if not error / allowed <= worst:  # also NaN
            worst = error / allowed
            parameter = f"{name} ({'×'.join(map(str, right.shape))})"
    return Deviation(
        loss=_loss_deviation(own, exact, rounded, unit, 1),
        gradients=worst,
        steps=_loss_deviation(own, exact, rounded, unit, STEPS),
        parameter=parameter,
    )


def _loss_deviation(
    own: Trained, exact: Trained, rounded: Trained, unit: float, steps: int
) -> float:
    errors, explained = (
        max(abs(a - b) for a, b in zip(other.losses[:steps], exact.losses[:steps], strict=True))
        for other in (own, rounded)
    )
    ratio = errors / (explained + unit * max(exact.losses[:steps]))
    return ratio if ratio == ratio else float("inf")


@contextmanager
def _default_float64() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


class Rounding(TorchDispatchMode):
    """Inside, the result of every operator in float64 is rounded to the bits of a shorter type, its
    range left as it is."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self._scale = 2.0 / torch.finfo(dtype).eps

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func.is_view or func._schema.is_mutable:
            return result
        return pytree.tree_map(self._rounded, result)

    def _rounded(self, value: Any) -> Any:
        if not isinstance(value, Tensor) or value.dtype != torch.float64:
            return value
        mantissa, exponent = torch.frexp(value)
        return torch.ldexp(torch.round(mantissa * self._scale) / self._scale, exponent)
