"""What Muon takes of a training step of the GPT of 0.8 M, beside AdamW: steps of 12 × 64 tokens of
each optimizer and precision in turns, of two, of which the second is timed.

python experiments/2026-11-28-muon-precision/share.py THREADS [fp32 bf16 …]

more than AdamW: what a step with Muon takes more, as a share of it. own: all of Muon's step, of
which AdamW of the other weights is a part. Seconds of the clock: with nothing beside.
"""

from __future__ import annotations

import statistics
import sys
from time import perf_counter

import torch
from torch import Tensor

from harness.cli.hydra_app import compose
from harness.compute.race import faster_precision
from harness.config.settings import read_settings
from harness.diagnostics.probe import checked_compute
from harness.training.trainer import Trainer

ROWS, TIME, VOCABULARY, STEPS, WARM_UP = 12, 64, 65, 60, 10


def trainer(optimizer: str, precision: str) -> Trainer:
    words = ["model=gpt", "device=cpu", f"optimizer={optimizer}", f"precision={precision}"]
    settings = read_settings(compose(words))
    return Trainer(settings, VOCABULARY, checked_compute(settings))


def seconds(each: Trainer, ids: Tensor, step: int) -> tuple[float, float]:
    """Of a step, and of the optimizer in it."""
    own = 0.0
    update = each._optimizer.step

    def timed() -> None:
        nonlocal own
        begun = perf_counter()
        update()
        own += perf_counter() - begun

    for timer in (update, timed):
        each._optimizer.step = timer  # type: ignore[method-assign]
        begun = perf_counter()
        each.step((ids[:, :-1], ids[:, 1:]), 1.0, {"step": step})
        whole = perf_counter() - begun
    each._optimizer.step = update  # type: ignore[method-assign]
    return whole, own


def main() -> None:
    torch.set_num_threads(int(sys.argv[1]))
    ids = torch.randint(VOCABULARY, (ROWS, TIME + 1), generator=torch.Generator().manual_seed(0))
    precisions = sys.argv[2:] or ["fp32", "bf16"]
    made = {(p, o): trainer(o, p) for p in precisions for o in ("adamw", "muon")}
    print(f"torch {torch.__version__}; Muon orthogonalizes in {faster_precision('cpu')}")
    print("| threads | step in | AdamW, ms | Muon, ms | more than AdamW | own, ms | own share |")
    print("|---:|---|---:|---:|---:|---:|---:|")
    taken: dict[tuple[str, str], list[tuple[float, float]]] = {key: [] for key in made}
    for step in range(STEPS):
        for key, each in made.items():
            taken[key].append(seconds(each, ids, step))
    for p in precisions:
        (adamw, _), (muon, own) = (
            (statistics.median(column) * 1e3 for column in zip(*taken[p, o][WARM_UP:], strict=True))
            for o in ("adamw", "muon")
        )
        print(
            f"| {sys.argv[1]} | {p} | {adamw:.1f} | {muon:.1f} | {1 - adamw / muon:.1%} "
            f"| {own:.1f} | {own / muon:.1%} |"
        )


if __name__ == "__main__":
    main()
