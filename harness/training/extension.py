"""A training that goes on under another budget than its steps so far had.

A schedule may depend on the budget. Where the rates so far are not those of a training of the new
budget, the run is none of that budget: it says so, and is compared as another configuration.
"""

from __future__ import annotations

import math

from harness.common.rows import Row
from harness.config.settings import CURRENCIES, Settings, TrainSettings
from harness.training.context import RunContext
from harness.training.progress import Progress
from harness.training.schedules import Schedule

MOST = 1_000_000  # steps that are compared; of more, every n-th
Budget = tuple[str, float]


def note_budget(context: RunContext, progress: Progress, row: Row) -> None:
    """Before the first step that is trained now. row: what was spent so far. If the steps so far
    had a budget under which they were trained otherwise, it is entered in progress and log. The
    summary gets what progress says."""
    now, step = context.settings.train.budget, progress.step
    if progress.budget is not None:
        ((currency, total),) = progress.budget.items()
        if not _trained_alike(context.settings, (currency, total), now, step, row):
            progress.extended.append(step)
            context.report(
                f"the budget was {currency}={total:,} and is {now[0]}={now[1]:,}: the rates up to "
                f"step {step} are not those of a training of that budget, so the run is compared "
                "as another configuration (`extended` in summary.json)"
            )
    progress.budget = dict([now])
    if progress.extended:
        context.summary.extended = list(progress.extended)


def is_frozen(plan: TrainSettings, spent: float) -> bool:
    """Whether batch normalization's statistics are, once so much of the budget is spent."""
    _, total = plan.budget
    return plan.batch_norm == "frozen" and spent >= (1 - plan.batch_norm_frozen) * total


def _trained_alike(settings: Settings, before: Budget, now: Budget, steps: int, row: Row) -> bool:
    """Whether the first `steps` steps are the same under both budgets: the schedule's factor, and
    whether batch normalization is frozen. Steps cost alike in every currency."""
    if before == now:
        return True
    courses = []
    for currency, total in (before, now):
        cleared = dict.fromkeys(CURRENCIES)
        plan = settings.train.replace(**cleared | {currency: total})
        schedule = settings.build("schedule", Schedule, total=total)
        courses.append((plan, schedule, row["step" if currency == "steps" else currency]))
    for step in range(0, steps, math.ceil(steps / MOST)):
        (factor, frozen), (other, other_frozen) = (
            (schedule(spent * step / steps), is_frozen(plan, spent * step / steps))
            for plan, schedule, spent in courses
        )
        if frozen != other_frozen or not math.isclose(factor, other, rel_tol=1e-9):
            return False
    return True
