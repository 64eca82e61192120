"""nanoGPT's CPU recipe and experiment=fast_cpu in turns on this machine: seconds of training, and
our loss.

python experiments/2026-11-29-fast-cpu/against_nanogpt.py CHECKOUT TEXT FOLDER [TURNS]

CHECKOUT: of github.com/karpathy/nanoGPT, in whose data/ the text is written as its prepare.py does.
TEXT: tiny_shakespeare. FOLDER: for our runs.
"""

from __future__ import annotations

import json
import pickle
import re
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np

STEPS, MARK = 2000, 1.8857
RECIPE = {
    "device": "cpu", "compile": False, "eval_iters": 20, "eval_interval": STEPS, "log_interval": 1,
    "block_size": 64, "batch_size": 12, "n_layer": 4, "n_head": 4, "n_embd": 128, "dropout": 0.0,
    "max_iters": STEPS, "lr_decay_iters": STEPS,
}  # fmt: skip


def prepare(checkout: Path, text: str) -> None:
    """The ids of characters in order of their code points, 90 % for training."""
    folder = checkout / "data/shakespeare_char"
    chars = sorted(set(text))
    number = {char: at for at, char in enumerate(chars)}
    ids = np.array([number[char] for char in text], np.uint16)
    cut = int(len(text) * 0.9)
    ids[:cut].tofile(folder / "train.bin")
    ids[cut:].tofile(folder / "val.bin")
    meta = {"vocab_size": len(chars), "itos": dict(enumerate(chars)), "stoi": number}
    (folder / "meta.pkl").write_bytes(pickle.dumps(meta))


def theirs(checkout: Path) -> float:
    """Seconds of its steps; one that has an evaluation counts as the median."""
    options = [f"--{name}={value}" for name, value in RECIPE.items()]
    command = [sys.executable, "train.py", "config/train_shakespeare_char.py", *options]
    done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=True)
    times = [float(each) / 1e3 for each in re.findall(r"iter \d+: .* time ([\d.]+)ms", done.stdout)]
    plain = times[1:STEPS]  # the first and the last have an evaluation
    return sum(plain) + statistics.median(plain)


def ours(folder: Path, seed: int) -> tuple[float, float]:
    """Seconds of training, and the exact validation loss in nats."""
    run = folder / f"seed-{seed}"
    command = [sys.executable, "-m", "harness.train", "experiment=fast_cpu", f"seed={seed}"]
    subprocess.run([*command, f"run_dir={run}"], check=True, capture_output=True)
    summary = json.loads((run / "summary.json").read_text())
    return summary["train"]["seconds"], summary["val"]["nats_per_token"]


def main() -> None:
    checkout, text, folder = map(Path, sys.argv[1:4])
    turns = int(sys.argv[4]) if len(sys.argv) > 4 else 3
    commit = subprocess.run(
        ["git", "-C", str(checkout), "rev-parse", "HEAD"], capture_output=True, text=True
    ).stdout.strip()
    print(f"nanoGPT {commit}")
    prepare(checkout, text.read_text())
    ratios = []
    for turn in range(turns):
        seconds, (own, loss) = theirs(checkout), ours(folder, turn)
        reached = "reached" if loss <= MARK else "not reached"
        print(
            f"turn {turn}: nanoGPT {STEPS} steps {seconds:.1f} s; ours {own:.1f} s, "
            f"{loss:.4f} nats, {MARK} {reached}; ratio {own / seconds:.3f}",
            flush=True,
        )
        ratios.append(own / seconds)
    print(f"ratio: median {statistics.median(ratios):.3f}, {min(ratios):.3f} to {max(ratios):.3f}")


if __name__ == "__main__":
    main()
