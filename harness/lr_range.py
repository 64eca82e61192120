"""Which learning rates work? A range test (Smith 2017, arXiv 1506.01186, section 3.3).

python -m harness.lr_range model=gpt train.steps=200

The rate rises from `optimizer.lr` / 10,000 to `optimizer.lr` · 1000 over the steps.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence

from omegaconf import DictConfig

from harness import config
from harness.cli import run_hydra

LOWEST, HIGHEST = 1e-4, 1e3  # factors on optimizer.lr


def task(cfg: DictConfig) -> int:
    """Print the smoothed loss over the rate, and the rates between which it fell, on stdout."""
    from harness import train
    from harness.data import draw_batch
    from harness.device import Compute, make_deterministic
    from harness.draw import draw
    from harness.errors import UsageError
    from harness.probe import probe

    settings = config.read(cfg)
    plan = settings.train
    if plan.steps is None or plan.steps < 20:
        raise UsageError("a range test is counted in steps, and needs 20: give train.steps")
    make_deterministic()
    compute = Compute.choose(settings.device, settings.precision, settings.tf32)
    train.check(settings)
    dataset = train.load_dataset(settings)
    factors = rising(plan.steps)
    steps = (
        (
            factor,
            draw_batch(dataset.train.ids, settings.seed, step, plan.batch_size, plan.seq_len),
        )
        for step, factor in enumerate(factors)
    )
    losses = smooth(probe(settings, dataset, compute, steps))
    peak = settings.optimizer["lr"]
    shown = [min(losses[len(losses) * column // 72], 2 * losses[0]) for column in range(72)]
    reached = peak * factors[len(losses) - 1]
    print(draw(shown, start=f"{peak * factors[0]:.1e}", end=f"optimizer.lr {reached:.1e}"))
    best = min(range(len(losses)), key=losses.__getitem__)
    # The usual rule: a tenth of where the loss is least, since beyond that it blows up.
    print(
        f"the loss is least ({losses[best]:.3f} nats per token) at {peak * factors[best]:.1e}; "
        f"a tenth of that, optimizer.lr={peak * factors[best] / 10:.1e}, is a safe peak"
    )
    return 0


def rising(steps: int) -> list[float]:
    """Factors from LOWEST to HIGHEST in equal ratios."""
    ratio = HIGHEST / LOWEST
    return [LOWEST * ratio ** (step / (steps - 1)) for step in range(steps)]


def smooth(losses: Sequence[float], keep: float = 0.9) -> list[float]:
    """An exponential moving average that starts unbiased; infinite once a loss is."""
    average, smoothed = 0.0, []
    for step, loss in enumerate(losses):
        average = keep * average + (1 - keep) * (loss if math.isfinite(loss) else math.inf)
        smoothed.append(average / (1 - keep ** (step + 1)))
    return smoothed


if __name__ == "__main__":
    sys.exit(run_hydra(task))
