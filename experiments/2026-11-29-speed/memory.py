"""Peak memory of training steps with a vocabulary of 50,257, against those without any logits.

python experiments/2026-11-29-speed/memory.py

GPT of 4 layers, 64 rows of 64 tokens, on a CPU. `without`: the same steps with the sum of the
features for a loss, so that weights, gradients, the optimizer and activations are all there is.
Each in a process of its own; what Python and torch take before the model is left out.
"""

from __future__ import annotations

import resource
import subprocess
import sys
from typing import Any

import torch
from torch import Tensor

from harness.cli.hydra_app import compose
from harness.config.settings import read_settings
from harness.diagnostics.probe import checked_compute
from harness.training import trainer

VOCAB, ROWS, TIME, STEPS = 50257, 64, 64, 3


def peak() -> float:
    """Of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def measure(which: str) -> float:
    words = [
        "model=gpt", f"train.batch_size={ROWS}", f"train.seq_len={TIME}", "device=cpu",
        "precision=fp32", *sys.argv[2:],
    ]  # fmt: skip
    settings = read_settings(compose(words))
    compute = checked_compute(settings)
    if which == "without":

        def of_features(model: Any, features_BTC: Tensor, *rest: Any) -> Tensor:
            total = features_BTC.sum()
            total.backward()
            return total.detach()

        trainer.add_gradients = of_features  # type: ignore[assignment]
    before = peak()
    made = trainer.Trainer(settings, VOCAB, compute)
    ids = torch.randint(VOCAB, (ROWS, TIME + 1), generator=torch.Generator().manual_seed(0))
    for step in range(STEPS):
        made.step((ids[:, :-1], ids[:, 1:]), 1.0, {"step": step})
    return peak() - before


def main() -> None:
    if len(sys.argv) > 1:
        print(measure(sys.argv[1]))
        return
    found = {}
    for which in ("with", "without"):
        command = [sys.executable, __file__, which]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found[which] = float(done.stdout.split()[-1])
    logits = ROWS * TIME * VOCAB * 4 / 1e6
    print(
        f"with the loss {found['with']:.0f} MB, without {found['without']:.0f} MB, ratio ", end=""
    )
    print(f"{found['with'] / found['without']:.2f}; all logits alone in fp32: {logits:.0f} MB")


if __name__ == "__main__":
    main()
