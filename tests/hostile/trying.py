"""Every command that reads a run, tried on a hostile folder in a process of its own."""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep

from harness.live.watch import LiveRuns
from tests.conftest import TOOLS
from tests.hostile import folders

SECONDS = 120  # after which a command hangs
MEMORY = 2 << 30  # bytes above what the process that is forked has


def live(folder: Path) -> None:
    """What the page asks of every run: the list, the run's page, its curves."""
    runs = LiveRuns([folder.parent])
    found = runs.look()
    for run in found:
        print(json.dumps(run.card))
        print(json.dumps(run.details()))
        metrics = runs.metrics(run)
        metrics.read()
        print(json.dumps([metrics.points(name, "step", 100, 0, 99)
                          for name in metrics.names()[:10]]))  # fmt: skip
    sys.exit(0 if found else 1)


def tool(name: str, *arguments: str) -> Callable[[Path], None]:
    def run(folder: Path) -> None:
        sys.argv = [name, *(argument.format(folder=folder) for argument in arguments)]
        TOOLS[name]()

    return run


COMMANDS: dict[str, Callable[[Path], None]] = {
    "evaluate": tool("evaluate", "{folder}"),
    "sample": tool("sample", "{folder}", "--tokens", "2", "--mask-unused"),
    "compare": tool(
        "compare", "{folder}/..", "--out", "r.html", "--csv", "t.csv", "--runs-csv", "r.csv",
        "--markdown", "t.md",
    ),
    "resume": tool("train", "run_dir={folder}", "resume=true", "train.steps=31"),
    "live": live,
    "inside": tool("inside", "{folder}"),
}  # fmt: skip


@dataclass(frozen=True)
class Tried:
    """How it ended. outcome: one of OUTCOMES. said: what it printed."""

    outcome: str
    said: str
    seconds: float
    memory: int


GOOD = ("done", "refused", "failed in words")
OUTCOMES = (*GOOD, "traceback", "killed", "hung", "wrote outside")


def attempt(name: str, command: str, run: Path, place: Path) -> Tried:
    """Run a command on a hostile copy of the run, in `place`."""
    place.mkdir()
    folder, outside, here = place / "runs" / "run", place / "outside", place / "here"
    folder.parent.mkdir()
    here.mkdir()
    folders.make(name, run, folder, outside)
    before = list(folders.snapshot(outside))
    started, output = monotonic(), place / "output.txt"
    child = os.fork()
    if child == 0:
        _child(COMMANDS[command], folder, here, output)
    status, usage = _wait(child)
    said = output.read_text(errors="replace") if output.exists() else ""
    seconds = monotonic() - started
    if list(folders.snapshot(outside)) != before or (place / "runs" / "x").exists():
        outcome = "wrote outside"
    elif status is None:
        outcome = "hung"
    elif "Traceback" in said:
        outcome = "traceback"
    elif os.WIFSIGNALED(status):
        outcome = "killed"
    else:
        outcome = {0: "done", 1: "failed in words", 2: "refused"}.get(
            os.WEXITSTATUS(status), "killed"
        )
    return Tried(outcome, said, seconds, usage)


def _child(command: Callable[[Path], None], folder: Path, here: Path, output: Path) -> None:
    """Never returns."""
    code = 70
    try:
        descriptor = os.open(output, os.O_WRONLY | os.O_CREAT)
        empty = os.open(os.devnull, os.O_RDONLY)
        for number, own in ((0, empty), (1, descriptor), (2, descriptor)):
            os.dup2(own, number)
        sys.stdout = os.fdopen(1, "w", closefd=False)
        sys.stderr = os.fdopen(2, "w", closefd=False)
        os.chdir(here)
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
        command(folder)
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 0 if ended.code is None else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _wait(child: int) -> tuple[int | None, int]:
    """The child's status, None if it hung, and its peak memory."""
    until = monotonic() + SECONDS
    while True:
        pid, status, usage = os.wait4(child, os.WNOHANG)
        if pid:
            return status, usage.ru_maxrss * 1024
        if monotonic() > until:
            os.kill(child, signal.SIGKILL)
            _, _, usage = os.wait4(child, 0)
            return None, usage.ru_maxrss * 1024
        sleep(0.005)
