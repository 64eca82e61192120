"""Training steps outside the loop, to learn about a configuration before training it."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable

from torch import Tensor

from harness.common.rows import Row
from harness.compute.compiler import require_compiler
from harness.compute.device import Compute, make_deterministic
from harness.compute.precision import require_precision
from harness.config.settings import Settings
from harness.data.dataset import Dataset
from harness.training.checks import check_settings
from harness.training.counting import require_steps
from harness.training.guards import NonFiniteError
from harness.training.trainer import Trainer


def checked_compute(settings: Settings) -> Compute:
    """The device, deterministic as in training. Raises UsageError for settings that can't train,
    and for a model that takes no steps."""
    make_deterministic()
    matmul = "blas" if settings.compile else settings.matmul
    compute = Compute.choose(settings.device, settings.precision, settings.tf32, matmul)
    check_settings(settings)
    require_steps(settings)
    require_precision(settings, compute)
    require_compiler(settings, compute)
    return compute


def probe(
    settings: Settings,
    dataset: Dataset,
    compute: Compute,
    steps: Iterable[tuple[float, tuple[Tensor, Tensor]]],
) -> list[float]:
    """The training loss before each step, nats per token. Ends after a NaN or infinite loss or
    gradient.

    steps: a factor on the peak learning rates, and inputs and targets, (B, T) each. Batch
    normalization uses the batch's statistics throughout.
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
