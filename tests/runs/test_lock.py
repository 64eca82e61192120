"""One training a folder, whatever becomes of its files, and where the file system has no locks."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.common.errors import UsageError
from harness.runs import lock, process
from harness.runs.lock import FolderLost

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/stat").exists(), reason="this system has no /proc to prove a process by"
)


def no_flock(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on some network file systems."""

    def refusing(*arguments: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", refusing)


def signed(folder: Path, **changed: Any) -> Path:
    """The lock that a process left behind; `changed`: what is written of it."""
    path = folder / process.FILE
    path.touch()
    own = process.own(path.stat().st_ino) | {"host": "far", "since": "Monday"}
    path.write_text(json.dumps(own | changed))
    return path


def taken(folder: Path) -> bool:
    """Whether the lock can be had."""
    try:
        with lock.hold(folder):
            return True
    except UsageError:
        return False


def test_a_second_one_is_told_who_has_it(tmp_path: Path) -> None:
    with lock.hold(tmp_path):
        found = json.loads((tmp_path / process.FILE).read_text())
        with pytest.raises(UsageError) as refused:
            lock.hold(tmp_path).__enter__()
    for name in ("pid", "host", "since"):
        assert str(found[name]) in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_it_is_no_log_and_can_not_be_rotated_away(tmp_path: Path) -> None:
    with lock.hold(tmp_path) as held:
        (tmp_path / "train.log").touch()
        (tmp_path / "train.log").rename(tmp_path / "train.log.1")
        assert not taken(tmp_path)
        held.require()


def test_a_copied_folder_is_nobodys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a").mkdir()
    with lock.hold(tmp_path / "a"):
        shutil.copytree(tmp_path / "a", tmp_path / "b")
        assert process.is_alive(tmp_path / "a") is True
        assert process.is_alive(tmp_path / "b") is None
        for prepare in (lambda patch: None, no_flock):
            prepare(monkeypatch)
            assert taken(tmp_path / "b")
            assert not taken(tmp_path / "a")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("flock", [True, False])
def test_a_dead_one_is_followed_with_a_word(
    flock: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if not flock:
        no_flock(monkeypatch)
    signed(tmp_path, began="1", pid=77)
    assert taken(tmp_path)
    told = capsys.readouterr().err
    assert told == f"{tmp_path} is taken over from process 77 on far, since Monday, which is gone\n"


def test_without_flock_a_living_one_of_this_machine_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_flock(monkeypatch)
    with lock.hold(tmp_path):
        assert not taken(tmp_path)
    assert taken(tmp_path)


@pytest.mark.parametrize("flock", [True, False])
@pytest.mark.parametrize("beats", [True, False])
def test_one_of_another_machine_is_watched(
    beats: bool, flock: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be alive where flock is this machine's alone."""
    if not flock:
        no_flock(monkeypatch)
    path = signed(tmp_path, system="another boot")
    clock = [0.0]

    def sleep(seconds: float) -> None:
        clock[0] += seconds
        if beats and clock[0] > lock.WATCH / 2:
            os.utime(path, ns=(1, 1))

    monkeypatch.setattr(lock.time, "sleep", sleep)
    monkeypatch.setattr(lock.time, "monotonic", lambda: clock[0])
    assert taken(tmp_path) is not beats
    assert lock.BEAT < lock.WATCH / 3


@pytest.mark.parametrize("flock", [True, False])
def test_without_proc_a_dead_one_of_this_machine_is_not_watched(
    flock: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A living one is: its id may be another process's by now."""
    if not flock:
        no_flock(monkeypatch)
    dead = os.fork()
    if dead == 0:
        os._exit(0)
    os.waitpid(dead, 0)
    monkeypatch.setattr(process, "_system", lambda: None)
    monkeypatch.setattr(process, "_start_time", lambda pid: None)
    watched: list[Path] = []
    monkeypatch.setattr(lock, "_beats", lambda path: watched.append(path) or True)
    here = socket.gethostname()
    signed(tmp_path, pid=dead, host=here)
    assert taken(tmp_path)
    assert not watched
    for pid, host in ((os.getpid(), here), (dead, "far"), (10**30, here)):
        signed(tmp_path, pid=pid, host=host)
        assert not taken(tmp_path)
    assert len(watched) == 3


def test_the_holder_shows_that_it_lives(tmp_path: Path) -> None:
    with lock.hold(tmp_path) as held:
        os.utime(tmp_path / process.FILE, (1, 1))
        held.beat()
        assert (tmp_path / process.FILE).stat().st_mtime > 1


def moved(folder: Path) -> None:
    folder.rename(folder.with_name("elsewhere"))


def removed(folder: Path) -> None:
    shutil.rmtree(folder)


def replaced(folder: Path) -> None:
    shutil.copytree(folder, folder.with_name("copy"))
    shutil.rmtree(folder)
    folder.with_name("copy").rename(folder)


def moved_and_copied_back(folder: Path) -> None:
    moved(folder)
    shutil.copytree(folder.with_name("elsewhere"), folder)


def unlocked(folder: Path) -> None:
    (folder / process.FILE).unlink()


@pytest.mark.parametrize(
    ("away", "place"),
    [
        (moved, "elsewhere"),
        (moved_and_copied_back, "elsewhere"),
        (removed, None),
        (replaced, None),
        (unlocked, None),
    ],
)
def test_a_folder_that_goes_away_is_noticed_and_found_again(
    away: Callable[[Path], None], place: str | None, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    with lock.hold(folder) as held:
        held.require()
        assert held.follow() == folder
        away(folder)
        with pytest.raises(FolderLost, match=place or "removed or replaced"):
            held.require()
        assert held.follow() == (tmp_path / place if place else None)
        if place:
            held.require()
    if place:
        assert not (tmp_path / place / process.FILE).exists()


def test_a_holder_that_was_thought_dead_writes_no_further(tmp_path: Path) -> None:
    """Another machine's, without flock, after a pause that was too long."""
    with lock.hold(tmp_path) as held:
        path = signed(tmp_path, pid=77)
        held.beat()
        with pytest.raises(FolderLost, match=r"taken over by another training \(process 77 on far"):
            held.require()
        assert held.follow() is None
    assert json.loads(path.read_text())["pid"] == 77
