"""Training on one batch until it is learnt by heart, or is not."""

from __future__ import annotations

import torch

from harness.common.errors import UsageError
from harness.common.terminal_plot import draw
from harness.compute.device import Compute, make_deterministic
from harness.compute.precision import require_precision
from harness.config.settings import Settings
from harness.data.batches import draw_batch
from harness.diagnostics.probe import probe
from harness.training.checks import check_settings
from harness.training.run import load_dataset
from zoo.language_model import LanguageModel

LEARNT = 0.1  # nats per token


def overfit(settings: Settings) -> int:
    """Print the curve on stdout; 0 if the loss came down to LEARNT, else 1. The rate is the peak
    throughout."""
    plan = settings.train
    if plan.steps is None:
        raise UsageError("overfitting is counted in steps: give train.steps")
    make_deterministic()
    compute = Compute.choose(settings.device, settings.precision, settings.tf32)
    check_settings(settings)
    require_precision(settings, compute)
    dataset = load_dataset(settings)
    rows = plan.batch_size * plan.accumulate
    batch = draw_batch(dataset.train.ids, settings.seed, 0, rows, plan.seq_len)
    losses = probe(settings, dataset, compute, [(1.0, batch)] * plan.steps)
    columns = [losses[len(losses) * column // 72] for column in range(72)]
    print(draw(columns, start="0", end=f"{len(losses)} steps"))
    field = f"receptive field {receptive}" if (receptive := _field(settings)) else "no bound"
    learnt = losses[-1] <= LEARNT
    verdict = "learnt by heart" if learnt else f"not down to {LEARNT}: more steps, another rate, or"
    verdict += "" if learnt else f" a model that sees too little ({field})"
    print(f"loss on one batch: {losses[0]:.3f} → {losses[-1]:.4f} nats per token: {verdict}")
    return 0 if learnt else 1


def _field(settings: Settings) -> int | None:
    with torch.device("meta"):
        return settings.build("model", LanguageModel, vocab_size=2).receptive_field
