"""Small drills, and drills of mutants, in a process without threads from which lives are forked."""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Callable
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path

import pytest

from harness.common.errors import RunFailure
from harness.diagnostics import drill
from harness.diagnostics.faults import disks, flips, fuzz, kills
from harness.diagnostics.faults.damage import spliced
from harness.diagnostics.faults.life import preload
from harness.diagnostics.faults.moments import Moment
from harness.diagnostics.faults.readers import Reader
from harness.diagnostics.faults.scenarios import scenarios
from harness.diagnostics.faults.tries import Options, Result
from harness.runs import checkpoint, samples, summary
from harness.runs.damage import DamageError
from harness.training import run


def drilled(folder: Path) -> dict[str, list[Result]]:
    """Each drill once, and again on a mutant that it must notice."""
    context = get_context("forkserver")
    context.set_forkserver_preload(drill.PRELOADED)
    process = context.Process(target=_drill, args=(folder,))
    process.start()
    process.join()
    assert process.exitcode == 0
    found = json.loads((folder / "found.json").read_text())
    return {name: [Result(**each) for each in results] for name, results in found.items()}


def _drill(folder: Path) -> None:
    os.fsync = lambda descriptor: None  # as tests/conftest.py
    preload()
    with pytest.raises(RunFailure, match="the uninterrupted training ended with"):
        scenarios(folder / "wrong", ["model.n_head=3"], ["fresh"])
    victims = flips.Victims.make(Options(), folder / "whole")
    fresh, whole = victims.fresh, victims.fresh.whole / "run"
    best = next(path for _, path in victims.places() if path.name.startswith("best"))

    # In the middle of seven steps: a sample was written after the last checkpoint.
    moment = Moment("accumulation", "calls", fresh.moments()["accumulation", "calls"] // 2)

    def in_folder(name: str) -> Path:
        (folder / name).mkdir()
        return folder / name

    def killed(name: str) -> list[Result]:
        return [kills.killed(fresh, in_folder(name), [moment])]

    def full(name: str) -> list[Result]:
        return [disks.without_room(fresh, in_folder(name), 30_000, "file size")]

    def flipped(name: str) -> list[Result]:
        return [victims.flipped(in_folder(name), "finished", best, random.Random(3))]

    def fuzzed(name: str, read: Callable[[Path], object]) -> list[Result]:
        reader = Reader(name, whole, Path(summary.FILE), spliced, read)
        return fuzz.fuzzed(reader, in_folder(name), 0.5, 0)

    found = {
        "killed": killed("killed"),
        "full": full("full"),
        "flipped": flipped("flipped"),
        "fuzzed": fuzzed("fuzzed", summary.read_summary),
        "fuzzed, raising": fuzzed("raising", _raising),
        "fuzzed, greedy": fuzzed("greedy", _greedy),
    }
    vars(fuzz)["SECONDS"] = 1
    found["fuzzed, slow"] = fuzzed("slow", _slow)
    vars(samples)["keep_before"] = lambda path, step: None
    vars(checkpoint)["is_intact"] = lambda path: True
    vars(flips)["READERS"] = flips.READERS[:1]  # the others score the weights again, and say so
    vars(run)["record_failure"] = lambda summary, error: None
    found |= {
        "killed, repeating samples": killed("repeating"),
        "full, silent": full("silent"),
        "flipped, trusting": flipped("trusting"),
    }
    (folder / "found.json").write_text(
        json.dumps({name: [asdict(each) for each in results] for name, results in found.items()})
    )


def _raising(folder: Path) -> None:
    if not (folder / summary.FILE).read_bytes().endswith(b"}\n"):
        raise KeyError("the end")
    raise DamageError("read")


def _greedy(folder: Path) -> None:
    bytearray(2**32)


def _slow(folder: Path) -> None:
    time.sleep(1000)
