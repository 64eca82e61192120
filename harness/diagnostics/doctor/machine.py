"""What a machine is good for: how fast it multiplies, and how long the zoo's models take."""

from __future__ import annotations

import math
import os
import statistics
from time import perf_counter

import torch

from harness.common.errors import UsageError
from harness.compute.costs import step_flops
from harness.compute.device import DTYPES, Compute
from harness.config.model import build_model
from harness.config.settings import Settings
from harness.data.batches import draw_batch
from harness.diagnostics.doctor.trainings import VOCABULARY
from harness.training.memory import require_memory
from harness.training.trainer import Trainer
from zoo.language_model import LanguageModel

TRIALS = 5
SIZES = {"cpu": 1024, "mps": 2048, "cuda": 8192}  # of the matrices that are multiplied
LONGEST = 5.0  # seconds of a step that is still timed


def product_rate(compute: Compute) -> float | None:
    """Floating-point operations a second of the product of two large matrices, the best of a few;
    None where there is no kernel."""
    size = SIZES[compute.device.type]
    try:
        a, b = torch.randn(2, size, size, device=compute.device).to(DTYPES[compute.precision])
        best = math.inf
        for _ in range(TRIALS):
            compute.synchronize()
            started = perf_counter()
            a @ b
            compute.synchronize()
            best = min(best, perf_counter() - started)
    except RuntimeError:
        return None
    return 2 * size**3 / best


def busy() -> str | None:
    """A line that says that other processes make what is measured too slow; None if none do."""
    cores = os.cpu_count() or 1
    load = os.getloadavg()[0]
    if load < 0.5 * cores + 1:
        return None
    return f"this machine is busy (load {load:.1f} on {cores} cores): it is faster than measured"


def training_seconds(settings: Settings, compute: Compute, rate: float) -> tuple[float | None, str]:
    """How long the training of these settings takes, and how that is known: its steps, timed; for
    steps of many seconds, their FLOPs at `rate`. None, and the reason, if it can't be trained."""
    plan = settings.train
    try:
        require_memory(settings, VOCABULARY, compute.device)
    except UsageError:
        return None, "too little memory"

    def build() -> LanguageModel:
        return build_model(settings, VOCABULARY)

    rows = plan.batch_size * plan.accumulate
    step = rows * step_flops(build, plan.seq_len, plan.trained) / rate
    _, steps = plan.budget
    if step > LONGEST:
        return steps * step, "at least, by its FLOPs"
    trainer = Trainer(settings, VOCABULARY, compute)
    ids = torch.randint(VOCABULARY, (100_000,), generator=torch.Generator().manual_seed(0)).numpy()
    seconds = []
    for number in range(3):
        batch = draw_batch(ids.astype("uint16"), 0, number, rows, plan.seq_len)
        compute.synchronize()
        started = perf_counter()
        trainer.step(batch, 1.0, {"step": number})
        compute.synchronize()
        seconds.append(perf_counter() - started)
        if seconds[0] > LONGEST:
            break
    return steps * statistics.median(seconds[1:] or seconds), "timed"
