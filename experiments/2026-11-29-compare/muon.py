"""Trials of Muon for the models of experiment=compare: validation after its 1,000 steps.

python experiments/2026-11-29-compare/muon.py FILE [RATE …]

FILE: a row of JSON for each trial; those that are there are not trained again. Initialization and
decay are those of experiment=searched, and so is the budget: one seed, 1,000 steps of 12 × 64
characters. It trains as experiments/2026-11-29-time-to-loss/what_helps.py does: one thread, bf16,
and test is not read.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "2026-11-29-time-to-loss"))
from changes import Base, Change
from what_helps import rows_of, train

MODELS = ("gpt", "megabyte", "wavenet", "mlp", "gru", "rnn", "lstm")
RATES = ("3.3e-3", "1e-2", "1e-3")
TOKENS = 1000 * 12 * 64


def main() -> None:
    torch.set_num_threads(1)
    file, rates = Path(sys.argv[1]), sys.argv[2:] or RATES
    known = {(row["model"], row["rate"]) for row in rows_of(file)}
    for rate in rates:
        for model in MODELS:
            if (model, rate) in known:
                continue
            base = Base(f"model={model} experiment=searched data=tiny_shakespeare", TOKENS, {})
            change = Change(f"optimizer=muon optimizer.lr={rate}")
            row = {"model": model, "rate": rate, **train(base, change, 0, {})}
            with file.open("a") as out:
                out.write(json.dumps(row) + "\n")
            print(row, flush=True)


if __name__ == "__main__":
    main()
