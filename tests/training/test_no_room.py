"""Full disks, read-only folders and too little memory: a training says what is missing."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.diagnostics import drill
from harness.runs import checkpoint
from harness.runs.checkpoint import StepCheckpoint
from tests.small_runs import rows, summary
from tests.training.processes import leftovers, overrides, steps_saved
from tests.waiting import GUARD, wait_until


def saved_once(folder: Path) -> Callable[[], bool]:
    """Whether a checkpoint was saved, and more will be."""
    return lambda: bool((folder / "run").exists() and steps_saved(folder))


ENDLESS = ("train.steps=100000", "eval.every=100000", "checkpoint.every=20")


def require_failure(folder: Path, words: str) -> None:
    """It ended in words, nothing half written was left, and the checkpoint before is whole."""
    output = (folder / "output.txt").read_text()
    assert words in output
    assert "Traceback" not in output
    assert not leftovers(folder)
    assert checkpoint.load(folder / "run" / "checkpoints", StepCheckpoint) is not None


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="only Linux can limit from outside")
def test_a_file_that_may_not_grow_is_like_a_full_disk(tmp_path: Path) -> None:
    folder = tmp_path / "one"
    life = drill.start(drill.train_or_resume, overrides(tmp_path, *ENDLESS), folder)
    wait_until(saved_once(folder), life.is_alive)
    resource.prlimit(life.pid or 0, resource.RLIMIT_FSIZE, (20_000, 20_000))
    life.join(GUARD)
    assert life.exitcode == 1
    require_failure(folder, "can't be written: File too large")
    done = steps_saved(folder)[0]
    ending = overrides(tmp_path, f"train.steps={done + 5}", "eval.every=100000")
    drill.finish(drill.start(drill.train_or_resume, ending, folder), folder)
    assert [row["step"] for row in rows(folder)] == list(range(done + 6))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of 400 kB, in memory."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(disk)]
    try:
        made = subprocess.run(mount, capture_output=True).returncode == 0
    except OSError:
        made = False
    if not made:
        pytest.skip("mounting a small disk needs root")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_disk_that_runs_full(tmp_path: Path, small_disk: Path) -> None:
    folder = small_disk / "one"
    life = drill.start(drill.train_or_resume, overrides(tmp_path, *ENDLESS), folder)
    life.join(GUARD)  # its rows fill what the checkpoints leave
    assert life.exitcode == 1
    require_failure(folder, "can't be written: No space left on device")
    assert summary(folder)["status"] == "failed"


def make_read_only(path: Path) -> list[str]:
    """Returns the command that undoes it. No mode stops root, but a mount does."""
    if os.geteuid() != 0:
        path.chmod(0o555)
        return ["chmod", "755", str(path)]
    for command in (["mount", "--bind", path, path], ["mount", "-o", "remount,ro,bind", path]):
        if subprocess.run(command, capture_output=True).returncode != 0:
            pytest.skip("nothing here makes a folder read-only for root")
    return ["umount", "-l", str(path)]


def test_a_folder_that_becomes_read_only(tmp_path: Path) -> None:
    folder = tmp_path / "one"
    life = drill.start(drill.train_or_resume, overrides(tmp_path, *ENDLESS), folder)
    wait_until(saved_once(folder), life.is_alive)
    undo = make_read_only(folder / "run" / "checkpoints")
    try:
        life.join(GUARD)
        assert life.exitcode == 1
        require_failure(folder, "can't be written: ")
    finally:
        life.kill()
        subprocess.run(undo, check=True)


def short_of_memory(chosen: list[str], folder: Path) -> None:
    """A life that may take some hundred megabytes more than it has by now."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * os.sysconf("SC_PAGE_SIZE") + 600_000_000
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    drill.train_or_resume(chosen, folder)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads its size from Linux")
@pytest.mark.parametrize("large", ["train.batch_size=200000000", "model.n_embd=3072"])
def test_without_memory_it_says_what_to_lower(tmp_path: Path, large: str) -> None:
    life = drill.start(short_of_memory, overrides(tmp_path, large), tmp_path / "one")
    life.join(GUARD)
    output = (tmp_path / "one/output.txt").read_text()
    assert life.exitcode == 1, output
    assert "out of memory" in output
    assert "lower train.batch_size=" in output
    assert "Traceback" not in output
    assert summary(tmp_path / "one")["status"] == "failed"
