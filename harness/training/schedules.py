"""The learning rate as a pure function of the spent budget.

Amounts are in the budget's currency (steps, tokens, …); below 1 they are a share of the budget.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod


class Schedule(ABC):
    """The factor on the peak learning rate when `spent` of the budget `total` is spent: a linear
    warm-up over `warmup` from `warmup_start` to 1, then `after_warmup`."""

    def __init__(self, total: float, warmup: float = 0.0, warmup_start: float = 0.01) -> None:
        self.total = self.end = total
        self.warmup = amount("warmup", warmup, total)
        if not 0 <= warmup_start <= 1:
            raise ValueError(f"warmup_start={warmup_start:g} must be a share of the peak")
        self.warmup_start = warmup_start

    def __call__(self, spent: float) -> float:
        if spent < self.warmup:
            return self.warmup_start + (1 - self.warmup_start) * spent / self.warmup
        return self.after_warmup(spent)

    @abstractmethod
    def after_warmup(self, spent: float) -> float:
        """The factor after the warm-up."""

    def progress(self, spent: float) -> float:
        """From 0 at the end of the warm-up to 1 at the end of the schedule."""
        return min(1.0, (spent - self.warmup) / max(self.end - self.warmup, 1e-9))


class Constant(Schedule):
    """The peak throughout."""

    def after_warmup(self, spent: float) -> float:
        return 1.0


class _Decaying(Schedule):
    """A schedule that ends at `floor`, a share of the peak."""

    def __init__(
        self, total: float, warmup: float = 0.0, warmup_start: float = 0.01, floor: float = 0.0
    ) -> None:
        super().__init__(total, warmup, warmup_start)
        if not 0 <= floor <= 1:
            raise ValueError(f"floor={floor:g} must lie between 0 and 1: it is a share of the peak")
        self.floor = floor

    def _above_floor(self, share: float) -> float:
        return self.floor + (1 - self.floor) * share


class Cosine(_Decaying):
    """Half a cosine from 1 to `floor` (Loshchilov & Hutter 2017, arXiv 1608.03983, eq. 5).

    end: where it reaches `floor`, if not at the budget; may lie beyond the budget.
    """

    def __init__(
        self,
        total: float,
        warmup: float = 0.0,
        warmup_start: float = 0.01,
        floor: float = 0.0,
        end: float | None = None,
    ) -> None:
        super().__init__(total, warmup, warmup_start, floor)
        if end is not None:
            if end <= 0:
                raise ValueError(f"end={end:g} must be above 0")
            self.end = end * total if end < 1 else end
            if self.end <= self.warmup:
                raise ValueError(f"end={end:g} must be above the warm-up of {self.warmup:g}")

    def after_warmup(self, spent: float) -> float:
        return self._above_floor(0.5 * (1 + math.cos(math.pi * self.progress(spent))))


class Linear(_Decaying):
    """A straight line from 1 to `floor`."""

    def after_warmup(self, spent: float) -> float:
        return self._above_floor(1 - self.progress(spent))


class StableDecay(_Decaying):
    """Warm-up, stable, decay (Hu et al. 2024, arXiv 2404.06395, section 4.2): the peak until
    `decay` before the end, then a straight line to `floor`."""

    def __init__(
        self,
        total: float,
        warmup: float = 0.0,
        warmup_start: float = 0.01,
        floor: float = 0.0,
        decay: float = 0.2,
    ) -> None:
        super().__init__(total, warmup, warmup_start, floor)
        self.decay = amount("decay", decay, total)
        if self.warmup + self.decay > total:
            raise ValueError(
                f"warmup={self.warmup:g} and decay={self.decay:g} exceed the budget of {total:g}"
            )

    def after_warmup(self, spent: float) -> float:
        return self._above_floor(min(1.0, max(0.0, self.total - spent) / max(self.decay, 1e-9)))


class Step(Schedule):
    """Multiplied by `factor` at each of the amounts in `at`."""

    def __init__(
        self,
        total: float,
        at: list[float],
        factor: float = 0.1,
        warmup: float = 0.0,
        warmup_start: float = 0.01,
    ) -> None:
        super().__init__(total, warmup, warmup_start)
        if factor <= 0:
            raise ValueError(f"factor={factor:g} must be above 0")
        self.at = [amount("at", value, total) for value in at]
        self.factor = factor

    def after_warmup(self, spent: float) -> float:
        return self.factor ** sum(spent >= at for at in self.at)


class InverseSqrt(Schedule):
    """1/sqrt(spent) after the warm-up, where it is 1 (Vaswani et al. 2017, section 5.3)."""

    def __init__(self, total: float, warmup: float, warmup_start: float = 0.01) -> None:
        super().__init__(total, warmup, warmup_start)
        if self.warmup <= 0:
            raise ValueError("warmup must be above 0: the rate falls in proportion to it")

    def after_warmup(self, spent: float) -> float:
        return math.sqrt(self.warmup / spent)


def amount(name: str, value: float, total: float) -> float:
    """The value in the budget's currency."""
    if not 0 <= value < 1 and not 1 <= value <= total:
        raise ValueError(f"{name}={value:g} must lie between 0 and the budget of {total:g}")
    return value * total if value < 1 else value
