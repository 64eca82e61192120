"""Flipped bytes, in every kind of file of a run and of the cache: each is noticed in a line that
names the file, or changes nothing."""

from __future__ import annotations

import os
import random
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.diagnostics.faults.life import Life, forked, live, run_command
from harness.diagnostics.faults.moments import WHOLE, CallCounter, Moment
from harness.diagnostics.faults.scenarios import Scenario, scenarios, verdict
from harness.diagnostics.faults.tries import Attempt, Options, Result

KINDS = ("finished", "extended", "killed", "cache")
"""What the flipped file belongs to: a finished run that is read; one that is extended; a killed run
that goes on; the cache of a new run."""
READERS = (
    ("harness.evaluate", "--json"),
    ("harness.sample", "--tokens", "20", "--seed", "0"),
    ("harness.compare",),
)


@dataclass(frozen=True)
class Victims:
    """What is damaged: the folders of `fresh` and `extended`, and one of a training that was killed
    half-way. read: what the readers say of the finished run."""

    fresh: Scenario
    extended: Scenario
    killed: Path
    read: Life

    @classmethod
    def make(cls, options: Options, folder: Path) -> Victims:
        counted = scenarios(folder, options.settings, ("fresh", "extended"))
        fresh, extended = counted
        moment = Moment(WHOLE, "files", counted[fresh][WHOLE, "files"] * 3 // 4)
        live(fresh.command(folder / "killed"), CallCounter(moment).start)
        shutil.copytree(fresh.whole / "run", folder / "read" / "run")
        return cls(fresh, extended, folder / "killed", read_run(folder / "read"))

    def folder(self, kind: str) -> Path:
        return self.killed if kind == "killed" else self.fresh.whole

    def places(self) -> list[tuple[str, Path]]:
        """Every kind of file."""
        return [
            (kind, path)
            for kind in KINDS
            for path in _one_of_each(self.folder(kind))
            if (path.parts[0] == "cache") == (kind == "cache")
        ]

    def flipped(self, folder: Path, kind: str, path: Path, choice: random.Random) -> Result:
        """Flip a bit of one file in a copy, then use it."""
        shutil.copytree(self.folder(kind), folder, dirs_exist_ok=True)
        if kind == "cache":
            shutil.rmtree(folder / "run")
        what, group = flip(folder / path, choice), f"{kind}: {_kind(path)}"
        if kind == "finished":
            return _judged_reading(self.read, read_run(folder), path, group, what)
        scenario = self.extended if kind == "extended" else self.fresh
        life = live(scenario.command(folder))
        return _judged_training(scenario, folder, life, path, group, what)


def attempts(options: Options, folder: Path) -> dict[int, Attempt]:
    """The tries by their number: each kind of file in its turn."""
    victims = Victims.make(options, folder)
    places = victims.places()

    def attempt(number: int) -> Attempt:
        choice = random.Random(f"{options.seed} {number}")
        kind, path = places[number % len(places)]
        return lambda folder: [victims.flipped(folder, kind, path, choice)]

    return {number: attempt(number) for number in range(options.tries)}


def flip(path: Path, choice: random.Random) -> str:
    """Flip one bit; returns where."""
    content = bytearray(path.read_bytes())
    at, bit = choice.randrange(len(content)), choice.randrange(8)
    content[at] ^= 1 << bit
    path.write_bytes(content)
    return f"byte {at} of {len(content)}, bit {bit}"


def read_run(folder: Path) -> Life:
    """Every command that reads a run, on folder/run."""

    def work() -> None:
        os.environ["XDG_CACHE_HOME"] = os.environ["XDG_STATE_HOME"] = f"{folder}/xdg"
        for module, *options in READERS:
            try:
                run_command([module, f"{folder}/run", *options])
            except SystemExit as ended:
                print(f"{module}: exit code {ended.code}", flush=True)

    return forked(work)


def _judged_reading(whole: Life, life: Life, path: Path, group: str, what: str) -> Result:
    def result(verdict: str, detail: str = "") -> Result:
        return Result(group, what, verdict, detail, life.peak_bytes)

    if life.code is None:
        return result("hang")
    if "Traceback" in life.output:
        return result("traceback", life.last_line)
    before, after = _lines(whole), _lines(life)
    if before == after:
        return result("equal")
    new = [line for line in after if line not in before]
    return result("noticed" if _names(path, new) else "silence", " / ".join(new[:3]))


def _judged_training(
    scenario: Scenario, folder: Path, life: Life, path: Path, group: str, what: str
) -> Result:
    ended = verdict(scenario, folder, [life], group, what)
    refused = ended.verdict == "loss" and life.code in (1, 2) and "error: " in life.last_line
    if refused or (ended.verdict == "silence" and _names(path, life.output.splitlines())):
        return Result(group, what, "noticed", life.last_line, life.peak_bytes)
    return ended


def _names(path: Path, lines: Sequence[str]) -> bool:
    """Whether a line names the file, or the folder that holds it, or is an error."""
    name, folder = path.name.removesuffix(".sha256"), path.parent.name
    names = (name, f"{folder}/", f"in {folder}", "error: ")
    return any(name in line for line in lines for name in names)


def _lines(life: Life) -> list[str]:
    """What was printed, wherever the run's folder lies."""
    return [re.sub(r"\S*/run\b", "RUN", line).rstrip() for line in life.output.splitlines()]


def _kind(path: Path) -> str:
    """The file without its step or digest."""
    return re.sub(r"[0-9a-f]{64}", "*", re.sub(r"-\d{8}\.", "-*.", path.as_posix()))


def _one_of_each(folder: Path) -> list[Path]:
    """A file of each kind that is not empty, the newest of them."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)
    found = {_kind(path.relative_to(folder)): path.relative_to(folder) for path in files}
    return [path for path in found.values() if not path.name.startswith(".")]
