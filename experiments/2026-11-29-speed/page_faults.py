"""Page faults and seconds of a training step where freed memory goes back, and where it stays.

python experiments/2026-11-29-speed/page_faults.py [--threads 2] [--processes 3] [ROW …]

Each measurement is a process of its own, in turns: with glibc's own thresholds, and with those of
harness.compute.memory. Of the steps after the first third the median. ROW: parts of names.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from time import perf_counter

import torch

from harness.compute import device

ROWS = {
    "gpt, 0.8 M, 12 × 64, bf16": "model=gpt precision=bf16",
    "gpt, 0.8 M, 12 × 64, bf16, Muon": "model=gpt precision=bf16 optimizer=muon",
    "gpt, 0.8 M, 12 × 64, fp32": "model=gpt precision=fp32",
    "megabyte, 12 × 64, bf16": "model=megabyte precision=bf16",
    "mamba2, 12 × 64, bf16": "model=mamba2 precision=bf16",
    "wavenet, 12 × 64, bf16": "model=wavenet precision=bf16",
    "gpt, 10.65 M, 8 × 256, dropout 0.2, fp32": "large precision=fp32 train.batch_size=8",
    "gpt, 10.65 M, 64 × 256, dropout 0.2, bf16": "large precision=bf16 train.batch_size=64",
    "gpt, 10.65 M, 64 × 256, dropout 0.2, fp32": "large precision=fp32 train.batch_size=64",
}
LARGE = "model.n_layer=6 model.n_head=6 model.n_embd=384 model.dropout=0.2 train.seq_len=256"


def measure(words: list[str], is_kept: bool, threads: int) -> str:
    """Milliseconds and page faults of a step, and the peak in MB."""
    from against import CHARACTERS, batch

    from harness.cli.hydra_app import compose
    from harness.config.settings import read_settings
    from harness.diagnostics.probe import checked_compute
    from harness.training.trainer import Trainer

    torch.set_num_threads(threads)
    if not is_kept:
        device.keep_freed_memory = lambda: None
    settings = read_settings(compose([*words, "device=cpu"]))
    compute = checked_compute(settings)
    trainer = Trainer(settings, CHARACTERS, compute)
    ids = batch(CHARACTERS, settings.train.batch_size, settings.train.seq_len)
    steps = 6 if settings.train.batch_size == 64 else 45
    taken = []
    for step in range(steps):
        before, begun = getrusage(RUSAGE_SELF).ru_minflt, perf_counter()
        trainer.step(ids, 1.0, {"step": step})
        taken.append((perf_counter() - begun, getrusage(RUSAGE_SELF).ru_minflt - before))
    seconds, faults = (statistics.median(each) for each in zip(*taken[steps // 3 :], strict=True))
    return f"{seconds * 1e3:.2f} {faults:.0f} {getrusage(RUSAGE_SELF).ru_maxrss / 1e3:.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="*", metavar="ROW")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--processes", type=int, default=3)
    parser.add_argument("--one", nargs=2, metavar=("WORDS", "KEPT"), help=argparse.SUPPRESS)
    given = parser.parse_intermixed_args()
    if given.one is not None:
        sys.path.insert(0, str(Path(__file__).parent))
        print(measure(given.one[0].split(), given.one[1] == "True", given.threads))
        return
    print(f"torch {torch.__version__}, {given.threads} threads\n")
    print("| step | given back: ms | page faults | peak, MB | kept: ms | page faults | peak, MB |")
    print("|---|---|---|---:|---|---|---:|")
    for name, words in ROWS.items():
        if given.rows and not any(part in name for part in given.rows):
            continue
        found: dict[bool, list[list[str]]] = {False: [], True: []}
        for _ in range(given.processes):
            for is_kept, lines in found.items():
                one = ["--one", words.replace("large", f"model=gpt {LARGE}"), str(is_kept)]
                command = [sys.executable, __file__, "--threads", str(given.threads), *one]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                lines.append(done.stdout.split())
        cells = []
        for lines in found.values():
            milliseconds, faults, peaks = zip(*lines, strict=True)
            highest = max(map(int, peaks))
            cells += [", ".join(milliseconds), ", ".join(faults), str(highest)]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
