"""Trainings of a search: each stage is one sweep of harness.train, in a process of its own."""

from __future__ import annotations

import multiprocessing
import os
import runpy
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from harness.config.spelling import override
from harness.training.devices import named_devices
from harness.tuning.choice import by_model
from harness.tuning.plan import Point

WATCH = 2.0  # seconds
Run = Callable[[Sequence[str], bool], int]
"""Runs harness.train with these arguments, and with or without its table; returns the exit code."""
Workers = int | str | list[str]
"""How many trainings at a time, or the devices for one each: `sweep.devices`."""


def arguments(
    tried: Mapping[str, Sequence[Point]],
    seeds: Sequence[int],
    shared: Sequence[str],
    folder: Path,
    workers: Workers,
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
        *on_devices(workers),
    ]  # fmt: skip


def at_a_time(workers: Workers, device: str) -> int:
    """How many trainings. device: of their settings. Raises UsageError for devices that are not
    here."""
    return max(1, len(named_devices(workers, device)))


def on_devices(workers: Workers) -> list[str]:
    """The setting of harness.train that runs so many at a time."""
    listed = f"[{','.join(workers)}]" if isinstance(workers, list) else workers
    return [] if workers == 1 else [f"sweep.devices={listed}"]


def run_sweep(
    arguments: Sequence[str], table: bool, watch: Callable[[], None] = lambda: None
) -> int:
    """As `python -m harness.train` would. watch: called every few seconds meanwhile.

    A signal is passed on: the trainings save and stop. They also leave when this process is gone
    (harness.common.parent).
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
