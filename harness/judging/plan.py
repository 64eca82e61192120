"""What a judgement may take, said before it starts: seeds and hours."""

from __future__ import annotations

from time import perf_counter

import torch

from harness.common.text import duration
from harness.compute.device import Compute
from harness.config.model import build_model
from harness.config.settings import Settings
from harness.data.dataset import Dataset
from harness.diagnostics.bench import WARM_UP, timed_loop
from harness.evaluation.score import score_split
from harness.judging.evidence import seeds_needed
from harness.training.flops import steps_of_budget

MEASURED = 10  # steps
EFFECTS = (1, 2, 4, 8)  # differences, in standard deviations of one difference


def training_seconds(settings: Settings, dataset: Dataset) -> float:
    """Of one training with its evaluations, by a few measured steps and one measured evaluation."""
    compute = Compute.choose(settings.device, settings.precision, settings.tf32, settings.matmul)
    settings = settings.replace(precision=compute.precision)
    started = perf_counter()
    _, seconds = timed_loop(settings, dataset, compute, steps=WARM_UP + MEASURED)
    # A model that counts takes one step, and no time between two.
    step = sum(seconds) / len(seconds) if seconds else perf_counter() - started
    assert dataset.val is not None, "a judgement reads validation"
    model = build_model(settings, dataset.tokenizer.vocab_size)
    steps = steps_of_budget(settings, dataset, model, step) if seconds else 1
    started = perf_counter()
    with torch.random.fork_rng([]):
        score_split(
            model.to(compute.device).eval(), dataset.val, dataset.tokenizer, compute,
            settings.eval.stride, settings.eval.batch_size,
            batch_statistics=settings.train.batch_norm == "batch",
        )  # fmt: skip
    evaluations = settings.eval.times(steps) + 2  # with that of test and the certificate's
    return float(steps * step + evaluations * (perf_counter() - started))


def plan_lines(number: int, level: float, most: int, pair_seconds: float) -> list[str]:
    """number: of the try. most: pairs of trainings. pair_seconds: of both sides."""
    lines = [
        f"try {number}: a verdict is wrong with a chance of at most {level:.3g}; validation alone "
        "is read",
        f"a pair of trainings takes about {duration(pair_seconds)}; at most {most} pairs, "
        f"{duration(most * pair_seconds)}",
    ]
    for effect in EFFECTS:
        needed = seeds_needed(effect, level)
        if needed is None or needed > most:
            words = f"more than {most} pairs"
        else:
            words = f"about {needed} pairs, {duration(needed * pair_seconds)}"
        lines.append(f"a difference of {effect}σ (σ: of one pair's difference) takes {words}")
    return lines
