"""Which process trains a run: a living one is found and stopped, another's is never touched."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.common.errors import UsageError
from harness.runs import lock, process
from tests.waiting import GUARD

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/stat").exists(), reason="this system has no /proc to prove a process by"
)

SIGNS = """
import signal, sys
from pathlib import Path
from harness.runs import lock, process
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
with lock.hold(Path(sys.argv[1])):
    print("signed", flush=True)
    signal.pause()
"""


@pytest.fixture
def signer(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that says it trains the run in tmp_path."""
    child = subprocess.Popen(
        [sys.executable, "-c", SIGNS, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "signed\n"
    yield child
    child.kill()
    child.communicate()


def forge(folder: Path, **changed: object) -> None:
    path = folder / process.FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))


def test_a_living_process_is_stopped_and_takes_its_sign_away(
    signer: subprocess.Popen[str], tmp_path: Path
) -> None:
    assert process.is_alive(tmp_path) is True
    process.stop(tmp_path)
    assert signer.wait(GUARD) == 143
    assert process.is_alive(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_a_killed_process_is_known_to_be_dead(
    signer: subprocess.Popen[str], tmp_path: Path
) -> None:
    signer.kill()
    os.waitid(os.P_PID, signer.pid, os.WEXITED | os.WNOWAIT)  # dead, and its number still taken
    assert process.is_alive(tmp_path) is False
    signer.wait(GUARD)
    assert process.is_alive(tmp_path) is False
    with pytest.raises(UsageError, match="no process of this machine"):
        process.stop(tmp_path)


@pytest.mark.parametrize(
    ("changed", "alive"),
    [
        ({"began": "1"}, False),  # the number was given again
        ({"began": None}, None),
        ({"system": "another boot"}, None),
        ({"pid": "1"}, None),
        ({"pid": 2**40}, False),
    ],
)
def test_nobody_is_stopped_who_is_not_proven(
    changed: dict[str, object], alive: bool | None, signer: subprocess.Popen[str], tmp_path: Path
) -> None:
    forge(tmp_path, **changed)
    assert process.is_alive(tmp_path) is alive
    with pytest.raises(UsageError, match="no process of this machine"):
        process.stop(tmp_path)
    assert signer.poll() is None


def test_a_number_given_again_while_it_is_looked_at(
    signer: subprocess.Popen[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The proof is asked for again once the handle is held, and then it must still hold."""
    answers = iter([True, False])
    monkeypatch.setattr(process, "is_alive", lambda folder: next(answers))
    with pytest.raises(UsageError):
        process.stop(tmp_path)
    assert signer.poll() is None


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"pid": null}', '{"pid": true}'])
def test_a_damaged_sign_proves_nothing(content: str, tmp_path: Path) -> None:
    (tmp_path / process.FILE).write_text(content)
    assert process.is_alive(tmp_path) is None
    with pytest.raises(UsageError):
        process.stop(tmp_path)


def test_the_sign_of_another_is_left_alone(tmp_path: Path) -> None:
    with lock.hold(tmp_path):
        assert process.is_alive(tmp_path) is True
        forge(tmp_path, began="1")
    assert (tmp_path / process.FILE).exists()
