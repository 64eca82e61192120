"""Trainings in processes of their own, which are to be killed, stopped or starved."""

from __future__ import annotations

import functools
from pathlib import Path

from harness.diagnostics import drill
from harness.runs import checkpoint
from harness.runs.checkpoint import StepCheckpoint
from harness.training import loop
from tests.small_runs import GPT_SMALL, SMALL, TEXT
from tests.waiting import wait_until

BATCH_NORM = ("model=mlp", "model.norm=batch_norm", "model.bias=false", "model.n_hidden=16")


def overrides(folder: Path, *more: str) -> list[str]:
    """Of a training of a second or two in a process of its own; corpus and cache in `folder`."""
    corpus = folder / "corpus.txt"
    corpus.write_text(TEXT)
    return [*SMALL, *GPT_SMALL, f"data.path={corpus}", f"cache={folder / 'cache'}", *more]


def steps_saved(folder: Path) -> list[int]:
    return checkpoint.list_steps(folder / "run" / "checkpoints", StepCheckpoint)


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in (folder / "run").rglob(".*")]


def held(step: int, until: Path, live: drill.Target, chosen: list[str], folder: Path) -> None:
    """A life that waits for a file to be there, while the batch of a step is drawn: whoever is to
    end it comes in time, however slow the machine is. A life called whole is left alone."""
    draw = loop.draw_batch

    def drawing(ids, seed, now, *rest):  # noqa: ANN001, ANN002, ANN202
        if now == step and folder.name != "whole":
            wait_until(until.exists)
        return draw(ids, seed, now, *rest)

    vars(loop)["draw_batch"] = drawing
    live(chosen, folder)


def rehearse(
    chosen: list[str], folder: Path, steps: int, kills: int, live: drill.Target, seed: int = 0
) -> list[drill.Kill]:
    """The drill, of a training that does not end before all its kills have come."""
    until = folder / "all-killed"

    def report(line: str) -> None:
        if line.startswith(f"kill {kills:>3}:"):
            until.touch()

    chosen = [*chosen, f"train.steps={steps}"]
    live = functools.partial(held, steps - 1, until, live)
    return drill.train_twice(chosen, folder, kills, seed, report, live)
