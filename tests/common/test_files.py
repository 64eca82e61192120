"""Files are written whole or not at all, and the first error is the one that is reported."""

from __future__ import annotations

import fcntl
import os
import resource
import secrets
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness.common import files
from harness.common.errors import RunFailure
from harness.common.files import AppendedFile, atomic_write, remove_folder, remove_leftovers


@contextmanager
def no_file_above(size: int) -> Iterator[None]:
    """As a full disk: no file may grow beyond `size` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("size", range(0, 24, 3))
def test_an_appended_file_ends_with_a_whole_record(tmp_path: Path, size: int) -> None:
    file = AppendedFile(tmp_path / "log")

    def append(count: int) -> None:
        for number in range(count):
            file.append(f"record {number}\n".encode())

    with no_file_above(size), pytest.raises(RunFailure, match="log can't be written: File too lar"):
        append(9)
    content = (tmp_path / "log").read_bytes()
    assert content == b"".join(b"record %d\n" % number for number in range(size // 9))
    file.append(b"room again\n")
    file.close()
    assert (tmp_path / "log").read_bytes() == content + b"room again\n"


def test_a_full_disk_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_bytes(b"old")
    with no_file_above(10):
        with (
            pytest.raises(RunFailure, match="file can't be written: File too large"),
            atomic_write(target) as file,
        ):
            file.write(b"new" * 9)
        with pytest.raises(ZeroDivisionError), atomic_write(target) as file:
            assert file.write(b"new" * 9) / 0  # the write fails when the file is closed
    assert target.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def _forked(work: Callable[[], None]) -> int:
    """The id of a process that does it, and then waits to be killed."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        try:
            work()
            os.write(write, b".")
            signal.pause()
        finally:
            os._exit(1)
    assert os.read(read, 1) == b"."
    os.close(read), os.close(write)
    return child


def test_what_a_killed_process_left_is_removed_and_what_is_being_written_is_not(
    tmp_path: Path,
) -> None:
    def half() -> None:
        vars(files)["_held"] = context = atomic_write(tmp_path / "train.ids")
        context.__enter__().write(b"half")

    child = _forked(half)
    (left,) = names(tmp_path)
    (tmp_path / ".notes.markdown").touch()  # the user's
    remove_leftovers(tmp_path)
    assert names(tmp_path) == [".notes.markdown", left]
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    remove_leftovers(tmp_path)
    assert names(tmp_path) == [".notes.markdown"]


def test_without_locks_only_what_is_old_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*arguments: object) -> None:
        raise OSError("not supported")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    for name, age in ((".a.zoo-0000abcd", 0.0), (".b.zoo-0000abcd", 2 * files.ABANDONED)):
        (tmp_path / name).touch()
        began = (tmp_path / name).stat().st_mtime - age
        os.utime(tmp_path / name, (began, began))
    remove_leftovers(tmp_path)
    assert names(tmp_path) == [".a.zoo-0000abcd"]
    with atomic_write(tmp_path / "c") as file:
        file.write(b"c")
    assert (tmp_path / "c").read_bytes() == b"c"


def test_a_file_that_is_taken_for_a_leftover_before_its_lock_is_begun_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, taken = fcntl.flock, []

    def late(file, how: int) -> None:  # noqa: ANN001
        if not taken:
            taken.extend(names(tmp_path))
            os.unlink(tmp_path / taken[0])
        lock(file, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with atomic_write(tmp_path / "a") as file:
        file.write(b"a")
    assert taken
    assert (tmp_path / "a").read_bytes() == b"a"
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize("kind", ["a folder", "a pipe", "a link", "nothing"])
def test_a_folder_is_removed_and_nothing_else(kind: str, tmp_path: Path) -> None:
    place, other = tmp_path / "tokenizer", tmp_path / "other"
    (other / "x").mkdir(parents=True)
    match kind:
        case "a folder":
            shutil.copytree(other, place)
        case "a pipe":
            os.mkfifo(place)
        case "a link":
            place.symlink_to(other)
    remove_folder(place)
    left = {"a folder": [], "a pipe": ["tokenizer"], "a link": ["tokenizer"], "nothing": []}
    assert names(tmp_path) == ["other", *left[kind]]
    assert names(other) == ["x"]


def test_a_folder_swapped_for_a_link_gets_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After it was found to be a folder, before the file is made."""
    folder, outside = tmp_path / "tokenizer", tmp_path / "outside"
    folder.mkdir(), outside.mkdir()
    choose, during = secrets.token_hex, []

    def swap(size: int) -> str:
        folder.rename(tmp_path / "moved")
        folder.symlink_to(outside)
        return choose(size)

    monkeypatch.setattr(secrets, "token_hex", swap)
    with atomic_write(folder / "vocab.txt", inside=2) as file:
        file.write(b"private")
        during.extend(names(outside))
    assert during == names(outside) == []
    assert (tmp_path / "moved" / "vocab.txt").read_bytes() == b"private"
