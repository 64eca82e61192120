"""Muon of each joint map by itself beside Muon of whole matrices: validation nats, by seed.

python experiments/2026-11-30-joint-maps/joint_maps.py FILE SEEDS [MODEL …]     trains, goes on
python experiments/2026-11-30-joint-maps/joint_maps.py FILE                     prints the table

FILE: a row of JSON for each training. SEEDS: 0,1,2. 12 × 64 characters a step, one thread, bf16, as
experiments/2026-11-29-time-to-loss/what_helps.py; test is not read.
"""

from __future__ import annotations

import json
import sys
from itertools import product
from pathlib import Path

import numpy as np
import torch

from harness.data.dataset import Dataset
from harness.report.statistics.paired import student

sys.path.insert(0, str(Path(__file__).parents[1] / "2026-11-29-time-to-loss"))
from changes import Base, Change
from what_helps import Row, rows_of, train

SHORT, LONG = (steps * 12 * 64 for steps in (250, 1000))
SEARCHED = "experiment=searched data=tiny_shakespeare"
# The model, its settings, the tokens of training, and Muon's rates.
CASES = {
    "gpt_modern": ("model=gpt_modern", SHORT, ("2e-3", "4e-3", "6e-3")),
    "gpt_modern, longer": ("model=gpt_modern", LONG, ("2e-3", "4e-3")),
    "mamba2": ("model=mamba2", SHORT, ("3e-3", "8e-3")),
    "gated_deltanet": ("model=gated_deltanet", SHORT, ("3e-3", "8e-3")),
    "mlstm": ("model=mlstm", SHORT, ("3e-3", "8e-3")),
    "wavenet": (f"model=wavenet {SEARCHED}", LONG, ("3.3e-3", "1e-2")),
    "gpt": (f"model=gpt {SEARCHED}", LONG, ("3.3e-3", "1e-2")),
    "megabyte": (f"model=megabyte {SEARCHED}", LONG, ("3.3e-3", "1e-2")),
}


def run(file: Path, seeds: list[int], names: list[str]) -> None:
    torch.set_num_threads(1)
    datasets: dict[str, Dataset] = {}
    known = {(row["case"], row["rate"], row["per_map"], row["seed"]) for row in rows_of(file)}
    for name, seed in product(names, seeds):
        settings, tokens, rates = CASES[name]
        for rate, per_map in product(rates, (False, True)):
            if (name, rate, per_map, seed) in known:
                continue
            change = f"optimizer=muon optimizer.lr={rate} optimizer.per_map={per_map}"
            row: Row = {"case": name, "rate": rate, "per_map": per_map, "seed": seed}
            row |= train(Base(settings, tokens, {}), Change(change), seed, datasets)
            with file.open("a") as out:
                out.write(json.dumps(row) + "\n")


def table(rows: list[Row]) -> str:
    """Differences are of the same seeds: negative where maps by themselves are better."""
    lines = [
        "| model | steps | rate | seeds | whole matrices | each map | difference | 95 % interval |",
        "|---|---:|---:|---:|---:|---:|---:|---|",
    ]
    for name, (_, tokens, rates) in CASES.items():
        for rate in rates:
            nats: dict[bool, dict[int, float]] = {False: {}, True: {}}
            for row in rows:
                if (row["case"], row["rate"]) == (name, rate):
                    nats[row["per_map"]][row["seed"]] = row["nats"]
            seeds = sorted(nats[False].keys() & nats[True].keys())
            if len(seeds) < 2:
                continue
            whole, apart = (np.array([nats[way][seed] for seed in seeds]) for way in (False, True))
            gain = apart - whole
            half = student(len(seeds) - 1) * gain.std(ddof=1) / len(seeds) ** 0.5
            spreads = [f"{each.mean():.3f} ± {each.std(ddof=1):.3f}" for each in (whole, apart)]
            lines.append(
                f"| {name} | {tokens // 768:,} | {rate} | {len(seeds)} | {' | '.join(spreads)} | "
                f"{gain.mean():+.3f} | {gain.mean() - half:+.3f} to {gain.mean() + half:+.3f} |"
            )
    return "\n".join(lines).replace("-0.", "−0.")


def main() -> None:
    file = Path(sys.argv[1])
    if len(sys.argv) > 2:
        seeds = [int(seed) for seed in sys.argv[2].split(",")]
        run(file, seeds, sys.argv[3:] or list(CASES))
    print(table(rows_of(file)))


if __name__ == "__main__":
    main()
