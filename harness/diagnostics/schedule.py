"""A drawing of the learning rate, without any training."""

from __future__ import annotations

from harness.common.terminal_plot import draw
from harness.config.settings import Settings
from harness.training.optim import planned_rates
from harness.training.schedules import Schedule


def draw_schedule(settings: Settings) -> str:
    """The rate over the budget; where parts have rates of their own, the factor on them."""
    currency, total = settings.train.budget
    schedule = settings.build("schedule", Schedule, total=total)
    peaks = {"": settings.optimizer["lr"]}
    if settings.optimizer.get("lr_of"):
        peaks = planned_rates(settings)
    one = next(iter(peaks.values())) if len(peaks) == 1 else 1.0
    rates = [one * schedule(total * column / 71) for column in range(72)]
    drawing = draw(rates, start="0", end=f"{total:g} {currency}")
    if len(peaks) > 1:
        each = (f"{peak:g} ({part or 'all else'})" for part, peak in peaks.items())
        drawing += "\ntimes " + ", ".join(each)
    return drawing
