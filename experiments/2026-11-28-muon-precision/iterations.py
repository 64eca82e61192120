"""Three iterations of Muon beside the published five: validation nats after training, by seed.

python experiments/2026-11-28-muon-precision/iterations.py FILE SEEDS [MODEL …]     trains, goes on
python experiments/2026-11-28-muon-precision/iterations.py FILE                     prints the table

FILE: a row of JSON for each training, without nats if it broke off. SEEDS: 0,1,2. gpt_modern takes
250 steps at each of three rates, the models of experiment=compare 1,000 at the rate they have
there; 12 × 64 characters a step. It trains as experiments/2026-11-29-time-to-loss/what_helps.py
does: one thread, bf16, and test is not read.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch

from harness.report.statistics.paired import student

sys.path.insert(0, str(Path(__file__).parents[1] / "2026-11-29-time-to-loss"))
from changes import TRANSFORMER, Base, Change
from what_helps import Row, rows_of, train

RATES = {
    "gpt_modern": ("2e-3", "4e-3", "6e-3"),
    "gpt": ("1e-2",),
    "megabyte": ("3.3e-3",),
    "wavenet": ("3.3e-3",),
    "mlp": ("3.3e-3",),
    "lstm": ("1e-2",),
    "gru": ("3.3e-3",),
    "rnn": ("3.3e-3",),
}


def base_of(model: str) -> Base:
    if model == "gpt_modern":
        return Base("model=gpt_modern", TRANSFORMER.tokens, {})
    return Base(f"model={model} experiment=searched data=tiny_shakespeare", 1000 * 12 * 64, {})


def run(file: Path, seeds: list[int], models: list[str]) -> None:
    torch.set_num_threads(1)
    known = {(row["model"], row["rate"], row["iterations"], row["seed"]) for row in rows_of(file)}
    for model in models:
        for seed in seeds:
            for rate in RATES[model]:
                for iterations in (3, 5):
                    if (model, rate, iterations, seed) in known:
                        continue
                    settings = f"optimizer=muon optimizer.lr={rate} optimizer.iterations="
                    row: Row = {"model": model, "rate": rate, "iterations": iterations}
                    row |= {"seed": seed}
                    row |= train(base_of(model), Change(f"{settings}{iterations}"), seed, {})
                    with file.open("a") as out:
                        out.write(json.dumps(row) + "\n")
                    print(row, flush=True)


def table(rows: list[Row]) -> str:
    """Differences are of the same seed: positive where three iterations end behind. Each interval
    by itself, by Student's t."""
    lines = [
        "| model | rate | seeds | five iterations | three | three minus five | 95 % interval |",
        "|---|---:|---:|---:|---:|---:|---|",
    ]
    broken_off: list[str] = []
    for model, rates in RATES.items():
        for rate in rates:
            nats: dict[int, dict[int, float | None]] = {3: {}, 5: {}}
            for row in rows:
                if (row["model"], row["rate"]) == (model, rate):
                    nats[row["iterations"]][row["seed"]] = row["nats"]
            for n, ended in nats.items():
                if broken := [seed for seed, value in ended.items() if value is None]:
                    broken_off.append(f"{model}, {rate}, {n} iterations: seeds {broken} broke off")
            seeds = sorted(
                seed for seed, nat in nats[3].items() if None not in (nat, nats[5].get(seed))
            )
            if len(seeds) < 2:
                continue
            three, five = (np.array([nats[n][seed] for seed in seeds], dtype=float) for n in (3, 5))
            apart = three - five
            half = student(len(seeds) - 1) * apart.std(ddof=1) / len(seeds) ** 0.5
            spreads = [f"{each.mean():.3f} ± {each.std(ddof=1):.3f}" for each in (five, three)]
            lines.append(
                f"| {model} | {rate} | {len(seeds)} | {' | '.join(spreads)} | {apart.mean():+.4f} "
                f"| {apart.mean() - half:+.4f} to {apart.mean() + half:+.4f} |"
            )
    return "\n".join([*lines, "", *broken_off])


def main() -> None:
    file = Path(sys.argv[1])
    if len(sys.argv) > 2:
        seeds = [int(seed) for seed in sys.argv[2].split(",")]
        run(file, seeds, sys.argv[3:] or list(RATES))
    print(table(rows_of(file)))


if __name__ == "__main__":
    main()
