"""Checkpoints on another disk: only where the user says so, never where a folder does."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.common.errors import RunFailure, UsageError
from harness.runs.load import load_run
from harness.runs.resume import resumed_settings
from tests import small_runs as training
from tests.conftest import Ended

BIGRAM = ("model=bigram", "optimizer.lr=0.1")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose checkpoints lie in tmp/disk/run."""
    folder = tmp_path_factory.mktemp("elsewhere")
    assert training.train(folder, *BIGRAM, f"checkpoint_dir={folder}/disk") == 0
    return folder / "run"


def test_they_lie_there(run: Path) -> None:
    assert list((run / "checkpoints").iterdir()) == []
    assert {path.name[:4] for path in (run.parent / "disk" / "run").glob("*.pt")} == {
        "best",
        "step",
    }
    loaded = load_run(run, "best", "cpu", [], checkpoint_dir=str(run.parent / "disk"))
    assert loaded.step == training.summary(run.parent)["best"]["step"]


def test_a_folder_alone_does_not_say_where(run: Path, command: Callable[..., Ended]) -> None:
    where = f"--checkpoint-dir={run.parent}/disk"
    refused = command("evaluate", run)
    assert refused.code == 2
    assert "a folder's word is not followed" in refused.err
    assert "bits_per_byte" in command("evaluate", run, where).out
    asked = training.settings(run.parent, *BIGRAM).replace(resume=True)
    with pytest.raises(UsageError, match="give checkpoint_dir="):
        resumed_settings(asked, [])


def test_it_goes_on_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    disk = f"checkpoint_dir={tmp_path}/disk"
    assert training.train(tmp_path, *BIGRAM, disk, "train.steps=4") == 0
    more = [*BIGRAM, disk, "resume=true", "train.steps=8"]
    settings = resumed_settings(training.settings(tmp_path, *more), more)
    assert training.run(settings) == 0
    assert "going on from step 4" in capsys.readouterr().err


def test_nothing_there_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "disk" / "run").mkdir(parents=True)
    with pytest.raises(UsageError, match="exists already; choose another run_dir"):
        training.train(tmp_path, *BIGRAM, f"checkpoint_dir={tmp_path}/disk")


def test_a_link_is_no_setting(tmp_path: Path) -> None:
    assert training.train(tmp_path, *BIGRAM) == 0
    checkpoints = tmp_path / "run" / "checkpoints"
    checkpoints.rename(tmp_path / "moved")
    os.symlink(tmp_path / "moved", checkpoints)
    with pytest.raises((OSError, UsageError, RunFailure), match="link"):
        load_run(tmp_path / "run", "best", "cpu", [])
