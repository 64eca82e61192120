"""Does it learn one batch by heart? What a practitioner does first: if not, something is broken.

python -m harness.overfit model=gpt train.steps=200
"""

from __future__ import annotations

import sys

from omegaconf import DictConfig

from harness import config
from harness.cli import run_hydra

LEARNT = 0.1  # nats per token


def task(cfg: DictConfig) -> int:
    """Print the curve on stdout; 0 if the loss came down to LEARNT, else 1. The rate is the peak
    throughout."""
    from harness import train
    from harness.data import draw_batch
    from harness.device import Compute, make_deterministic
    from harness.draw import draw
    from harness.errors import UsageError
    from harness.precision import require_precision
    from harness.probe import probe

    settings = config.read(cfg)
    plan = settings.train
    if plan.steps is None:
        raise UsageError("overfitting is counted in steps: give train.steps")
    make_deterministic()
    compute = Compute.choose(settings.device, settings.precision, settings.tf32)
    train.check(settings)
    require_precision(settings, compute)
    dataset = train.load_dataset(settings)
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


def _field(settings: config.Settings) -> int | None:
    import torch

    from zoo.language_model import LanguageModel

    with torch.device("meta"):
        return settings.build("model", LanguageModel, vocab_size=2).receptive_field


if __name__ == "__main__":
    sys.exit(run_hydra(task))
