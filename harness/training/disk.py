"""How much disk the checkpoints of a training will take, said before it begins."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

from harness.common.errors import UsageError
from harness.compute.costs import parameters
from harness.compute.meta import meta_model
from harness.config.settings import Settings
from harness.data.batches import row_shape
from harness.data.encoded import Documents
from harness.training.optim import state_size


def checkpoints_to_keep(
    settings: Settings, vocab_size: int, documents: Documents | None = None
) -> str | None:
    """A line that says how much the checkpoints take that `checkpoint.keep` keeps, with the best
    weights of each; None if it keeps none. documents: those that are rows of training, if any.
    Raises UsageError if the disk has less free."""
    plan, model = settings.checkpoint, meta_model(settings, vocab_size)
    if plan.keep == "latest" or model.fit is not None:
        return None
    weights = 4 * parameters(model)["total"]
    copies = 1 if settings.train.ema is None else 2
    each = weights * copies + 4 * state_size(settings, model)
    shown = ",".join(map(str, plan.keep)) if isinstance(plan.keep, list) else plan.keep
    line = f"checkpoint.keep={shown}: each takes {each / 1e6:,.1f} MB"
    steps = _steps(settings, documents)
    if steps is None:
        return (
            f"{line}; how many there will be is not known of a budget of {settings.train.budget[0]}"
        )
    if isinstance(plan.keep, list):
        count = len({step for step in plan.keep if step <= steps})
    else:
        count = steps // plan.every if plan.keep == "all" else steps.bit_length()
    needed, free = count * (each + weights), shutil.disk_usage(_disk(settings)).free
    line += (
        f", and {count} of them, each with the best weights so far, at most {needed / 1e6:,.1f} MB "
        f"({free / 1e6:,.0f} MB are free)"
    )
    if needed > free:
        raise UsageError(f"{line}: keep fewer, or raise checkpoint.every")
    return line


def _steps(settings: Settings, documents: Documents | None) -> int | None:
    """How many the budget buys; None where that is not known before."""
    plan, (currency, total) = settings.train, settings.train.budget
    _, targets = row_shape(documents, plan.seq_len, plan.trained)
    targets *= plan.batch_size * plan.accumulate
    return {"steps": int(total), "tokens": math.ceil(total / targets)}.get(currency)


def _disk(settings: Settings) -> Path:
    """The nearest folder that is there already of where the checkpoints will lie."""
    path = Path(settings.checkpoint_dir or settings.run_dir or "runs").absolute()
    return next(parent for parent in (path, *path.parents) if parent.exists())
