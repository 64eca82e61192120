"""The learning rate as a pure function of the step."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod


class Schedule(ABC):
    """The factor on the optimizer's learning rate at each step of a training.

    steps: of the whole training. warmup: a share of it (below 1) or a number of steps. During
    warm-up the factor of step s is (s + 1) / (warmup + 1), as in nanoGPT: never zero.
    """

    def __init__(self, steps: int, warmup: float = 0.0) -> None:
        if warmup < 0 or warmup > steps:
            raise ValueError(f"warmup={warmup:g} must lie between 0 and train.steps={steps}")
        if warmup >= 1 and warmup != int(warmup):
            raise ValueError(
                f"warmup={warmup:g} must be a share below 1 or a whole number of steps"
            )
        self.steps = steps
        self.warmup = round(warmup * steps) if warmup < 1 else int(warmup)

    def __call__(self, step: int) -> float:
        if step < self.warmup:
            return (step + 1) / (self.warmup + 1)
        return self.after_warmup((step - self.warmup) / max(1, self.steps - self.warmup))

    @abstractmethod
    def after_warmup(self, progress: float) -> float:
        """The factor at `progress` from 0, warm-up's end, to 1, the training's end."""


class Constant(Schedule):
    """The peak throughout."""

    def after_warmup(self, progress: float) -> float:
        return 1.0


class Cosine(Schedule):
    """Half a cosine from 1 to `floor` (Loshchilov & Hutter 2017, arXiv 1608.03983, eq. 5)."""

    def __init__(self, steps: int, warmup: float = 0.0, floor: float = 0.0) -> None:
        super().__init__(steps, warmup)
        if not 0 <= floor <= 1:
            raise ValueError(f"floor={floor:g} must lie between 0 and 1: it is a share of the peak")
        self.floor = floor

    def after_warmup(self, progress: float) -> float:
        return self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * progress))
