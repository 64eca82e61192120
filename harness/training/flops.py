"""What a step of training costs, how many a budget allows, and what those before a fork cost."""

from __future__ import annotations

import json
import math

from harness.common.errors import UsageError
from harness.compute.costs import step_flops
from harness.compute.meta import meta_model
from harness.config.model import build_model
from harness.config.settings import Settings
from harness.data.batches import row_shape
from harness.data.dataset import Dataset
from harness.runs import checkpoint
from harness.runs.fork import Parent
from zoo.language_model import LanguageModel


def flops_per_step(settings: Settings, dataset: Dataset, model: LanguageModel) -> float:
    """FLOPs of an optimizer step. model: that of the settings."""
    plan, vocab_size = settings.train, dataset.tokenizer.vocab_size
    time, _ = row_shape(dataset.row_documents, plan.seq_len, plan.trained)
    per_row = step_flops(
        lambda: build_model(settings, vocab_size),
        time,
        plan.trained,
        decided_by=(
            json.dumps(settings.model, sort_keys=True, default=str),
            vocab_size,
            tuple(type(module) for module in model.modules()),
        ),
    )
    return plan.batch_size * plan.accumulate * per_row


def steps_of_budget(
    settings: Settings, dataset: Dataset, model: LanguageModel, step_seconds: float
) -> int:
    """How many steps of the given seconds the budget allows; the last may go past it. Raises
    UsageError for one in FLOPs of a model that costs none."""
    plan, (currency, total) = settings.train, settings.train.budget
    if currency == "steps":
        return int(total)
    if currency == "flops":
        if not (per_step := flops_per_step(settings, dataset, model)):
            raise UsageError(f"train.flops never ends: {settings.names.model} costs no FLOPs")
        return math.ceil(total / per_step)
    if currency == "seconds":
        return math.ceil(total / step_seconds)
    _, targets = row_shape(dataset.row_documents, plan.seq_len, plan.trained)
    tokens = plan.batch_size * plan.accumulate * targets
    if currency == "tokens":
        return math.ceil(total / tokens)
    return math.ceil(total / (tokens * dataset.train.bytes / len(dataset.train.ids)))


def before_fork(parent: Parent, settings: Settings, dataset: Dataset) -> dict[str, int]:
    """Of a fork's progress: what its parent's steps cost, if its own cost something else. Raises
    RunFailure for a progress that is none."""
    model = meta_model(settings)
    theirs, own = (flops_per_step(each, dataset, model) for each in (parent.settings, settings))
    progress = parent.state.progress
    with checkpoint.restoring(parent.folder.checkpoints):
        steps = parent.step - int(progress.get("steps_before_fork", 0))
        flops = int(progress.get("flops_before_fork", 0)) + steps * int(theirs)
    if theirs == own:
        return {}
    return {"steps_before_fork": parent.step, "flops_before_fork": flops}
