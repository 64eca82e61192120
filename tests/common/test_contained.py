"""A run's files are regular files of its own folder, with a limit."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from harness.common import contained
from harness.common.contained import UnsafeFile
from harness.common.errors import RunFailure, UsageError
from harness.common.files import AppendedFile, remove_leftovers, write_atomically
from harness.compute.memory import total_memory


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "private.txt").write_text("private")
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


ODD: dict[str, Callable[[Path], object]] = {
    "a link": lambda path: path.symlink_to("../outside/private.txt"),
    "a pipe": os.mkfifo,
    "a folder": Path.mkdir,
    "a device": lambda path: path.symlink_to("/dev/zero"),
}


@pytest.mark.parametrize("odd", ODD)
def test_what_is_no_file_of_the_folder_is_neither_read_nor_written(odd: str, run: Path) -> None:
    path = run / "summary.json"
    ODD[odd](path)
    with pytest.raises(UnsafeFile, match="is a "):
        contained.read(path)
    with pytest.raises(RunFailure, match="can't be written: a "):
        AppendedFile(path)
    for flags in (os.O_APPEND | os.O_WRONLY, os.O_WRONLY | os.O_TRUNC, os.O_RDWR, os.O_RDONLY):
        with pytest.raises(UnsafeFile):
            contained.opener(str(path), flags | os.O_CREAT)
    assert contained.read_tail(path, 99) == b""
    assert (run / "../outside/private.txt").read_text() == "private"


def test_a_link_is_replaced_not_followed(run: Path) -> None:
    (run / "a").symlink_to("../outside/private.txt")
    write_atomically(run / "a", b"new")
    assert (run / "a").read_text() == "new"
    assert (run / "../outside/private.txt").read_text() == "private"


def test_a_folder_inside_may_be_no_link_and_the_path_to_the_run_may(run: Path) -> None:
    (run / "checkpoints").symlink_to("../outside")
    (run.parent / "way").symlink_to("run")
    write_atomically(run.parent / "way" / "a", b"new")
    assert contained.read(run.parent / "way" / "a") == b"new"
    inside = run.parent / "way" / "checkpoints" / "private.txt"
    with pytest.raises(UnsafeFile, match="checkpoints is a link"):
        contained.read(inside, inside=2)
    with pytest.raises(RunFailure, match="can't be written: a link"):
        write_atomically(inside, b"x", inside=2)
    with pytest.raises(UnsafeFile):
        contained.names(run / "checkpoints")
    with pytest.raises(UnsafeFile):
        contained.unlink(inside, inside=2)
    leftover = run.parent / "outside" / ".x.zoo-0123abcd"
    leftover.write_text("x")
    remove_leftovers(run / "checkpoints", inside=1)
    assert leftover.exists()
    remove_leftovers(run.parent / "outside")  # the control
    assert not leftover.exists()
    assert (run.parent / "outside" / "private.txt").read_text() == "private"


def test_a_second_name_is_read_but_not_written(run: Path) -> None:
    os.link(run.parent / "outside" / "private.txt", run / "train.log")
    assert contained.read(run / "train.log") == b"private"
    for flags in (os.O_APPEND | os.O_WRONLY, os.O_WRONLY | os.O_TRUNC, os.O_RDWR):
        with pytest.raises(UnsafeFile, match="hard link"):
            contained.opener(str(run / "train.log"), flags)
    assert (run.parent / "outside" / "private.txt").read_text() == "private"


def test_no_checkpoint_that_could_be_loaded_is_too_large(run: Path) -> None:
    for name in ("best-00000001.pt", "step-00000001.pt"):
        most = contained.limit(run / "checkpoints" / name)
        assert most >= max(16 << 30, total_memory(torch.device("cpu")))
    assert contained.limit(run / "checkpoints" / "best-00000001.pt.sha256") < 1 << 20


def test_every_file_has_a_limit_that_the_user_can_raise(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = run / "process.json"
    with path.open("wb") as file:
        file.truncate(contained.OTHERS + 1)
    with pytest.raises(UnsafeFile, match=r"process\.json is too large.*ZOO_LIMITS=10"):
        contained.read(path)
    assert len(contained.read_tail(path, 10)) == 0  # a line that was cut
    monkeypatch.setenv("ZOO_LIMITS", "2")
    assert len(contained.read(path)) == contained.OTHERS + 1
    for wrong in ("", "x", "0", "-1", "nan", "inf"):
        monkeypatch.setenv("ZOO_LIMITS", wrong)
        with pytest.raises(UsageError, match="ZOO_LIMITS"):
            contained.read(path)


def test_a_file_that_is_taken_for_another_while_it_is_opened(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was looked at is a file, what is opened is a link."""
    path, look = run / "a", os.stat
    path.write_text("x")

    def swapping(name: str, **options: object) -> os.stat_result:
        found = look(name, **options)  # type: ignore[arg-type]
        if name == "a":
            path.unlink()
            path.symlink_to("../outside/private.txt")
        return found

    monkeypatch.setattr(os, "stat", swapping)
    with pytest.raises(OSError, match="symbolic"):
        contained.opener(str(path), os.O_APPEND | os.O_WRONLY)
