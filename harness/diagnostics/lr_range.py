"""The learning rate range test (Smith 2017, arXiv 1506.01186, section 3.3)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from harness.common.errors import UsageError
from harness.common.terminal_plot import draw
from harness.compute.meta import meta_model
from harness.config.settings import Settings
from harness.data.batches import draw_batch
from harness.diagnostics.probe import checked_compute, probe
from harness.training.optim import peak_rates
from harness.training.run import load_dataset

LOWEST, HIGHEST = 1e-4, 1e3  # factors on optimizer.lr


def lr_range(settings: Settings) -> int:
    """Print the smoothed loss over the learning rate, and where it fell, on stdout; 0 if it fell,
    else 1."""
    plan = settings.train
    if plan.steps is None or plan.steps < 20:
        raise UsageError("a range test is counted in steps, and needs 20: give train.steps")
    compute = checked_compute(settings)
    peaks = peak_rates(settings, meta_model(settings))
    if not any(peaks.values()):
        raise UsageError("every rate is 0, and so are all its multiples: give optimizer.lr")
    dataset = load_dataset(settings)
    factors, rows = rising(plan.steps), plan.batch_size * plan.accumulate
    train, documents = dataset.train.ids, dataset.row_documents
    steps = (
        (factor, draw_batch(train, settings.seed, step, rows, plan.seq_len, documents))
        for step, factor in enumerate(factors)
    )
    losses = smooth(probe(settings, dataset, compute, steps))
    shown = [min(losses[len(losses) * column // 72], 2 * losses[0]) for column in range(72)]
    print(draw(shown, start=at(peaks, factors[0]), end=at(peaks, factors[len(losses) - 1])))
    begun, best = fell(losses)
    if begun == best:
        print(f"the loss fell nowhere from its {losses[0]:.3f} nats per token")
        return 1
    print(
        f"the loss fell between {at(peaks, factors[begun])} and {at(peaks, factors[best])}, "
        f"from {losses[0]:.3f} to {losses[best]:.3f} nats per token"
    )
    # The usual rule: a tenth of the rate of the least loss, beyond which it diverges.
    print(f"a tenth of the latter is a safe peak: {as_settings(peaks, factors[best] / 10)}")
    return 0


def at(peaks: dict[str, float], factor: float) -> str:
    """The label of a point on the axis: the rate, or the factor on several."""
    return as_settings(peaks, factor) if len(peaks) == 1 else f"{factor:.1e} times the rates"


def as_settings(peaks: dict[str, float], factor: float) -> str:
    """`factor` times the peak rates, as command-line settings."""
    rates = {part: f"{peak * factor:.1e}" for part, peak in peaks.items()}
    settings = [f"optimizer.lr={rates.pop('')}"] if "" in rates else []
    if rates:
        inner = ", ".join(f"{part}: {rate}" for part, rate in rates.items())
        settings.append(f"'optimizer.lr_of={{{inner}}}'")
    return " ".join(settings)


def fell(losses: Sequence[float]) -> tuple[int, int]:
    """The last step before a tenth of the fall was done, and the step of the least loss."""
    best = min(range(len(losses)), key=losses.__getitem__)
    tenth = losses[0] - 0.1 * (losses[0] - losses[best])
    return max((step for step in range(best) if losses[step] >= tenth), default=best), best


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
