"""Training on one batch until the model has memorized it."""

from __future__ import annotations

from harness.common.errors import UsageError
from harness.common.terminal_plot import draw
from harness.compute.meta import meta_model
from harness.config.settings import Settings
from harness.data.batches import draw_batch
from harness.diagnostics.probe import checked_compute, probe
from harness.training.run import load_dataset

LEARNT = 0.1  # nats per token


def overfit(settings: Settings) -> int:
    """Train at the peak learning rate and print the loss on stdout; 0 if it came down to LEARNT,
    else 1."""
    plan = settings.train
    if plan.steps is None:
        raise UsageError("overfitting is counted in steps: give train.steps")
    compute = checked_compute(settings)
    dataset = load_dataset(settings)
    rows = plan.batch_size * plan.accumulate
    train, documents = dataset.train.ids, dataset.row_documents
    batch = draw_batch(train, settings.seed, 0, rows, plan.seq_len, documents)
    losses = probe(settings, dataset, compute, [(1.0, batch)] * plan.steps)
    columns = [losses[len(losses) * column // 72] for column in range(72)]
    print(draw(columns, start="0", end=f"{len(losses)} steps"))
    learnt = losses[-1] <= LEARNT
    verdict = "learnt by heart"
    if not learnt:
        receptive = meta_model(settings, vocab_size=2).receptive_field
        field = f"receptive field {receptive}" if receptive else "no bound"
        verdict = f"not down to {LEARNT}: more steps, another rate, or"
        verdict += f" a model that sees too little ({field})"
    print(f"loss on one batch: {losses[0]:.3f} → {losses[-1]:.4f} nats per token: {verdict}")
    return 0 if learnt else 1
