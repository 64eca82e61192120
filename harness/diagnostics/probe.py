"""A few steps outside the loop, to learn about a configuration before training it."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable

from torch import Tensor

from harness.common.rows import Row
from harness.compute.device import Compute
from harness.config.settings import Settings
from harness.data.dataset import Dataset
from harness.training.guards import NonFiniteError
from harness.training.trainer import Trainer


def probe(
    settings: Settings,
    dataset: Dataset,
    compute: Compute,
    steps: Iterable[tuple[float, tuple[Tensor, Tensor]]],
) -> list[float]:
    """The loss (nats per trained token, as the loop logs it) before each step; a step is a factor
    on the peak rates, and a step's inputs and targets, (B, T) each. Ends early at a NaN or infinite
    loss, which is the last, or gradient.

    Steps are those of the loop. Batch normalization has its batch's statistics throughout.
    """
    if settings.train.batch_norm == "frozen":
        print("train.batch_norm=frozen: no step here has frozen statistics", file=sys.stderr)
    trainer = Trainer(settings, dataset.tokenizer.vocab_size, compute)
    losses: list[float] = []
    for step, (factor, batch) in enumerate(steps):
        row: Row = {"step": step}
        try:
            trainer.step(batch, factor, row)
        except NonFiniteError:
            return [*losses, row["train/loss"]]
        losses.append(row["train/loss"])
        if not math.isfinite(losses[-1]):
            break
    return losses
