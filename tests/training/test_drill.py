"""`harness.drill`, which kills trainings, notices the slightest difference."""

from __future__ import annotations

import math
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from harness import drill as drill_command
from harness.common.errors import RunFailure
from harness.diagnostics import drill
from harness.runs import checkpoint
from harness.runs.checkpoint import Checkpoint, StepCheckpoint
from tests.small_runs import rows
from tests.training.processes import overrides, rehearse
from tests.waiting import GUARD


def forgetful(chosen: list[str], folder: Path) -> None:
    """A life that goes on without what the optimizer knew."""
    load = checkpoint.load

    def forgetting(path: Path, kind: type[Checkpoint]) -> Checkpoint | None:
        state = load(path, kind)
        if isinstance(state, StepCheckpoint):
            for kept in state.optimizer["state"].values():
                for value in kept.values():
                    value.zero_()
        return state

    checkpoint.load = forgetting
    drill.train_or_resume(chosen, folder)


@pytest.mark.long
def test_the_drill_notices_a_piece_of_state_left_out(tmp_path: Path) -> None:
    chosen = overrides(tmp_path, "eval.every=10")
    rehearse(chosen, tmp_path, 20, 2, forgetful, seed=1)
    found = drill.differences(tmp_path / "whole", tmp_path / "killed")
    assert any("grad_norm is" in line for line in found)
    assert any(line.startswith("the last checkpoint: model.") for line in found)


def test_the_drill_notices_the_slightest_difference(tmp_path: Path) -> None:
    """One bit in each thing that it compares."""
    life = drill.start(drill.train_or_resume, overrides(tmp_path), tmp_path / "one")
    drill.finish(life, tmp_path / "one")

    def changed(change: Callable[[Path], None]) -> list[str]:
        shutil.rmtree(tmp_path / "other", ignore_errors=True)
        shutil.copytree(tmp_path / "one", tmp_path / "other")
        change(tmp_path / "other")
        return drill.differences(tmp_path / "one", tmp_path / "other")

    def replaced(name: str, before: str, after: str) -> Callable[[Path], None]:
        def change(folder: Path) -> None:
            text = (folder / name).read_text()
            assert before in text
            (folder / name).write_text(text.replace(before, after, 1))

        return change

    assert changed(lambda folder: None) == []
    loss = rows(tmp_path / "one")[3]["train/loss"]
    (line,) = changed(replaced("run/metrics.jsonl", repr(loss), repr(math.nextafter(loss, 9.0))))
    assert line.startswith("step 3: train/loss is 0x1.")
    checksum = (tmp_path / "one/batches.txt").read_text().splitlines()[5]
    (line,) = changed(replaced("batches.txt", checksum, checksum + "1"))
    assert line.startswith("step 5: batch is")
    assert changed(replaced("run/samples.txt", "=== step 4", "=== step 5")) != []
    assert changed(replaced("run/summary.json", "finished", "stopped")) != []

    def flip(folder: Path) -> None:
        state = checkpoint.load(folder / "run/checkpoints", StepCheckpoint)
        assert state is not None
        weights = next(iter(state.model.values())).view(torch.int32).view(-1)
        weights[-1] ^= 1
        checkpoint.save(folder / "run/checkpoints", state, keep=[])

    found = changed(flip)  # of two weights, where they are tied
    assert found
    assert all(line.startswith("the last checkpoint: model.") for line in found)
    with pytest.raises(RunFailure, match="step 2 saw two different batches"):
        changed(lambda folder: (folder / "batches.txt").open("a").write("2 1\n") and None)


def test_the_drill_as_a_person_runs_it(tmp_path: Path) -> None:
    chosen = overrides(tmp_path, "train.steps=20", "eval.every=10")
    command = [sys.executable, "-m", "harness.drill", "--kills", "2", *chosen]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=GUARD)
    assert ended.returncode == 0, ended.stderr
    # The training may end before it is killed where the machine does much else.
    assert re.match(r"THE SAME: killed [012] times", ended.stdout)
    assert ended.stdout.count("\n") == 1
    assert "uninterrupted: 20 steps" in ended.stderr


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["train.seconds=5"], "never ends twice"),
        (["run_dir=x"], "the drill's own"),
        (["--kills", "0"], "--kills 0 must be at least 1"),
        (["model=gtp"], "gpt"),
    ],
)
def test_a_drill_that_can_not_be_is_refused(
    arguments: list[str],
    line: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["drill.py", *arguments])
    with pytest.raises(SystemExit, match="2"):
        drill_command.main()
    assert line in capsys.readouterr().err
