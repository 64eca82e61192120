"""A logger that fails, blocks or dies changes nothing in the training and is warned of once."""

from __future__ import annotations

import fcntl
import importlib.util
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.loggers import followers
from tests import small_runs as training
from tests.loggers.stored_rows import BIGRAM, KEY, defined, wandb_rows, wandb_sessions, warnings
from tests.small_runs import rows, train
from tests.waiting import wait_until


def logger_warnings(run: Path) -> list[str]:
    """Without what all of them say."""
    end = "; the numbers are in metrics.jsonl"
    found = [line.partition(" WARNING logger ")[2] for line in warnings(run)]
    assert all(line.endswith(end) for line in found if line)
    return sorted(line.removesuffix(end) for line in found if line)


def stored(run: Path, name: str) -> list[str]:
    return (run / name).read_text().split()


def release(run: Path) -> None:
    """Let a blocked logger go on, and wait until the loggers' process has ended."""
    wait_until(lambda: is_read(run / "blocked"))  # it may not even have begun
    with (run / "loggers" / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)


def is_read(fifo: Path) -> bool:
    """Is there who waits at it? Who does so holds the lock."""
    try:
        os.close(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK))
    except OSError:  # no such file, or nobody reads
        return False
    return True


ALL = [str(step) for step in range(13)]  # the steps of BIGRAM


def test_a_logger_that_fails_is_warned_of_once_and_changes_nothing(
    tmp_path: Path, trouble: Callable[..., list[str]]
) -> None:
    train(tmp_path / "plain", *BIGRAM)
    assert train(tmp_path / "a", *BIGRAM, *trouble("Open", "Log", "Fine", "Close")) == 0
    assert training.trace(tmp_path / "a") == training.trace(tmp_path / "plain")
    assert logger_warnings(tmp_path / "a" / "run") == [
        "Close: failed (KeyError: 'closing')",
        "Log: failed (ValueError: 0)",
        "Open: failed (OSError: no such server)",
    ]
    assert stored(tmp_path / "a" / "run", "Fine") == ALL


def test_a_blocked_logger_does_not_keep_another_from_its_rows(
    tmp_path: Path, trouble: Callable[..., list[str]]
) -> None:
    """The one goes on only when the other has all rows."""
    assert train(tmp_path / "a", *BIGRAM, *trouble("BlockedInLog", "Releasing")) == 0
    run = tmp_path / "a" / "run"
    assert (stored(run, "BlockedInLog"), stored(run, "Releasing")) == (ALL, ALL)
    assert logger_warnings(run) == []


def test_a_logger_that_ends_the_process_is_named_with_those_it_takes_along(
    tmp_path: Path, trouble: Callable[..., list[str]]
) -> None:
    assert train(tmp_path / "a", *BIGRAM, *trouble("BlockedInLog", "Dead")) == 0
    expected = ["BlockedInLog, Dead: died (some library's last words)"]
    assert logger_warnings(tmp_path / "a" / "run") == expected


def test_a_logger_that_does_not_begin_is_waited_for_no_longer_than_agreed(
    tmp_path: Path, trouble: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Should it begin later, it gets all rows."""
    monkeypatch.setattr(followers, "START_UP", 0.1)
    train(tmp_path / "plain", *BIGRAM)
    assert train(tmp_path / "a", *BIGRAM, *trouble("BlockedInOpen")) == 0
    assert training.trace(tmp_path / "a") == training.trace(tmp_path / "plain")
    run = tmp_path / "a" / "run"
    assert logger_warnings(run) == ["BlockedInOpen: not ready after 0.1 s"]
    release(run)
    assert stored(run, "BlockedInOpen") == ALL


def test_loggers_wait_for_those_of_a_training_that_was_killed(
    tmp_path: Path, trouble: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which may still be storing its rows. The training does not wait."""
    monkeypatch.setattr(followers, "START_UP", 2)
    run = tmp_path / "a" / "run"
    assert train(tmp_path / "a", *BIGRAM, "schedule=constant") == 0
    (run / "loggers").mkdir()
    with (run / "loggers" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        more = ("model=bigram", "schedule=constant", "train.steps=16", "resume=true")
        assert train(tmp_path / "a", *more, *trouble("Saying")) == 0
        assert logger_warnings(run) == ["Saying: not ready after 2 s"]
        assert not (run / "Saying").exists()
        os.mkfifo(run / "said")
    (run / "said").open().close()
    assert stored(run, "Saying") == [str(step) for step in range(17)]


def test_a_logger_that_does_not_end_is_given_up(
    tmp_path: Path, trouble: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(followers, "FINISHING", 0.1)
    assert train(tmp_path / "a", *BIGRAM, *trouble("BlockedInClose")) == 0
    expected = ["BlockedInClose: failed (not finished within 0.1 s)"]
    assert logger_warnings(tmp_path / "a" / "run") == expected


@pytest.mark.parametrize(
    ("name", "code"), [("SignalInOpen", 143), ("SignalInClose", 0)], ids=["in open", "in close"]
)
def test_a_signal_ends_the_waiting_for_a_logger(
    name: str,
    code: int,
    tmp_path: Path,
    trouble: Callable[..., list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It comes from the logger, which then blocks: without it the waiting would have no end."""
    monkeypatch.setattr(followers, "LEAVING", 0.1)
    run = tmp_path / "a" / "run"
    assert train(tmp_path / "a", *BIGRAM, *trouble(name)) == code
    (line,) = logger_warnings(run)
    assert line == f"{name}: not finished yet, goes on without the training for up to 600 s"
    release(run)
    assert stored(run, name) == (ALL if code == 0 else stored(run, name))


def test_the_times_that_a_training_waits() -> None:
    """A start-up of 15 s; 10 s are what a training that is told to stop may take."""
    fresh = importlib.util.find_spec("harness.loggers.followers")
    assert fresh is not None
    assert fresh.loader is not None
    module = importlib.util.module_from_spec(fresh)
    fresh.loader.exec_module(module)
    assert (module.START_UP, module.LEAVING, module.FINISHING) == (15, 5, 60)


def test_what_a_logger_has_not_stored_when_it_is_killed_comes_again(
    tmp_path: Path, trouble: Callable[..., list[str]]
) -> None:
    """Libraries hold rows for a while, and drop at once those that will come again."""
    folder, killed = tmp_path / "a", tmp_path / "a" / "run" / "killed"
    chosen = ("model=bigram", "checkpoint.every=4", "schedule=constant", *trouble("Fine"))
    assert train(folder, *chosen, "train.steps=12") == 0
    (folder / "run" / "checkpoints" / "step-00000012.pt").unlink()
    killed.touch()
    assert train(folder, *chosen, "train.steps=16", "resume=true") == 0
    killed.unlink()
    assert train(folder, *chosen, "train.steps=20", "resume=true") == 0
    assert stored(folder / "run", "Fine") == [str(step) for step in range(21)]


def test_loggers_that_can_not_be_started_are_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    assert train(tmp_path / "a", *BIGRAM, "logger=[local,tensorboard,wandb]") == 0
    (line,) = logger_warnings(tmp_path / "a" / "run")
    assert line.startswith("tensorboard, wandb: can't be started (")


@pytest.mark.long
def test_a_server_that_never_answers_makes_wandb_go_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Logged in, the server's port open, and nobody there. And the key is in no file of the run."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        assert train(tmp_path / "a", *BIGRAM, "logger=[local,wandb]") == 0
    run = tmp_path / "a" / "run"
    (line,) = warnings(run)
    assert "wandb: can't be reached (" in line
    assert line.endswith("going on offline")
    (session,) = wandb_sessions(run)
    assert wandb_rows(session) == defined(rows(tmp_path / "a"))
    files = [path for path in run.rglob("*") if path.is_file()]
    assert len(files) > 15
    assert not [path for path in files if KEY.encode() in path.read_bytes()]
