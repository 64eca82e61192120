"""The checkpoints of a run as a record: the score of each, and of a mean of their weights."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from harness.common.errors import UsageError
from harness.common.values import show
from harness.data.batches import extra_batches
from harness.data.dataset import Dataset
from harness.data.encoded import Split
from harness.evaluation import batch_norm
from harness.evaluation.score import Score, score_split
from harness.runs import checkpoint
from harness.runs.load import Run, weights_by_step
from harness.runs.restore import load_weights


def score_all(run: Run, split: Split, options: dict[str, Any]) -> Iterator[tuple[int, Score]]:
    """The step and the score of each checkpoint, oldest first; the run's model has its weights.
    options: of `score_split`."""
    for step, weights in weights_by_step(run):
        with checkpoint.restoring(run.folder.checkpoints):
            load_weights(run.model, weights, "model")
        yield step, score_split(run.model, split, run.tokenizer, run.compute, **options)


def averaged_count(text: str | None) -> int | None:
    """N of `--average last:N`; None without it. Raises UsageError."""
    if text is None:
        return None
    parts = re.fullmatch(r"last:(\d{1,6})", text, re.ASCII)
    if parts is None or int(parts[1]) < 2:
        raise UsageError(f"--average {show(text)} should be last:N, with N of at least 2")
    return int(parts[1])


def average_last(run: Run, count: int, dataset: Dataset) -> None:
    """Give the run's model the mean of the weights of its last checkpoints (Izmailov et al. 2018,
    arXiv 1803.05407, section 3; of latest ones, Kaddour 2022, arXiv 2209.14981), summed in float64.
    What is no floating-point number is the newest checkpoint's. Statistics of batch normalization
    are computed again, as in that section. Raises UsageError if there are too few checkpoints.
    """
    if run.model.fit is not None:
        raise UsageError(f"--average: {run.settings.names.model} counts; a mean of counts is none")
    steps: list[int] = []
    sums: dict[str, Tensor] = {}
    newest: dict[str, Any] = {}
    found = checkpoint.list_steps(run.folder.checkpoints, checkpoint.StepCheckpoint)
    for step, weights in weights_by_step(run):
        if step not in found[:count]:
            continue
        steps.append(step)
        newest = weights
        for name, value in weights.items():
            if isinstance(value, Tensor) and value.is_floating_point():
                sums[name] = sums.get(name, torch.zeros(())) + value.double()
    if len(steps) < count:
        raise UsageError(
            f"--average last:{count}: {run.folder.path} has {len(steps)} whole checkpoints, of "
            f"steps {', '.join(map(str, steps))} (checkpoint.keep=… keeps more)"
        )
    mean = {name: (total / count).to(newest[name].dtype) for name, total in sums.items()}
    with checkpoint.restoring(run.folder.checkpoints):
        load_weights(run.model, newest | mean, "model")
    plan = run.settings.train
    if batch_norm.layers(run.model) and plan.batch_norm != "batch":
        rows = plan.batch_size * plan.accumulate
        batches = extra_batches(
            dataset.train.ids, run.settings.seed, rows, plan.seq_len, dataset.row_documents
        )
        batch_norm.recompute(
            run.model,
            ((inputs_BT.to(run.compute.device), targets_BT) for inputs_BT, targets_BT in batches),
            plan.batch_norm_samples,
        )
