"""Several runs are verified at the same time, as one after another."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import active_children, get_context
from pathlib import Path
from typing import Any

import pytest

from harness.common.errors import RunFailure
from harness.referee import at_once
from harness.referee.at_once import certify_each
from harness.runs import certificate
from tests.conftest import Ended
from tests.waiting import wait_until


def on_two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fork costs no import, and keeps what a test replaced."""
    monkeypatch.setattr(at_once, "_cores", lambda device: 2)
    monkeypatch.setattr(at_once, "CONTEXT", get_context("fork"))


def test_as_one_after_another(
    finished_run: Path,
    finished_bigram: Path,
    tmp_path: Path,
    command: Callable[..., Ended],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is printed, in the order of the folders; the exit code; and what is written."""
    monkeypatch.setattr("harness.referee.verify.SECONDS", 0.1)
    runs = {"a": finished_run, "b": finished_run, "c": finished_bigram, "d": finished_bigram}
    ended, written = [], []
    for cores in (1, 2):
        folder = tmp_path / "runs"
        for name, run in runs.items():
            shutil.copytree(run, folder / name)
            (folder / name / certificate.FILE).unlink()
        shutil.rmtree(folder / "b" / "checkpoints")
        if cores == 2:
            on_two_cores(monkeypatch)
        ended.append(command("verify", folder))
        written.append([certificate.read(folder / name) for name in runs])
        shutil.rmtree(folder)
    assert ended[0] == ended[1]
    assert ended[1].code == 1
    assert [line.rpartition("/")[2] for line in ended[1].out.splitlines() if "/runs/" in line] == [
        *("a", "c", "d")
    ]
    assert len(ended[1].err.splitlines()) == 1
    assert f"{tmp_path / 'runs' / 'b'}: " in ended[1].err
    assert written[0] == written[1]
    assert [found is not None and not found.failed for found in written[1]] == [
        *(True, False, True, True)
    ]


def killed(*arguments: Any, **settings: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def interrupting(*arguments: Any, **settings: Any) -> None:
    """As a terminal does it, once, to the process whose end a person waits for."""
    with suppress(FileExistsError):
        (Path(arguments[0]) / "interrupted").mkdir()
        os.kill(os.getppid(), signal.SIGINT)
    signal.pause()


@pytest.mark.parametrize(
    ("verify", "error"), [(killed, RunFailure), (interrupting, KeyboardInterrupt)]
)
def test_all_end_together(
    verify: Callable[..., None],
    error: type[BaseException],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    on_two_cores(monkeypatch)
    monkeypatch.setattr(at_once, "verify_run", verify)
    with pytest.raises(error):
        list(certify_each([tmp_path] * 5, complete=True, device="cpu", trust=[]))
    wait_until(lambda: not active_children())
