"""The optimizer step of Muon, ours in bf16 and fp32 and torch's own, in alternation in one process:
the hidden matrices of a GPT of 0.8 M parameters.

python experiments/2026-11-28-muon-precision/bench.py
"""

from __future__ import annotations

import statistics
import time

import torch

from harness.compute.race import faster_precision
from harness.training.muon import Orthogonalized

SHAPES = [(384, 128), (128, 128), (512, 128), (128, 512)] * 4
STEPS = 25


def optimizers() -> dict[str, torch.optim.Optimizer]:
    torch.manual_seed(0)
    made: dict[str, torch.optim.Optimizer] = {}
    for name in ("ours, bf16", "ours, fp32", "torch's"):
        weights = [torch.nn.Parameter(torch.randn(shape)) for shape in SHAPES]
        for weight in weights:
            weight.grad = torch.randn_like(weight)
        if name == "torch's":
            made[name] = torch.optim.Muon(weights, 0.1, 0.0, adjust_lr_fn="match_rms_adamw")
        else:
            dtype = torch.bfloat16 if "bf16" in name else torch.float32
            made[name] = Orthogonalized([{"params": weights}], 0.1, 0.0, 0.95, dtype)
    return made


def main() -> None:
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, one thread; auto is {faster_precision('cpu')} here")
    made = optimizers()
    seconds: dict[str, list[float]] = {name: [] for name in made}
    for _ in range(STEPS):
        for name, optimizer in made.items():
            start = time.process_time()  # CPU seconds: the machine may be shared
            optimizer.step()
            seconds[name].append(time.process_time() - start)
    base = statistics.median(seconds["torch's"])
    for name, each in seconds.items():
        low, median, high = (q * 1e3 for q in statistics.quantiles(each, n=4))
        print(f"{name:12} {median:7.1f} ms ({low:.1f} to {high:.1f})  {median / base / 1e3:.2f}")


if __name__ == "__main__":
    main()
