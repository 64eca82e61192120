"""Checks of every step: NaN or infinite losses, gradients and weights, and loss spikes."""

from __future__ import annotations

import logging
import math
import statistics
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from harness.common.errors import RunFailure
from harness.common.rows import Row
from harness.common.values import show

LOG = logging.getLogger("harness")
MAX_SKIPS_IN_A_ROW = 20  # fp16's loss scale has by then fallen to 2^-4
SPIKE_WINDOW = 64  # losses that the spike limit is computed from
SPIKE_INTERVAL = 32  # steps between two computations of the spike limit
SPIKE_DEVIATIONS = 8.0  # robust standard deviations above the median
WARNING_INTERVAL = 100  # steps between two warnings of one kind


class NonFiniteError(RunFailure):
    """A NaN or infinite loss, gradient or weight. Nothing of it was saved."""


@dataclass
class Guard:
    """Checks each step's loss and gradient norm. Part of every checkpoint, so that a resumed run
    skips, stops and warns like an uninterrupted one.

    skipped: steps without an update; spikes: losses far above the median.
    """

    skipped: int = 0
    skipped_in_a_row: int = 0
    spikes: int = 0
    limit: float = math.inf
    recent: list[float] = field(default_factory=list)
    reported: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises ValueError for counts and losses that no guard has."""
        for name in ("skipped", "skipped_in_a_row", "spikes"):
            if not 0 <= getattr(self, name) < 2**63:
                raise ValueError(f"guard.{name} is {show(getattr(self, name))}")
        if len(self.recent) > SPIKE_WINDOW or not all(map(math.isfinite, self.recent)):
            raise ValueError(f"guard.recent are not at most {SPIKE_WINDOW} finite losses")
        if self.limit < math.inf and len(self.recent) < SPIKE_WINDOW:
            raise ValueError(f"guard.limit is {show(self.limit)}, of too few recent losses")

    def allows_update(
        self, row: Row, model: nn.Module, skip: bool, scaled: bool, late: bool = False
    ) -> bool:
        """Whether to update the weights; called before the update.

        skip: skip a non-finite step instead of stopping. scaled: fp16 with a gradient scaler, whose
        overflows are expected. late: called after it, when the gradients are gone. Raises
        NonFiniteError, naming the step and, unless it is late, the parameters.
        """
        loss, norm, step = row["train/loss"], row["grad_norm"], row["step"]
        if math.isfinite(loss) and math.isfinite(norm):
            self.skipped_in_a_row = 0
            self._detect_spike(step, loss)
            return True
        overflow = scaled and math.isfinite(loss)
        named = [
            name
            for name, parameter in model.named_parameters()
            if parameter.grad is not None and not parameter.grad.isfinite().all()
        ]
        where = f"gradients of {_first(named)}" if named else "loss"
        if late:  # the gradients are of a later step
            where = "gradients" if math.isfinite(loss) else "loss"
        found = f"step {step}: loss {loss}, gradient norm {norm}; non-finite {where}"
        kept = "nothing since was saved" if late else "the weights were not updated"
        if not (skip or overflow):
            raise NonFiniteError(
                f"{found}; {kept}. Lower optimizer.lr or train.clip, use "
                "precision=fp32, or skip such steps by train.on_non_finite=skip"
            )
        if self.skipped_in_a_row == MAX_SKIPS_IN_A_ROW:
            raise NonFiniteError(
                f"{found}, as in the {MAX_SKIPS_IN_A_ROW} steps before, which were skipped"
            )
        self.skipped += 1
        self.skipped_in_a_row += 1
        if not overflow:
            self._warn("skip", step, f"{found}; skipped ({self.skipped} so far)")
        return False

    def _detect_spike(self, step: int, loss: float) -> None:
        """Count and report a loss far above the median of those before it, in units of their median
        absolute deviation (times 1.4826: the standard deviation of a normal distribution)."""
        if loss > self.limit:
            self.spikes += 1
            median = statistics.median(self.recent)
            self._warn("spike", step, f"step {step}: loss spike, {loss:.3f} (median {median:.3f})")
        self.recent.append(loss)
        del self.recent[:-SPIKE_WINDOW]
        if len(self.recent) == SPIKE_WINDOW and step % SPIKE_INTERVAL == 0:
            median = statistics.median(self.recent)
            deviation = 1.4826 * statistics.median(abs(other - median) for other in self.recent)
            self.limit = median + SPIKE_DEVIATIONS * max(deviation, 0.01 * abs(median))

    def _warn(self, kind: str, step: int, line: str) -> None:
        if step - self.reported.get(kind, -WARNING_INTERVAL) >= WARNING_INTERVAL:
            self.reported[kind] = step
            LOG.warning(line)


class BufferSnapshot:
    """Restores the buffers that forward passes change, such as batch normalization's averages, when
    a step fails or is skipped."""

    def __init__(self, model: nn.Module) -> None:
        saved = model.state_dict().keys()
        self._model = model
        self._names = [name for name, _ in model.named_buffers() if name in saved]
        self._before: list[Tensor] = []

    def __enter__(self) -> None:
        """Around a step's forward passes; an exception restores the buffers."""
        self._before = [self._model.get_buffer(name).clone() for name in self._names]

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is not None:
            self.restore()

    @torch.no_grad()
    def restore(self) -> None:
        for name, value in zip(self._names, self._before, strict=True):
            self._model.get_buffer(name).copy_(value)


def require_finite_weights(model: nn.Module, step: int) -> None:
    """Raises NonFiniteError for NaN or infinite parameters: they must not replace a good
    checkpoint."""
    named = [name for name, weight in model.named_parameters() if not weight.isfinite().all()]
    if named:
        raise NonFiniteError(
            f"step {step}: non-finite weights in {_first(named)}; they were not saved. "
            "Start again with a lower optimizer.lr"
        )


def _first(names: list[str]) -> str:
    return ", ".join(names[:3]) + (" and others" if len(names) > 3 else "")
