"""How a run ended can be written on a disk that is full."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from harness.common import files
from harness.common.errors import RunFailure
from harness.runs.summary import Summary, read_summary


def used(folder: Path) -> int:
    """In blocks of a file system."""
    return sum(-(-path.stat().st_size // 4096) * 4096 for path in folder.iterdir())


@pytest.fixture
def full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which nothing may take more room than now."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    Summary(status="running", error="e" * 3000).write(tmp_path)
    limit = used(tmp_path)

    def fsync(descriptor: int) -> None:
        if used(tmp_path) > limit:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "fsync", fsync)
    return tmp_path


def test_a_run_that_ends_has_room_for_its_summary(full_disk: Path) -> None:
    running = Summary(status="running", model="gpt")
    with pytest.raises(RunFailure, match="No space left on device"):
        running.write(full_disk)  # the reserve is for the end alone
    assert read_summary(full_disk).model is None
    failed = Summary(status="failed", error="e" * 9000)
    failed.write(full_disk)
    assert read_summary(full_disk) == failed
    assert [path.name for path in full_disk.iterdir()] == ["summary.json"]


def test_a_run_that_is_resumed_keeps_room_again(tmp_path: Path) -> None:
    Summary(status="stopped").write(tmp_path)
    alone = used(tmp_path)
    Summary(status="running").write(tmp_path)
    Summary(status="running").write(tmp_path)
    assert used(tmp_path) > alone + 9000
    Summary(status="finished").write(tmp_path)
    assert used(tmp_path) == alone
