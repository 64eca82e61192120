"""Tune each recipe alike: five trainings with half of its tokens, seed 0, chosen on validation.

python experiments/2026-11-29-time-to-loss/tune.py FILE RECIPE …     trains, goes on
python experiments/2026-11-29-time-to-loss/tune.py FILE              prints the trials

The first is the start. Each other changes one thing in the best so far, and is kept if it is better
by more than GAIN.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from changes import Base, Change, whole
from what_helps import Row, rows_of, train

from harness.data.dataset import Dataset


@dataclass(frozen=True)
class Recipe:
    """tokens: of the recipe. tried: one after another."""

    start: str
    tokens: int
    tried: tuple[str, str, str, str]


GAIN = 0.002  # nats
LINEAR = "schedule=linear "
TUNED = {
    "fast_mlp": Recipe(
        LINEAR + "experiment=searched model=mlp model.activation=relu",
        3000 * 768,
        (
            "train.batch_size=6",
            "optimizer.lr=2e-3",
            "model.context=10",
            "model.n_layer=3 model.n_hidden=400",
        ),
    ),
    "fast_wavenet": Recipe(
        LINEAR + "experiment=searched model=wavenet",
        1500 * 768,
        (
            "train.batch_size=6",
            "optimizer.lr=6e-3",
            "model.dilations=[1,1,2,2,4]",
            "model.n_stack=1 model.channels_residual=136 model.channels_gate=136 "
            "model.channels_skip=136",
        ),
    ),
    "fast_megabyte": Recipe(
        LINEAR + "experiment=searched model=megabyte",
        1800 * 768,
        (
            "optimizer=muon optimizer.lr=3e-3",
            "train.batch_size=6",
            "model.kernel_sizes=[3,5,7]",
            "model.cross_patch=4",
        ),
    ),
    "fast_gpt": Recipe(
        "schedule=stable_decay schedule.decay=0.5 model=gpt_modern optimizer.lr=2e-3",
        1000 * 768,
        (
            "optimizer=muon optimizer.lr=3e-3",
            "train.batch_size=6",
            "optimizer.lr=6e-3",
            "model.n_layer=2 model.n_embd=176",
        ),
    ),
    "fast_mamba2": Recipe(
        LINEAR + "model=mamba2 optimizer.lr=1e-3 optimizer.weight_decay=0",
        650 * 768,
        (
            "optimizer=muon optimizer.lr=3e-3",
            "train.batch_size=6",
            "optimizer.lr=6e-3",
            "model.n_layer=2 model.n_embd=264 model.n_head_channels=132",
        ),
    ),
    "fast_gated_deltanet": Recipe(
        LINEAR + "model=gated_deltanet optimizer.lr=1e-3",
        640 * 768,
        (
            "optimizer=muon optimizer.lr=3e-3",
            "train.batch_size=6",
            "optimizer.lr=6e-3",
            "model.n_layer=2 model.n_embd=176 model.n_inner=400",
        ),
    ),
}


def tune(name: str, rows: list[Row], file: Path, datasets: dict[str, Dataset]) -> None:
    recipe, best, kept = TUNED[name], float("inf"), ""
    for change in ("", *recipe.tried):
        settings = f"{kept} {change}".strip()
        known = [row for row in rows if (row["recipe"], row["settings"]) == (name, settings)]
        row = known[0] if known else {"recipe": name, "change": change, "settings": settings}
        if not known:
            base = Base(recipe.start, recipe.tokens // 2, {})
            row |= train(base, Change(whole(settings)), 0, datasets)
            with file.open("a") as out:
                out.write(json.dumps(row) + "\n")
        if row["nats"] is not None and row["nats"] < best - GAIN:
            best, kept = row["nats"], settings


def table(rows: Sequence[Row]) -> str:
    lines = [
        "| recipe | tried | validation nats | CPU seconds of the steps | |",
        "|---|---|---:|---:|---|",
    ]
    best = dict[str, float]()
    for row in rows:
        name, nats = row["recipe"], row["nats"]
        better = nats is not None and nats < best.get(name, float("inf")) - GAIN
        if better:
            best[name] = nats
        title = row["change"] or TUNED[name].start
        score = "not finite" if nats is None else f"{nats:.4f}"
        seconds = f"{row['seconds']:.1f}"
        lines.append(f"| {name} | `{title}` | {score} | {seconds} | {'kept' if better else ''} |")
    return "\n".join(lines)


def main() -> None:
    file, names = Path(sys.argv[1]), sys.argv[2:]
    torch.set_num_threads(1)
    datasets: dict[str, Dataset] = {}
    for name in names:
        tune(name, rows_of(file), file, datasets)
    print(table(rows_of(file)))


if __name__ == "__main__":
    main()
