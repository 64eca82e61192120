"""A training that is killed again and again, compared with one that was left alone."""

from __future__ import annotations

import json
import math
import os
import random
import shutil
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from harness.cli.hydra_app import compose
from harness.cli.tool import run_tool
from harness.common.errors import RunFailure, UsageError
from harness.common.rows import strict_json
from harness.config.settings import CURRENCIES, Settings, read_settings
from harness.runs import checkpoint, metrics
from harness.runs.resume import resumed_settings
from harness.training.loop import OnBatch
from harness.training.run import run

# A training of a minute, unless told otherwise.
SMALL = (
    *("data.split=[0.98,0.01,0.01]", "eval.every=50", "eval.sample_tokens=20"),
    "checkpoint.every=10",
)
STEPS = "train.steps=200"
SCORES = ("best", "val", "test", "skipped_steps", "loss_spikes")
HISTORY = ("progress.seconds", "progress.saved_best")  # a checkpoint's, and may differ
PATIENCE = 600.0  # seconds without a step, after which a life counts as stuck
AIMS = ("running", "running", "writing", "writing", "starting")  # what to kill it at, in turn
LIBRARIES = ["torch._dynamo", "torch.optim", "hydra.main", "tqdm.contrib.logging"]

Live = Callable[[list[str], Path], None]


@dataclass(frozen=True)
class Death:
    """step: the last one recorded when it came; writing: with a file half written."""

    step: int
    writing: bool


def drill(settings: list[str], kills: int, seed: int) -> int:
    """Print the verdict on stdout; 0 if the two trainings ended the same, else 1.

    settings: overrides as for harness.train. seed: of the moments to kill at.
    """
    overrides = _with_defaults(settings)
    _check(read_settings(compose(overrides)))
    folder = Path(tempfile.mkdtemp(prefix="drill-"))
    try:
        deaths = rehearse(overrides, folder, kills, seed, _say)
        differing = differences(folder / "whole", folder / "killed")
    except RunFailure as error:
        raise RunFailure(f"{error}; its output: {folder}/*/output.txt") from error
    writing = sum(death.writing for death in deaths)
    killed = f"killed {len(deaths)} times, {writing} of them while a file was being written"
    if differing:
        print(f"DIFFERENT: {killed}: {differing[0]}\nboth runs are kept: {folder}")
        return 1
    rows = len(trace(folder / "whole"))
    print(f"THE SAME: {killed}: {rows} rows, scores, samples, last checkpoint, bit for bit")
    shutil.rmtree(folder)
    return 0


def _with_defaults(overrides: list[str]) -> list[str]:
    budgets = ("experiment=", *(f"train.{currency}=" for currency in CURRENCIES))
    given = any(override.lstrip("+").startswith(budgets) for override in overrides)
    return [*SMALL, *([] if given else [STEPS]), *overrides]


def _check(settings: Settings) -> None:
    if settings.run_dir or settings.resume:
        raise UsageError("run_dir and resume are the drill's own: it trains in a temporary folder")
    if settings.train.budget[0] == "seconds":
        raise UsageError("train.seconds ends by the clock, never twice the same: use train.steps")


def _say(line: str) -> None:
    print(line, file=sys.stderr)


# Two trainings


def rehearse(
    overrides: list[str],
    folder: Path,
    kills: int,
    seed: int = 0,
    report: Callable[[str], None] = lambda line: None,
    live: Live | None = None,
) -> list[Death]:
    """Train in folder/whole undisturbed, and in folder/killed under `kills` kills.

    live: what each life does, if not train. Returns the deaths; there are fewer if the training
    ended before. Raises RunFailure if a life ended badly by itself.
    """
    live = live or train_or_go_on
    whole, killed = folder / "whole", folder / "killed"
    started = time.monotonic()
    finish(begin(live, overrides, whole), whole)
    steps = reached(whole)
    pace = (time.monotonic() - started) / max(1, steps)
    report(f"left alone: {steps} steps in {time.monotonic() - started:.0f} s")

    choice = random.Random(seed)
    # In order, so that every life has a step to come to that the one before did not see.
    targets = sorted(choice.randrange(max(1, int(0.9 * steps))) for _ in range(kills))
    deaths: list[Death] = []
    for number, target in enumerate(targets):
        aim, delay = AIMS[number % len(AIMS)], choice.random()
        latest = targets[number + 1] if number + 1 < kills else steps
        death = _kill(begin(live, overrides, killed), killed, target, latest, aim, delay, pace)
        if death is None:
            report("the training ended before the next kill")
            break
        deaths.append(death)
        while_writing = ", a file half written" if death.writing else ""
        report(f"kill {number + 1:>3}: step {death.step:>6}{while_writing}")
    finish(begin(live, overrides, killed), killed)
    return deaths


def train_or_go_on(overrides: list[str], folder: Path) -> None:
    """One life of the training in folder/run, as the command line would begin it or go on."""
    tqdm.set_lock(threading.RLock())  # its own is a semaphore that a kill would leave behind
    run_dir = folder / "run"
    overrides = [*overrides, f"run_dir={run_dir}"]
    if run_dir.exists():
        overrides.append("resume=true")
    recording = _recording(folder / "batches.txt")

    def train() -> int:
        settings = read_settings(compose(overrides))
        if settings.resume:
            settings = resumed_settings(settings, overrides)
        return run(settings, recording)

    run_tool(train)


def _recording(path: Path) -> OnBatch:
    """Leaves a line for each batch: its step and its checksum."""
    file = path.open("a", buffering=1)

    def record(step: int, batch: tuple[Tensor, Tensor]) -> None:
        checksum = zlib.crc32(b"".join(part.numpy().tobytes() for part in batch))
        file.write(f"{step} {checksum}\n")

    return record


def begin(live: Live, overrides: list[str], folder: Path) -> BaseProcess:
    """Start a life. Each is forked from a clean process that has imported the libraries once."""
    context = get_context("forkserver")
    context.set_forkserver_preload(LIBRARIES)
    folder.mkdir(parents=True, exist_ok=True)
    process = context.Process(target=_quietly, args=(live, overrides, folder), daemon=True)
    process.start()
    return process


def _quietly(live: Live, overrides: list[str], folder: Path) -> None:
    with (folder / "output.txt").open("a") as output:
        for descriptor in (1, 2):
            os.dup2(output.fileno(), descriptor)
    live(overrides, folder)


def finish(process: BaseProcess, folder: Path) -> None:
    process.join()
    if process.exitcode != 0:
        lines = (folder / "output.txt").read_text().splitlines() or ["nothing was said"]
        raise RunFailure(f"the training ended with exit code {process.exitcode}: {lines[-1]}")


def _kill(
    process: BaseProcess,
    folder: Path,
    target: int,
    latest: int,
    aim: str,
    delay: float,
    pace: float,
) -> Death | None:
    """Kill a life: as it starts; or from step `target` on, within a step or, before `latest`, while
    it writes a file. None if it ended before by itself."""
    stale, rows = set(_half_written(folder)), _inode(folder)

    def due() -> bool:
        if aim == "starting":
            return time.monotonic() > started + delay
        if _inode(folder) == rows or reached(folder) < target:
            return False  # rows of the life before do not count
        return (
            aim == "running" or reached(folder) >= latest or not stale >= {*_half_written(folder)}
        )

    started = time.monotonic()
    while not due():
        if not process.is_alive():
            finish(process, folder)
            return None
        if time.monotonic() > started + PATIENCE:
            process.kill()
            raise RunFailure(f"no step {target} within {PATIENCE:.0f} s")
        time.sleep(0.0005)
    if aim == "running":
        time.sleep(delay * pace)
    process.kill()
    process.join()
    return Death(reached(folder), writing=not stale >= {*_half_written(folder)})


def _half_written(folder: Path) -> Iterator[str]:
    """Names of checkpoints and digests that are being written, or were when a life ended."""
    path = folder / "run" / "checkpoints"
    return (
        (name for name in os.listdir(path) if name.startswith(".")) if path.exists() else iter(())
    )


def _inode(folder: Path) -> int | None:
    """Of the rows' file: each life begins one of its own."""
    try:
        return (folder / "run" / metrics.FILE).stat().st_ino
    except FileNotFoundError:
        return None


def reached(folder: Path) -> int:
    """The step of the last whole row, or -1."""
    row = metrics.last_row(folder / "run" / metrics.FILE)
    return row["step"] if row else -1


# Their comparison


def trace(folder: Path) -> list[dict[str, Any]]:
    """Of every row its step, its numbers as hexadecimal floats, and its batch's checksum.

    Raises RunFailure if one step saw two different batches in two lives.
    """
    batches: dict[int, str] = {}
    for line in (folder / "batches.txt").read_text().splitlines():
        step, _, checksum = line.partition(" ")
        if batches.setdefault(int(step), checksum) != checksum:
            raise RunFailure(f"step {step} saw two different batches: CRC {checksum} and another")
    return [
        {
            "step": row["step"],
            **{name: _hex(value) for name, value in row.items() if name not in ("step", "seconds")},
            **({"batch": batches.get(row["step"])} if "train/loss" in row else {}),
        }
        for _, row in metrics.rows(folder / "run" / metrics.FILE)
        if row is not None
    ]


def _hex(value: Any) -> str:
    return float(value).hex() if isinstance(value, int | float) else strict_json(value)


def differences(whole: Path, killed: Path) -> list[str]:
    """Where two trainings differ, one line each; empty if they are the same bit for bit."""
    found = []
    one, other = trace(whole), trace(killed)
    found += [
        f"step {a['step']}: {name} is {b.get(name)}, not {a.get(name)}"
        for a, b in zip(one, other, strict=False)
        for name in {**a, **b}
        if a.get(name) != b.get(name)
    ]
    if len(one) != len(other):
        found.append(f"{len(other)} rows, not {len(one)}")
    summaries = [json.loads((f / "run" / "summary.json").read_text()) for f in (whole, killed)]
    found += [
        f"summary.json: {name} is {summaries[1].get(name)}, not {summaries[0].get(name)}"
        for name in (*SCORES, "status")
        if summaries[0].get(name) != summaries[1].get(name)
    ]
    samples = [(f / "run" / "samples.txt").read_bytes() for f in (whole, killed)]
    found += [] if samples[0] == samples[1] else ["samples.txt differs"]
    last, other_last = (checkpoint.load(f / "run" / "checkpoints", "step") for f in (whole, killed))
    found += [
        f"the last checkpoint: {key} differs"
        for key in _differing(last, other_last)
        if not key.startswith(HISTORY)
    ]
    return found


def _differing(one: Any, other: Any, key: str = "") -> Iterator[str]:
    """The keys at which two nests of tensors and plain values differ."""
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        same = (one.dtype, one.shape) == (other.dtype, other.shape)
        same = same and torch.equal(_bits(one), _bits(other))
    elif isinstance(one, dict) and isinstance(other, dict):
        for name in {**one, **other}:
            yield from _differing(one.get(name), other.get(name), f"{key}.{name}".lstrip("."))
        return
    elif isinstance(one, Sequence) and isinstance(other, Sequence) and not isinstance(one, str):
        yield from _differing(dict(enumerate(one)), dict(enumerate(other)), key)
        return
    else:
        same = one == other or (isinstance(one, float) and math.isnan(one) and math.isnan(other))
    if not same:
        yield key


def _bits(tensor: Tensor) -> Tensor:

    return tensor.reshape(-1).view(torch.uint8)
