"""Is a change that does nothing called an effect? Real trainings that differ in their seeds alone
are dealt out to the sixteen variants of an ablation of seven changes, three to each, many times.

python -m harness.train -m model=mlp optimizer.lr=3.3e-3 train.steps=200 eval.every=200 \\
    eval.sample_tokens=0 "data.split=[0.9,0.05,0.05]" "seed=range(48)" hydra.sweep.dir=FOLDER
python experiments/2026-11-29-parts/null.py FOLDER
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from harness.report.records.runs import find_runs
from harness.report.statistics.effects import Comparand, find_effects
from harness.report.statistics.ranking import compare_runs
from harness.report.where import TokenReader

CHANGES, SEEDS, TIMES = 7, 3, 40


def comparands() -> list[Comparand]:
    """Each change added to the base and left out of all, and all at once: fifteen."""
    added = [Comparand(str(n), "added", "base", f"add-{n}") for n in range(CHANGES)]
    left_out = [Comparand(str(n), "left out", f"without-{n}", "all") for n in range(CHANGES)]
    return [*added, *left_out, Comparand("all", "all at once", "base", "all")]


def main() -> None:
    """Print in how many ablations an effect was declared, and how many effects of all."""
    comparison = compare_runs(find_runs([Path(sys.argv[1])]), "val")
    (group,) = comparison.ranked
    # It compares models: two halves of the seeds of this one.
    halves = [replace(group, counted=group.counted[half::2]) for half in (0, 1)]
    reader = TokenReader(halves, "val", [])
    losses = [reader.losses(run).full for run in group.counted]
    pairs = comparands()
    names = list(dict.fromkeys(name for pair in pairs for name in (pair.without, pair.within)))
    random, declared, least = np.random.default_rng(0), [], []
    for time in range(TIMES):
        # The first deal is that of the seeds in their order.
        order = random.permutation(len(losses)) if time else np.arange(len(losses))
        dealt = {
            name: [losses[at] for at in order[SEEDS * n : SEEDS * (n + 1)]]
            for n, name in enumerate(names)
        }
        effects = find_effects(dealt, reader.tokens, pairs)
        declared.append(sum(effect.is_significant for effect in effects))
        least.append(min(effect.p for effect in effects))
    with_one = sum(map(bool, declared))
    print(f"{len(losses)} trainings, {len(names)} variants, {len(pairs)} effects")
    print(f"seeds in their order: {declared[0]} declared, least p {least[0]:.2f}")
    print(
        f"{TIMES} deals: {with_one} with an effect, {sum(declared)} of {TIMES * len(pairs)} effects"
    )


if __name__ == "__main__":
    main()
