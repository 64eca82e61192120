"""Trainings of a search: each stage is one sweep of harness.train, in a process of its own."""

from __future__ import annotations

import multiprocessing
import os
import runpy
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from harness.common.errors import UsageError
from harness.config.spelling import override
from harness.tuning.choice import by_model
from harness.tuning.plan import Point

WATCH = 2.0  # seconds
Run = Callable[[Sequence[str], bool], int]
"""Runs harness.train with these arguments, and with or without its table; returns the exit code."""


def arguments(
    tried: Mapping[str, Sequence[Point]],
    seeds: Sequence[int],
    shared: Sequence[str],
    folder: Path,
    workers: int,
) -> list[str]:
    """Of harness.train: every model with each of its points and each seed. All models have equally
    many points, and their points differ in one setting."""
    points = list(zip(*tried.values(), strict=True))
    keys = points[0][0]
    settings = []
    for key in keys:
        values = [f"'{by_model(dict(zip(tried, each, strict=True)), key)}'" for each in points]
        settings.append(f"{key}={','.join(dict.fromkeys(values))}")
    return [
        "-m", f"model={','.join(tried)}", f"seed={','.join(map(str, seeds))}", *shared, *settings,
        override("hydra.sweep.dir", str(folder)), "resume=auto",
        *(("hydra/launcher=joblib", f"hydra.launcher.n_jobs={workers}") if workers > 1 else ()),
    ]  # fmt: skip


def require_workers(workers: int) -> None:
    """Raises UsageError if trainings can't run at the same time."""
    if workers == 1:
        return
    try:
        found = find_spec("hydra_plugins.hydra_joblib_launcher") is not None
    except ModuleNotFoundError:  # no plugin of Hydra's at all
        found = False
    if not found:
        raise UsageError(f"--workers {workers} needs: pip install hydra-joblib-launcher")


def run_sweep(
    arguments: Sequence[str], table: bool, watch: Callable[[], None] = lambda: None
) -> int:
    """As `python -m harness.train` would. watch: called every few seconds meanwhile.

    A signal is passed on: the trainings save and stop. They also leave when this process is gone
    (harness.training.parent).
    """
    process = multiprocessing.get_context("spawn").Process(target=_train, args=(arguments, table))
    process.start()
    try:
        while process.exitcode is None:
            process.join(WATCH)
            watch()
    except BaseException:
        process.terminate()
        process.join()
        raise
    return process.exitcode or 0


def _train(arguments: Sequence[str], table: bool) -> None:
    if not table:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.argv = ["harness.train", *arguments]
    runpy.run_module("harness.train", run_name="__main__")
