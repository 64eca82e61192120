"""Hostile folders: every command that reads a run ends in words on them, in bounded time and
memory, and changes nothing outside of the folder."""

from __future__ import annotations

import json
import os
import random
import sys
from collections.abc import Callable
from pathlib import Path

from harness.diagnostics.faults import hostile
from harness.diagnostics.faults.life import forked, limit_memory, run_command
from harness.diagnostics.faults.scenarios import EXTENDED, scenarios
from harness.diagnostics.faults.tries import Attempt, Options, Result
from harness.live.watch import LiveRuns

GIGABYTES = 2.0  # beyond what the process has


def live(run: Path) -> None:
    """What the page asks of every run: the list, the run's page, its curves."""
    runs = LiveRuns([run.parent])
    found = runs.look()
    for each in found:
        metrics = runs.metrics(each)
        metrics.read()
        points = [metrics.points(name, "step", 100, 0, 99) for name in metrics.names()[:10]]
        print(json.dumps([each.card, each.details(), points]))
    sys.exit(0 if found else 1)


def tool(*argv: str) -> Callable[[Path], None]:
    return lambda run: run_command([argument.replace("RUN", str(run)) for argument in argv])


COMMANDS: dict[str, Callable[[Path], None]] = {
    "evaluate": tool("harness.evaluate", "RUN"),
    "sample": tool("harness.sample", "RUN", "--tokens", "2", "--mask-unused"),
    "compare": tool(
        "harness.compare", "RUN/..", "--out", "r.html", "--csv", "t.csv", "--runs-csv", "r.csv",
        "--markdown", "t.md",
    ),
    "resume": tool("harness.train", "run_dir=RUN", "resume=true", EXTENDED),
    "compress": tool("harness.compress", "RUN", "text.txt"),
    "inside": tool("harness.inside", "RUN"),
    "live": live,
}  # fmt: skip


def attempts(options: Options, folder: Path) -> dict[int, Attempt]:
    """Every command on every folder, or so many of them as there are to be tries."""
    (fresh,) = scenarios(folder, options.settings, ("fresh",))
    places = [(name, command) for name in hostile.names() for command in COMMANDS]
    if options.tries:
        random.Random(options.seed).shuffle(places)
        places = places[: options.tries]

    def attempt(name: str, command: str) -> Attempt:
        return lambda folder: [tried(name, command, fresh.whole / "run", folder)]

    return {number: attempt(*place) for number, place in enumerate(places)}


def tried(name: str, command: str, run: Path, folder: Path) -> Result:
    """Run a command on a hostile copy of the run, in an empty folder."""
    copy, outside, here = folder / "runs" / "run", folder / "outside", folder / "here"
    for made in (copy.parent, here):
        made.mkdir()
    (here / "text.txt").write_text("green bottles\n")
    hostile.make(name, run, copy, outside)
    before = list(hostile.snapshot(outside))

    def work() -> None:
        os.chdir(here)
        os.environ["XDG_CACHE_HOME"] = os.environ["XDG_STATE_HOME"] = f"{folder}/cache"
        limit_memory(GIGABYTES)
        COMMANDS[command](copy)

    life = forked(work)
    ran = (here / "x", copy.parent / "x")  # what the code in a configuration would touch
    if list(hostile.snapshot(outside)) != before or any(path.exists() for path in ran):
        verdict = "loss"
    elif life.code is None:
        verdict = "hang"
    elif "Traceback" in life.output or life.code not in (0, 1, 2):
        verdict = "traceback"
    else:
        verdict = "noticed" if life.code else "equal"
    detail = f"exit code {life.code}: {life.last_line[:300]}"
    return Result(command, name, verdict, detail, life.peak_bytes)
