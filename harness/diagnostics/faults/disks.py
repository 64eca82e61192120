"""Disks of every size: a command that runs out of room says so in one line, leaves nothing torn,
and goes on once there is room."""

from __future__ import annotations

import errno
import json
import os
import random
import resource
from dataclasses import replace
from pathlib import Path

from harness.common.errors import RunFailure
from harness.diagnostics import comparison
from harness.diagnostics.faults import files
from harness.diagnostics.faults.life import Life, live
from harness.diagnostics.faults.scenarios import Scenario, scenarios, verdict
from harness.diagnostics.faults.tries import Attempt, Options, Result
from harness.runs import checkpoint, summary
from harness.runs.checkpoint import BestCheckpoint, StepCheckpoint

CAUSES = [os.strerror(number) for number in (errno.ENOSPC, errno.EFBIG)]
ROOM = 4096  # bytes, in which a summary finds place beside the one that it replaces


class FullDisk:
    """A disk of `size` bytes: all that lies in a folder. A write that would go beyond is cut short,
    the next one fails."""

    def __init__(self, folder: Path, size: int) -> None:
        self._folder, self._size = folder.resolve(), size

    def start(self) -> None:
        files.watch(self._announce)

    def _announce(self, call: str, size: int, descriptor: int) -> int:
        if call != "write":
            return size
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        if not path.is_relative_to(self._folder):
            return size
        room = self._size - used_bytes(self._folder)
        if room <= 0 < size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return min(size, room)


def used_bytes(folder: Path) -> int:
    total = 0
    for path, _, names in os.walk(folder):
        total += sum(os.lstat(os.path.join(path, name)).st_size for name in names)
    return total


def attempts(options: Options, folder: Path) -> dict[int, Attempt]:
    """The tries by their number: disks that are full, and files that may not grow."""
    chosen = list(scenarios(folder, options.settings))
    largest = {
        scenario: max(path.stat().st_size for path in scenario.whole.rglob("*"))
        for scenario in chosen
    }

    def attempt(number: int) -> Attempt:
        choice = random.Random(f"{options.seed} {number}")
        scenario = chosen[number % len(chosen)]
        if number // len(chosen) % 2:
            limit = int(largest[scenario] ** choice.uniform(0, 1.02))
            return lambda folder: [without_room(scenario, folder, limit, "file size")]
        share = choice.uniform(0, 1.2)
        return lambda folder: [without_room(scenario, folder, share, "disk")]

    return {number: attempt(number) for number in range(options.tries)}


def without_room(scenario: Scenario, folder: Path, size: float, kind: str) -> Result:
    """Give the command where there is too little room, then again where there is enough.

    size: of each file in bytes, or of the disk as a share of what is written there.
    """
    scenario.prepare(folder)
    before = used_bytes(folder)
    if kind == "disk":
        size = before + int(size * (used_bytes(scenario.whole) - before))
        start = FullDisk(folder, int(size)).start
    else:
        size = int(size)

        def start() -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (int(size), int(size)))

    life = live(scenario.command(folder), start)
    group, what = f"{scenario.name}: {kind}", f"{int(size)} bytes"
    result = Result(group, what, "noticed", life.last_line, life.peak_bytes)
    if life.code not in (0, None) and "Traceback" not in life.output:
        has_room = size >= ROOM if kind != "disk" else size - used_bytes(folder) >= ROOM
        wrong = _wrong(scenario, folder, life, has_room)
        if wrong:
            return replace(result, verdict=wrong[0], detail=wrong[1])
    lives = [life, *([live(scenario.command(folder))] if life.code == 1 else [])]
    ended = verdict(scenario, folder, lives, group, what)
    return result if ended.verdict == "equal" and life.code == 1 else ended


def _wrong(scenario: Scenario, folder: Path, life: Life, has_room: bool) -> tuple[str, str] | None:
    """Verdict and detail, if the command did not fail as it should."""
    lines = [line for line in life.output.splitlines() if "error: " in line]
    named = lines if scenario.name == "sweep" else [life.last_line]
    if life.code != 1 or not any(cause in line for cause in CAUSES for line in named):
        return "loss", f"exit code {life.code}, and no cause: {life.last_line}"
    if left := comparison.leftovers(folder):
        return "leftover", ", ".join(left[:3])
    for path in folder.rglob(summary.FILE):
        try:
            status = json.loads(path.read_text())["status"]
        except ValueError:
            return "loss", f"{path} is torn"
        if has_room and status == "running":
            return "silence", f"{path} says running for ever"
        if scenario.name == "extended" and status == "finished" and not _has_budget(path):
            return "silence", f"{path} says finished"
    for path in folder.rglob("checkpoints"):
        for kind in (StepCheckpoint, BestCheckpoint):
            try:
                checkpoint.load(path, kind)
            except RunFailure as error:
                return "loss", str(error)
    return None


def _has_budget(path: Path) -> bool:
    """Whether config.yaml asks for no more than the summary says was done."""
    config = path.with_name("config.yaml").read_text()
    return f"steps: {json.loads(path.read_text())['train']['steps']}\n" in config
