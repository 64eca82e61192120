"""The folder goes away under a training: it ends as failed, in one line, and saves what it can."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.training import loop
from harness.training.run import run
from tests.small_runs import settings, summary, trace, train
from tests.training.processes import steps_saved

CHOSEN = ("model=bigram", "checkpoint.every=3", "eval.every=100", "eval.sample_tokens=0")


def moved(run: Path) -> None:
    (run.parent.parent / "elsewhere").mkdir()
    run.rename(run.parent.parent / "elsewhere" / "run")


def moved_and_copied_back(run: Path) -> None:
    moved(run)
    shutil.copytree(run.parent.parent / "elsewhere" / "run", run)


def removed(run: Path) -> None:
    shutil.rmtree(run)


def without_rows(run: Path) -> None:
    (run / "metrics.jsonl").unlink()


def rows_replaced(run: Path) -> None:
    shutil.copy(run / "metrics.jsonl", run / "copy")
    (run / "copy").rename(run / "metrics.jsonl")


def rows_truncated(run: Path) -> None:
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    with (run / "metrics.jsonl").open("r+") as file:
        file.truncate(len("".join(lines[:2])))


def rows_of_another(run: Path) -> None:
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 99}\n')


def train_while(
    folder: Path, away: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch, *overrides: str
) -> int:
    """Train; the folder goes away while the batch of step 4 is drawn."""
    draw = loop.draw_batch

    def drawing(ids, seed, step, *rest):  # noqa: ANN001, ANN002, ANN202
        if step == 4:
            away(folder / "run")
        return draw(ids, seed, step, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "draw_batch", drawing)
        return train(folder, *CHOSEN, *overrides)


@pytest.mark.parametrize("away", [moved, moved_and_copied_back])
def test_a_folder_that_is_moved_is_finished_elsewhere(
    away: Callable[[Path], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert train_while(tmp_path / "a", away, monkeypatch) == 1
    assert f"was moved to {tmp_path / 'elsewhere' / 'run'}" in capsys.readouterr().err
    assert summary(tmp_path / "elsewhere")["status"] == "failed"
    assert steps_saved(tmp_path / "elsewhere") == [5, 3]
    left = sorted(path.name for path in (tmp_path / "a").rglob("*"))
    assert ("run" in left) == (away is moved_and_copied_back)
    assert train(tmp_path / "elsewhere", *CHOSEN, "resume=true") == 0
    assert train(tmp_path / "whole", *CHOSEN) == 0
    assert trace(tmp_path / "elsewhere") == trace(tmp_path / "whole")


@pytest.mark.parametrize("copy", [False, True])
def test_a_folder_that_is_gone_is_not_made_again(
    copy: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def away(run: Path) -> None:
        if copy:
            shutil.copytree(run, tmp_path / "copy")
        removed(run)
        if copy:
            (tmp_path / "copy").rename(run)

    assert train_while(tmp_path / "a", away, monkeypatch) == 1
    said = capsys.readouterr().err
    assert "is no longer the folder that was trained in" in said
    assert said.count("error: ") == 1
    assert "Traceback" not in said
    assert (tmp_path / "a/run").exists() == copy
    if copy:
        assert steps_saved(tmp_path / "a") == [3]
        assert len(trace(tmp_path / "a")) == 4
        assert json.loads((tmp_path / "a/run/summary.json").read_text())["status"] == "running"


@pytest.mark.parametrize(
    ("away", "said", "lost"),
    [
        (without_rows, "was removed", 5),
        (rows_replaced, "was replaced", 1),
        (rows_truncated, "was changed", 2),
        (rows_of_another, "was changed", 0),
    ],
)
def test_rows_that_go_away_fail_the_run_and_are_counted(
    away: Callable[[Path], None],
    said: str,
    lost: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert train_while(tmp_path / "a", away, monkeypatch) == 1
    found = summary(tmp_path / "a")
    assert found["status"] == "failed"
    assert said in found["error"]
    assert steps_saved(tmp_path / "a") == [5, 3]
    assert train(tmp_path / "a", *CHOSEN, "resume=true") == 0
    assert [row["step"] for row in trace(tmp_path / "a")][-4:] == [5, 6, 7, 8]
    assert len(trace(tmp_path / "a")) == 9 - lost
    assert (f"the rows of {lost} of the first 5 steps" in caplog.text) == (lost > 0)


def test_at_the_very_end_it_is_not_finished_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "write_test_blocks", lambda run, *rest: moved(run))
    assert train(tmp_path / "a", *CHOSEN) == 1
    assert summary(tmp_path / "elsewhere")["status"] == "failed"
    assert not (tmp_path / "a/run").exists()


def test_a_signal_saves_where_the_folder_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(run: Path) -> None:
        moved(run)
        os.kill(os.getpid(), signal.SIGTERM)

    train_while(tmp_path / "a", away, monkeypatch, "train.accumulate=2")
    assert steps_saved(tmp_path / "elsewhere") == [4, 3]
    assert summary(tmp_path / "elsewhere")["status"] == "stopped"
    assert run(settings(tmp_path / "elsewhere", *CHOSEN, "train.accumulate=2", "resume=true")) == 0
