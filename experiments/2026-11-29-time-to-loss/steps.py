"""CPU time of a step with each change, in alternation with one of its base; medians of the ratios.

python experiments/2026-11-29-time-to-loss/steps.py BASE …

One thread. Changes of the batch are left out: their tokens a step differ.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from time import process_time

import torch
from changes import BASES, SHARED, Base
from what_helps import settings_of

from harness.data.batches import draw_batch
from harness.diagnostics.probe import checked_compute
from harness.training.run import load_dataset
from harness.training.trainer import Trainer

WARM_UP, PAIRS = 4, 24


def stepper(base: Base, change: str) -> Callable[[int], float]:
    """CPU seconds of the step of this number."""
    given = [*SHARED.split(), *base.settings.split(), *base.changes[change].settings.split()]
    settings = settings_of(given, base.tokens, 0)
    compute, dataset = checked_compute(settings), load_dataset(settings)
    trainer = Trainer(settings, dataset.tokenizer.vocab_size, compute)
    plan = settings.train

    def step(number: int) -> float:
        batch = draw_batch(dataset.train.ids, 0, number, plan.batch_size, plan.seq_len)
        begun = process_time()
        trainer.step(batch, 1.0, {"step": number})
        return process_time() - begun

    return step


def main() -> None:
    torch.set_num_threads(1)
    print("| base | change | of the base's step | half of the pairs |\n|---|---|---:|---|")
    for name in sys.argv[1:]:
        base = BASES[name]
        plain = stepper(base, "none")
        for title in [each for each, change in base.changes.items() if not change.phases]:
            own = stepper(base, title)
            pairs = [(own(number), plain(number)) for number in range(WARM_UP + PAIRS)][WARM_UP:]
            low, middle, high = statistics.quantiles([one / other for one, other in pairs], n=4)
            print(f"| {name} | {title} | {middle:.2f} | {low:.2f} to {high:.2f} |", flush=True)


if __name__ == "__main__":
    main()
