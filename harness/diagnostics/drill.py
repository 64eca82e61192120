"""Compare a training that is killed again and again with an uninterrupted one."""

from __future__ import annotations

import os
import random
import shutil
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path

from torch import Tensor
from tqdm import tqdm

from harness.cli.hydra_app import compose
from harness.cli.tool import run_tool
from harness.common.errors import RunFailure, UsageError
from harness.common.parent import leave_with_parent
from harness.config.settings import CURRENCIES, read_settings
from harness.diagnostics import comparison
from harness.diagnostics.comparison import Trace, row_differences, run_differences
from harness.runs import metrics
from harness.runs.resume import resumed_settings
from harness.training.context import ignore
from harness.training.counting import require_steps
from harness.training.run import run

# A training of a minute, unless overridden.
DEFAULTS = (
    *("data.split=[0.98,0.01,0.01]", "eval.every=50", "eval.sample_tokens=20"),
    "checkpoint.every=10",
)
DEFAULT_BUDGET = "train.steps=200"
TIMEOUT = 600.0  # seconds without a new step
MOMENTS = ("running", "running", "writing", "writing", "starting")  # when to kill, in turn
PRELOADED = ["torch._dynamo", "torch.optim", "hydra.main", "tqdm.contrib.logging"]

Target = Callable[[list[str], Path], None]
"""What a process runs, from the overrides and its folder."""


@dataclass(frozen=True)
class Kill:
    """step: the last one recorded. writing: whether a file was half written."""

    step: int
    writing: bool


def drill(settings: list[str], kills: int, seed: int) -> int:
    """Print the verdict on stdout; 0 if both trainings ended the same, else 1.

    settings: overrides as for harness.train. seed: for the moments of the kills.
    """
    budgets = ("experiment=", *(f"train.{currency}=" for currency in CURRENCIES))
    has_budget = any(override.lstrip("+").startswith(budgets) for override in settings)
    overrides = [*DEFAULTS, *([] if has_budget else [DEFAULT_BUDGET]), *settings]
    chosen = read_settings(compose(overrides))
    if chosen.run_dir or chosen.resume:
        raise UsageError("run_dir and resume are the drill's own: it trains in a temporary folder")
    require_steps(chosen)
    if chosen.train.budget[0] == "seconds":
        raise UsageError("train.seconds never ends twice at the same step: use train.steps")
    folder = Path(tempfile.mkdtemp(prefix="drill-"))
    try:
        done = train_twice(
            overrides, folder, kills, seed, report=lambda line: print(line, file=sys.stderr)
        )
        differing = differences(folder / "whole", folder / "killed")
    except RunFailure as error:
        raise RunFailure(f"{error}; its output: {folder}/*/output.txt") from error
    writing = sum(kill.writing for kill in done)
    killed = f"killed {len(done)} times, {writing} of them while a file was being written"
    if differing:
        print(f"DIFFERENT: {killed}: {differing[0]}\nboth runs are kept: {folder}")
        return 1
    rows = len(trace(folder / "whole"))
    print(f"THE SAME: {killed}: {rows} rows, scores, samples, last checkpoint, bit for bit")
    shutil.rmtree(folder)
    return 0


# Two trainings


def train_or_resume(overrides: list[str], folder: Path) -> None:
    """Start or resume the training in folder/run, as the command line would."""
    tqdm.set_lock(threading.RLock())  # its default is a semaphore that a kill would leak
    run_dir = folder / "run"
    overrides = [*overrides, f"run_dir={run_dir}"]
    if run_dir.exists():
        overrides.append("resume=true")
    file = (folder / "batches.txt").open("a", buffering=1)

    def record(step: int, batch: tuple[Tensor, Tensor]) -> None:
        checksum = zlib.crc32(b"".join(part.numpy().tobytes() for part in batch))
        file.write(f"{step} {checksum}\n")

    def train() -> int:
        settings = read_settings(compose(overrides))
        return run(resumed_settings(settings, overrides), record)

    run_tool(train)


def train_twice(
    overrides: list[str],
    folder: Path,
    kills: int,
    seed: int = 0,
    report: Callable[[str], None] = ignore,
    target: Target = train_or_resume,
) -> list[Kill]:
    """Train in folder/whole uninterrupted, and in folder/killed with `kills` kills.

    Returns the kills; fewer if the training ended before. Raises RunFailure if a process failed.
    """
    whole, killed = folder / "whole", folder / "killed"
    started = time.monotonic()
    finish(start(target, overrides, whole), whole)
    steps, seconds = last_step(whole), time.monotonic() - started
    report(f"uninterrupted: {steps} steps in {seconds:.0f} s")

    choice = random.Random(seed)
    # In order, so that every process reaches a new step.
    targets = sorted(choice.randrange(max(1, int(0.9 * steps))) for _ in range(kills))
    done: list[Kill] = []
    for number, (first, latest) in enumerate(zip(targets, [*targets[1:], steps], strict=True)):
        moment, delay = MOMENTS[number % len(MOMENTS)], choice.random()
        process = start(target, overrides, killed)
        if moment == "running":
            delay *= seconds / max(1, steps)
        kill = _kill(process, killed, moment, first, latest, delay)
        if kill is None:
            report("the training ended before the next kill")
            break
        done.append(kill)
        half_written = ", a file half written" if kill.writing else ""
        report(f"kill {number + 1:>3}: step {kill.step:>6}{half_written}")
    finish(start(target, overrides, killed), killed)
    return done


def start(target: Target, overrides: list[str], folder: Path) -> BaseProcess:
    """Start a process, forked from one that has imported the libraries."""
    context = get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    folder.mkdir(parents=True, exist_ok=True)
    process = context.Process(target=_redirected, args=(target, overrides, folder), daemon=True)
    process.start()
    return process


def _redirected(target: Target, overrides: list[str], folder: Path) -> None:
    with (folder / "output.txt").open("a") as output:
        for descriptor in (1, 2):
            os.dup2(output.fileno(), descriptor)
    leave_with_parent()
    target(overrides, folder)


def finish(process: BaseProcess, folder: Path) -> None:
    """Wait for the process. Raises RunFailure if it failed."""
    process.join()
    if process.exitcode != 0:
        lines = (folder / "output.txt").read_text().splitlines() or ["no output"]
        raise RunFailure(f"the training ended with exit code {process.exitcode}: {lines[-1]}")


def _kill(
    process: BaseProcess, folder: Path, moment: str, first: int, latest: int, delay: float
) -> Kill | None:
    """Kill a process: while it starts; or from step `first` on, within a step or, before `latest`,
    while it writes a file. delay: seconds. None if the process ended before."""
    stale, rows = _half_written(folder), _inode(folder)

    def due() -> bool:
        if moment == "starting":
            return time.monotonic() > started + delay
        reached = last_step(folder)
        if _inode(folder) == rows or reached < first:
            return False  # rows of the process before do not count
        return moment == "running" or reached >= latest or not _half_written(folder) <= stale

    started = time.monotonic()
    while not due():
        if not process.is_alive():
            finish(process, folder)
            return None
        if time.monotonic() > started + TIMEOUT:
            process.kill()
            raise RunFailure(f"no step {first} within {TIMEOUT:.0f} s")
        time.sleep(0.0005)
    if moment == "running":
        time.sleep(delay)
    process.kill()
    process.join()
    return Kill(last_step(folder), writing=not _half_written(folder) <= stale)


def _half_written(folder: Path) -> set[str]:
    """Names of checkpoints and digests that are being written, or were when a process died."""
    path = folder / "run" / "checkpoints"
    return {name for name in os.listdir(path) if name.startswith(".")} if path.exists() else set()


def _inode(folder: Path) -> int | None:
    """Of the rows' file: each process writes a new one."""
    try:
        return (folder / "run" / metrics.FILE).stat().st_ino
    except FileNotFoundError:
        return None


def last_step(folder: Path) -> int:
    """The step of the last complete row, or -1."""
    row = metrics.last_row(folder / "run" / metrics.FILE)
    return row["step"] if row else -1


# Their comparison


def trace(folder: Path) -> Trace:
    """Each row, with its batch's checksum.

    Raises RunFailure if a step was run with two different batches.
    """
    batches: dict[int, str] = {}
    for line in (folder / "batches.txt").read_text().splitlines():
        step, _, checksum = line.partition(" ")
        if batches.setdefault(int(step), checksum) != checksum:
            raise RunFailure(f"step {step} saw two different batches: CRC {checksum} and another")
    return [
        row | ({"batch": batches.get(row["step"])} if "train/loss" in row else {})
        for row in comparison.trace(folder / "run")
    ]


def differences(whole: Path, killed: Path) -> list[str]:
    """A line for each difference between two trainings; none if they are equal bit for bit."""
    batches = [
        line for line in row_differences(trace(whole), trace(killed)) if ": batch is " in line
    ]
    return batches + run_differences(whole / "run", killed / "run")
