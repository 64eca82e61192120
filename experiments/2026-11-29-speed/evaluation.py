"""What an exact evaluation takes beside the forward passes in it alone, in alternation.

python experiments/2026-11-29-speed/evaluation.py [--threads N] [--pairs N] [MODEL …]

tiny_shakespeare's validation split in characters, in windows of 64, half of each scored.
"""

from __future__ import annotations

import argparse
import statistics
from time import perf_counter

import numpy as np
import torch

from harness.cli.hydra_app import compose
from harness.config.model import build_model
from harness.config.settings import read_settings
from harness.diagnostics.probe import checked_compute
from harness.evaluation import score
from harness.training.run import load_dataset


def compare(name: str, pairs: int) -> None:
    settings = read_settings(compose([f"model={name}", "device=cpu"]))
    dataset, compute = load_dataset(settings), checked_compute(settings)
    size, rows = dataset.tokenizer.vocab_size, settings.eval.batch_size
    model = build_model(settings, size).eval()
    split = dataset.val
    assert split is not None
    assert model.block_size is not None
    ids = torch.from_numpy(np.asarray(split.ids).astype(np.int64))
    stride = score.resolve_stride(model.block_size, None)
    plan = score.windows(len(ids) - 1, model.block_size, stride)
    windows = torch.stack([ids[at : at + model.block_size] for at, _ in plan]).split(rows)
    found = []
    for _ in range(pairs + 1):
        begun = perf_counter()
        score.score_split(model, split, dataset.tokenizer, compute, batch_size=rows)
        between = perf_counter()
        with score.scoring(model, compute):
            for batch_BT in windows:
                model(batch_BT)
        found.append((between - begun, perf_counter() - between))
    low, middle, high = statistics.quantiles([own / bare for own, bare in found[1:]], n=4)
    own, bare = (statistics.median(each) for each in zip(*found[1:], strict=True))
    spread = f"{middle:.3f} | {low:.3f} to {high:.3f}"
    print(f"| {name} | {compute.precision} | {own:.2f} | {bare:.2f} | {spread} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=["gpt", "megabyte"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--pairs", type=int, default=7)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    print("| model | precision | evaluation, s | forward passes, s | ratio | half of the pairs |")
    print("|---|---|---:|---:|---:|---|")
    for name in given.models:
        compare(name, given.pairs)


if __name__ == "__main__":
    main()
