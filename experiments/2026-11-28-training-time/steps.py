"""CPU time of a training step of each model of the head-to-head, in alternation with one of GPT.

python experiments/2026-11-28-training-time/steps.py PRECISION [MODEL …]
"""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Callable
from time import process_time
from typing import Any

import torch
import yaml

from harness.cli.hydra_app import compose
from harness.common.paths import CONF
from harness.compute.costs import step_flops
from harness.config.model import build_model
from harness.config.settings import read_settings
from harness.diagnostics.probe import checked_compute
from harness.training.trainer import Trainer
from zoo.language_model import LanguageModel

BYTES, WARM_UP, PAIRS = 256, 5, 60
RECIPE = yaml.safe_load((CONF / "experiment/head_to_head.yaml").read_text())
NAMES = RECIPE["hydra"]["sweeper"]["params"]["model"].split(",")


def stepper(name: str, precision: str) -> tuple[Callable[[], float], int]:
    """The CPU seconds of a step, and how many steps the head-to-head has."""
    chosen = ["experiment=head_to_head", f"model={name}", "device=cpu", f"precision={precision}"]
    settings = read_settings(compose(chosen))
    plan = settings.train

    def build() -> LanguageModel:
        return build_model(settings, BYTES)

    trainer = Trainer(settings, BYTES, checked_compute(settings))
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(BYTES, (plan.batch_size, plan.seq_len + 1), generator=draw)
    row: dict[str, Any] = {"step": 0}

    def step() -> float:
        begun = process_time()
        trainer.step((ids[:, :-1], ids[:, 1:]), 1.0, row)
        return process_time() - begun

    flops = plan.batch_size * step_flops(build, plan.seq_len)
    return step, math.ceil(plan.flops / flops)


def main() -> None:
    torch.set_num_threads(1)
    print("| model | a step, ms | of GPT's | half of the pairs | steps | all of them, s |")
    print("|---|---:|---:|---|---:|---:|")
    precision, *names = sys.argv[1:]
    for name in names or [each for each in NAMES if each != "ngram"]:
        (step, steps), (gpt, _) = stepper(name, precision), stepper("gpt", precision)
        pairs = [(step(), gpt()) for _ in range(WARM_UP + PAIRS)][WARM_UP:]
        seconds = statistics.median(one for one, _ in pairs)
        low, middle, high = statistics.quantiles([one / other for one, other in pairs], n=4)
        print(
            f"| {name} | {1e3 * seconds:.1f} | {middle:.2f} | {low:.2f} to {high:.2f} | {steps:,} "
            f"| {steps * seconds:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
