"""Muon's share of a training step of the GPT of 0.8 M, beside AdamW's, in CPU seconds: the machine
may be shared. Steps of 12 × 64 tokens, each optimizer and precision in its turn.

python experiments/2026-11-28-muon-precision/share.py [fp32 bf16 …]
"""

from __future__ import annotations

import statistics
import sys
from time import process_time

import torch

from harness.cli.hydra_app import compose
from harness.compute.race import faster_precision
from harness.config.settings import read_settings
from harness.diagnostics.probe import checked_compute
from harness.training.trainer import Trainer

ROWS, TIME, VOCABULARY, STEPS, WARM_UP = 12, 64, 65, 25, 5


def trainer(optimizer: str, precision: str) -> Trainer:
    words = ["model=gpt", "device=cpu", f"optimizer={optimizer}", f"precision={precision}"]
    settings = read_settings(compose(words))
    return Trainer(settings, VOCABULARY, checked_compute(settings))


def main() -> None:
    torch.set_num_threads(1)
    ids = torch.randint(VOCABULARY, (ROWS, TIME + 1), generator=torch.Generator().manual_seed(0))
    precisions = sys.argv[1:] or ["fp32", "bf16"]
    made = {(o, p): trainer(o, p) for o in ("adamw", "muon") for p in precisions}
    print(f"torch {torch.__version__}; Muon orthogonalizes in {faster_precision('cpu')}")
    whole: dict[tuple[str, str], list[float]] = {key: [] for key in made}
    own: dict[tuple[str, str], list[float]] = {key: [] for key in made}
    for step in range(STEPS):
        for key, each in made.items():
            began = process_time()
            each.step((ids[:, :-1], ids[:, 1:]), 1.0, {"step": step})
            whole[key].append(process_time() - began)
            began = process_time()
            each._optimizer.step()  # once more, of gradients that are zero
            own[key].append(process_time() - began)
    for key in made:
        of_step, of_optimizer = (
            statistics.median(seconds[key][WARM_UP:]) * 1e3 for seconds in (whole, own)
        )
        print(
            f"{key[0]:6} {key[1]}: step {of_step:5.1f} ms, optimizer {of_optimizer:4.1f} ms, "
            f"{of_optimizer / of_step:.0%}"
        )


if __name__ == "__main__":
    main()
