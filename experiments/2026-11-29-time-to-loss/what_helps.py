"""Train each base with one change at a time (changes.py): validation nats at the end.

python experiments/2026-11-29-time-to-loss/what_helps.py FILE SEEDS BASE …     trains, goes on
python experiments/2026-11-29-time-to-loss/what_helps.py FILE                  prints the tables

FILE: a row of JSON for each training. SEEDS: 0,1,2. One process and one thread; test is not read.
The update is the harness's (Trainer.step), and so are batches, schedules and the exact score.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import torch
from changes import BASES, SHARED, Base, Change, Phase

from harness.cli.hydra_app import compose
from harness.config.settings import Settings, read_settings
from harness.data.batches import draw_batch
from harness.data.dataset import Dataset
from harness.diagnostics.probe import checked_compute
from harness.evaluation.score import score_split
from harness.report.statistics.paired import LEVEL, holm, student, training_error
from harness.training.guards import NonFiniteError
from harness.training.run import load_dataset
from harness.training.schedules import Schedule
from harness.training.trainer import Trainer

Row = dict[str, Any]


def batches(phases: Sequence[Phase], tokens: int) -> Iterator[tuple[int, int, int]]:
    """Of each step: the tokens spent before it, its rows and their length."""
    spent = 0
    while spent < tokens:
        phase = next(each for each in phases if spent < each.until * tokens)
        yield spent, phase.rows, phase.time
        spent += phase.rows * phase.time


def train(base: Base, change: Change, seed: int, datasets: dict[str, Dataset]) -> Row:
    """Validation nats, None if training broke off, CPU seconds of all steps, and their number."""
    given = [*SHARED.split(), *base.settings.split(), *change.settings.split()]
    settings = settings_of(given, base.tokens, seed)
    compute = checked_compute(settings)
    dataset = datasets.setdefault(settings.names.data, load_dataset(settings))
    trainer = Trainer(settings, dataset.tokenizer.vocab_size, compute)
    schedule = settings.build("schedule", Schedule, total=base.tokens)
    seconds, steps, ids = 0.0, 0, dataset.train.ids
    phases = change.phases or (Phase(1, settings.train.batch_size, settings.train.seq_len),)
    for step, (spent, rows, time) in enumerate(batches(phases, base.tokens)):
        begun = process_time()
        batch = draw_batch(ids, seed, step, rows, time)
        try:
            trainer.step(batch, schedule(spent), {"step": step})
        except NonFiniteError:
            return {"nats": None, "seconds": seconds, "steps": step}
        seconds, steps = seconds + process_time() - begun, step + 1
    assert dataset.val is not None
    stride = settings.eval.stride
    score = score_split(trainer.evaluated, dataset.val, dataset.tokenizer, compute, stride, 64)
    return {"nats": score.nats_per_token, "seconds": seconds, "steps": steps}


def settings_of(given: Sequence[str], tokens: int, seed: int) -> Settings:
    """Of several values for one key the last counts."""
    last = {setting.partition("=")[0]: setting for setting in given}
    budget = [f"train.tokens={tokens}", "train.steps=null", f"seed={seed}"]
    return read_settings(compose([*last.values(), *budget]))


def rows_of(file: Path) -> list[Row]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def run(file: Path, seeds: Sequence[int], names: Sequence[str]) -> None:
    torch.set_num_threads(1)
    datasets: dict[str, Dataset] = {}
    ended = {(row["base"], row["change"], row["seed"]) for row in rows_of(file)}
    for seed, name in product(seeds, names):
        for title, change in BASES[name].changes.items():
            if (name, title, seed) in ended:
                continue
            row = {"base": name, "change": title, "seed": seed}
            row |= train(BASES[name], change, seed, datasets)
            with file.open("a") as out:
                out.write(json.dumps(row) + "\n")


def table(rows: Sequence[Row], base: str) -> str:
    """Means and standard deviations, and gains with Welch's 95 % interval, each by itself; bold
    where p is below 5 % after Holm's correction over the table."""
    found = {
        title: [row["nats"] for row in rows if (row["base"], row["change"]) == (base, title)]
        for title in BASES[base].changes
    }
    plain = found.pop("none")
    gains = {title: Gain.of(plain, own) for title, own in found.items() if None not in own and own}
    tested = [title for title, gain in gains.items() if gain.freedom]
    shown = {
        title
        for title, p in zip(tested, holm([gains[each].p for each in tested]), strict=True)
        if p < 1 - LEVEL
    }
    lines = [
        f"| {base}: change | validation nats | seeds | gain | 95 % interval |",
        "|---|---:|---:|---:|---:|",
        f"| none | {spread(plain)} | {len(plain)} |  |  |",
    ]
    for title, gain in gains.items():
        text = f"**{gain.mean:.3f}**" if title in shown else f"{gain.mean:.3f}"
        own = found[title]
        lines.append(f"| {named(title)} | {spread(own)} | {len(own)} | {text} | {gain.interval} |")
    return "\n".join(lines)


@dataclass(frozen=True)
class Gain:
    """How many nats a change gains; no degrees of freedom for a single seed."""

    mean: float
    error: float = 0.0
    freedom: float = 0.0

    @classmethod
    def of(cls, plain: Sequence[float], own: Sequence[float]) -> Gain:
        mean = statistics.fmean(plain) - statistics.fmean(own)
        if min(len(plain), len(own)) < 2:
            return cls(mean)
        both = (np.array(each)[:, None] for each in (plain, own))
        return cls(mean, *training_error(*both, np.ones(1)))

    @property
    def interval(self) -> str:
        if not self.freedom:
            return ""
        half = student(self.freedom) * self.error
        return f"{self.mean - half:.3f} to {self.mean + half:.3f}"

    @property
    def p(self) -> float:
        """Two-sided: Student's t, whose √ν·tan θ has the density cos^(ν-1) θ."""
        angles = np.linspace(0, np.pi / 2, 20_001)
        density = np.cos(angles) ** (self.freedom - 1)
        beyond = angles >= np.arctan(abs(self.mean) / self.error / np.sqrt(self.freedom))
        return float(density[beyond].sum() / density.sum())


def named(title: str) -> str:
    return f"`{title}`" if "=" in title else title


def spread(values: Sequence[float]) -> str:
    deviation = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.3f}{deviation}"


def main() -> None:
    file = Path(sys.argv[1])
    if len(sys.argv) > 2:
        run(file, [int(seed) for seed in sys.argv[2].split(",")], sys.argv[3:])
    rows = rows_of(file)
    for base in BASES:
        if any(row["base"] == base for row in rows):
            print(table(rows, base), end="\n\n")


if __name__ == "__main__":
    main()
