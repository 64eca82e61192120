"""The learning rate as a plot, without training."""

from __future__ import annotations

from harness.common.terminal_plot import draw
from harness.compute.meta import meta_model
from harness.config.settings import Settings
from harness.training.counting import require_steps
from harness.training.optim import configured_groups, peak_rates
from harness.training.schedules import Schedule


def draw_schedule(settings: Settings) -> str:
    """The learning rate over the budget, or with `lr_of` the factor on all rates."""
    require_steps(settings)
    currency, total = settings.train.budget
    schedule = settings.build("schedule", Schedule, total=total)
    peaks = {"": settings.optimizer["lr"]}
    if settings.optimizer.get("lr_of"):
        model = meta_model(settings)
        configured_groups(settings, model)  # raises UsageError for a part that the model lacks
        peaks = peak_rates(settings, model)
    one = next(iter(peaks.values())) if len(peaks) == 1 else 1.0
    rates = [one * schedule(total * column / 71) for column in range(72)]
    drawing = draw(rates, start="0", end=f"{total:g} {currency}")
    if len(peaks) > 1:
        each = (f"{peak:g} ({part or 'all else'})" for part, peak in peaks.items())
        drawing += "\ntimes " + ", ".join(each)
    return drawing
