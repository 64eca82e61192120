"""What a training that nobody watches must notice by itself: numbers that are none, and jumps of
the loss; and what a step that does not happen must leave as it was."""

from __future__ import annotations

import logging
import math
import statistics
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from harness.common.errors import RunFailure
from harness.common.rows import Row

LOG = logging.getLogger("harness")
SKIPS_IN_A_ROW = 20  # more, and no better step is to be hoped for; fp16's scale is by then 2^-4
WINDOW = 64  # losses that say what is usual
RENEWED = 32  # steps between two looks at them
SPIKE = 8.0  # robust standard deviations above the usual loss
QUIET = 100  # steps between two reports of one kind


class NonFiniteError(RunFailure):
    """A loss, gradient or weight that is no number; what was saved is from before it."""


@dataclass
class Guard:
    """Looks at every step's loss and gradient norm. Part of every checkpoint, so that a resumed run
    skips, stops and reports as one that was never cut off.

    skipped: steps without an update; spikes: losses far above the usual.
    """

    skipped: int = 0
    skipped_in_a_row: int = 0
    spikes: int = 0
    limit: float = math.inf
    recent: list[float] = field(default_factory=list)
    reported: dict[str, int] = field(default_factory=dict)

    def admits(self, row: Row, model: nn.Module, skip: bool, scaled: bool) -> bool:
        """Whether the weights may be updated; to be asked before they are.

        skip: go on without the update, if not; scaled: fp16, whose overflown gradients are no fault
        but the scaler's sign to lower its scale. Raises NonFiniteError, naming the step and the
        parameters, if the run is to stop.
        """
        loss, norm, step = row["train/loss"], row["grad_norm"], row["step"]
        if math.isfinite(loss) and math.isfinite(norm):
            self.skipped_in_a_row = 0
            self._watch(step, loss)
            return True
        overflown = scaled and math.isfinite(loss)
        found = f"step {step}: {_describe(loss, norm, model)}"
        if not (skip or overflown):
            raise NonFiniteError(
                f"{found}; the weights were not updated. Lower optimizer.lr or train.clip, use "
                "precision=fp32, or go on without such steps by train.on_non_finite=skip"
            )
        if self.skipped_in_a_row == SKIPS_IN_A_ROW:
            raise NonFiniteError(
                f"{found}, as in the {SKIPS_IN_A_ROW} steps before, which were skipped"
            )
        self.skipped += 1
        self.skipped_in_a_row += 1
        if not overflown:
            self._report("skip", step, f"{found}; skipped ({self.skipped} so far)")
        return False

    def _watch(self, step: int, loss: float) -> None:
        """Count and report a loss that is far above the median of those before it, in units of
        their median deviation from it (times 1.4826: a standard deviation, were they normal)."""
        if loss > self.limit:
            self.spikes += 1
            usual = statistics.median(self.recent)
            self._report("spike", step, f"step {step}: the loss jumped to {loss:.3f} ({usual:.3f})")
        self.recent.append(loss)
        del self.recent[:-WINDOW]
        if len(self.recent) == WINDOW and step % RENEWED == 0:
            usual = statistics.median(self.recent)
            spread = 1.4826 * statistics.median(abs(other - usual) for other in self.recent)
            self.limit = usual + SPIKE * max(spread, 0.01 * abs(usual))

    def _report(self, kind: str, step: int, line: str) -> None:
        """One warning of a kind in so many steps."""
        if step - self.reported.get(kind, -QUIET) >= QUIET:
            self.reported[kind] = step
            LOG.warning(line)


class Attempt:
    """What forward passes change in a model though no update does: its buffers, such as batch
    normalization's averages. A step that is cut short or skipped leaves them as they were."""

    def __init__(self, model: nn.Module) -> None:
        saved = model.state_dict().keys()
        self._model = model
        self._names = [name for name, _ in model.named_buffers() if name in saved]
        self._before: list[Tensor] = []

    def __enter__(self) -> None:
        """Around a step's forward passes; an exception undoes what they left."""
        self._before = [self._model.get_buffer(name).clone() for name in self._names]

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is not None:
            self.undo()

    @torch.no_grad()
    def undo(self) -> None:
        """For a step that is skipped after all."""
        for name, value in zip(self._names, self._before, strict=True):
            self._model.get_buffer(name).copy_(value)


def require_finite_weights(model: nn.Module, step: int) -> None:
    """Raises NonFiniteError for NaN or infinite parameters. They are not worth saving, and must not
    replace a checkpoint that is."""
    named = [name for name, weight in model.named_parameters() if not weight.isfinite().all()]
    if named:
        raise NonFiniteError(
            f"step {step}: non-finite weights in {_first(named)}; they were not saved. "
            "Begin anew with a lower optimizer.lr"
        )


def _describe(loss: float, norm: float, model: nn.Module) -> str:
    named = [
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is not None and not parameter.grad.isfinite().all()
    ]
    where = f"gradients of {_first(named)}" if named else "loss"
    return f"loss {loss}, gradient norm {norm}; non-finite {where}"


def _first(names: list[str]) -> str:
    return ", ".join(names[:3]) + (" and others" if len(names) > 3 else "")
