"""What a search tries, and what that costs."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from time import perf_counter

from harness.common.errors import UsageError
from harness.common.text import duration
from harness.config.settings import Settings
from harness.data.batches import draw_batch
from harness.data.dataset import Dataset
from harness.diagnostics.probe import checked_compute
from harness.evaluation.score import score_split
from harness.training.flops import flops_per_step, steps_of_budget
from harness.training.trainer import Trainer

Point = dict[str, float | str]
"""Values of the settings that are searched over."""

RATE, INIT, DECAY = "optimizer.lr", "init", "optimizer.weight_decay"
WARM_UP, TIMED = 2, 5  # steps


@dataclass(frozen=True)
class Stage:
    """Values of one setting, tried with the others as they were chosen so far.

    around: the values are factors on the chosen one.
    """

    name: str
    key: str
    values: tuple[float | str, ...]
    around: bool = False

    def points(self, chosen: Point) -> list[Point]:
        """What is tried for a model; what is chosen already is not tried again."""
        return [chosen | {self.key: value} for value in self._values(chosen[self.key])]

    def _values(self, now: float | str) -> list[float | str]:
        if self.around:
            assert isinstance(now, float), "factors are on numbers"
            return [float(f"{now * float(factor):.2g}") for factor in self.values]
        return [value for value in self.values if value != now]


# One setting after the other: rates by decades, then by half a decade around the best, and so on.
STAGES = (
    Stage("1-rate", RATE, (1e-3, 1e-2, 1e-1)),
    Stage("2-rate", RATE, (1 / 3, 3.0), around=True),
    Stage("3-init", INIT, ("default", "xavier")),
    Stage("4-decay", DECAY, (0.0, 0.1)),
)


def start(settings: Settings) -> Point:
    """Where a model's search begins. No rate is chosen yet, so none is left out. Raises UsageError
    for an optimizer that does not take the settings."""
    if "weight_decay" not in settings.optimizer:
        raise UsageError(f"the optimizer has no weight_decay to search over: set +{DECAY}=0.1")
    return {RATE: 0.0, INIT: settings.init, DECAY: float(settings.optimizer["weight_decay"])}


def trials_each(begin: Point) -> int:
    """The number of trainings for each model."""
    return sum(len(stage.points(begin)) for stage in STAGES)


@dataclass(frozen=True)
class PlannedCost:
    """What one training of a model takes. seconds: by the speed of this machine just now, its
    evaluations and test score included."""

    flops: float
    seconds: float


def measure(settings: Settings, dataset: Dataset) -> PlannedCost:
    """Train a few steps and score validation once; nothing is written."""
    compute = checked_compute(settings)
    trainer = Trainer(settings, dataset.tokenizer.vocab_size, compute)
    plan, seconds = settings.train, []
    for step in range(WARM_UP + TIMED):
        rows = plan.batch_size * plan.accumulate
        train, documents = dataset.train.ids, dataset.row_documents
        batch = draw_batch(train, settings.seed, step, rows, plan.seq_len, documents)
        started = perf_counter()
        trainer.step(batch, 0.0, {"step": step})
        compute.synchronize()
        seconds.append(perf_counter() - started)
    step_seconds = statistics.median(seconds[WARM_UP:])
    steps = steps_of_budget(settings, dataset, trainer.model, step_seconds)
    total = steps * step_seconds
    if dataset.val is not None:
        started = perf_counter()
        score_split(
            trainer.evaluated, dataset.val, dataset.tokenizer, compute, settings.eval.stride,
            settings.eval.batch_size,
        )  # fmt: skip
        total += (settings.eval.times(steps) + 1) * (perf_counter() - started)
    return PlannedCost(steps * flops_per_step(settings, dataset, trainer.model), total)


def plan_lines(
    costs: Mapping[str, PlannedCost], trials: int, seeds: int, workers: int
) -> list[str]:
    """The plan in words. trials: for each model. seeds: of the chosen settings."""
    jobs = trials + seeds
    flops = sum(cost.flops for cost in costs.values()) * jobs
    seconds = sum(cost.seconds for cost in costs.values()) * jobs / workers
    tried = [f"{stage.name} ({len(stage.values)})" for stage in STAGES]
    return [
        f"{len(costs)} models, each {trials} trials ({', '.join(tried)}; what is chosen "
        f"already is not tried again), and {seeds} seeds of what is chosen",
        f"{jobs * len(costs)} trainings, {flops:.3g} training FLOPs, about {duration(seconds)} "
        f"with {workers} at a time, by speeds measured just now",
        *(
            f"{model}: {cost.flops:.3g} FLOPs, {cost.seconds:.0f} s each"
            for model, cost in costs.items()
        ),
    ]
