"""Where the time of a training step goes, by kind of operation.

python experiments/2026-11-29-speed/profile_step.py

The two GPTs of against.py, in fp32 and bf16. Shares of the step's time are by torch's profiler,
whose own cost is in `the rest`. `products at best`: what the counted FLOPs would take at the rate
of a product of 1024 × 1024 here, as a share of the step without the profiler.
"""

from __future__ import annotations

import statistics
import sys
from pathlib import Path
from time import perf_counter

import torch
from torch.profiler import ProfilerActivity, profile

sys.path.insert(0, str(Path(__file__).parent))
from against import CHARACTERS, LARGE, SMALL, model_words, our_step

KINDS = {
    "products": ("aten::mm", "aten::addmm", "mkldnn::_linear_pointwise"),
    "attention": ("scaled_dot_product", "aten::bmm", "aten::baddbmm", "softmax"),
    "GELU": ("gelu",),
    "norms": ("layer_norm",),
    "dropout": ("aten::random_", "aten::mul", "aten::lt"),
    "casts and copies": ("aten::copy_", "aten::cat"),
    "optimizer": ("adamw", "Optimizer", "linalg_vector_norm"),
}
STEPS = 15
CASES = [
    ("0.8 M", SMALL, 0.0, 12),
    ("10.65 M, dropout 0.2", LARGE, 0.2, 8),
]


def main() -> None:
    torch.set_num_threads(int(sys.argv[1]) if len(sys.argv) > 1 else 2)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads\n")
    print("| step | ms | products at best | " + " | ".join(KINDS) + " | the rest |")
    print("|---|---:" + "|---:" * (len(KINDS) + 2) + "|")
    for name, sizes, dropout, rows in CASES:
        for precision in ("fp32", "bf16"):
            words = [*model_words(sizes, dropout), f"precision={precision}"]
            side = our_step(words, CHARACTERS, rows, sizes["block_size"], "cpu")
            taken = []
            for _ in range(5 + STEPS):
                begun = perf_counter()
                side.work()
                taken.append(perf_counter() - begun)
            with profile(activities=[ProfilerActivity.CPU]) as profiled:
                for _ in range(STEPS):
                    side.work()
            own = dict.fromkeys(KINDS, 0.0)
            total = 0.0
            for event in profiled.key_averages():
                total += event.self_cpu_time_total
                kind = next(
                    (k for k, ops in KINDS.items() if any(o in event.key for o in ops)), None
                )
                if kind is not None:
                    own[kind] += event.self_cpu_time_total
            seconds = statistics.median(taken[5:])
            assert side.at_best is not None
            shares = [f"{each / total:.0%}" for each in own.values()]
            rest = f"{1 - sum(own.values()) / total:.0%}"
            print(
                f"| {name}, {precision} | {seconds * 1e3:.1f} | {side.at_best / seconds:.0%} | "
                f"{' | '.join(shares)} | {rest} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
