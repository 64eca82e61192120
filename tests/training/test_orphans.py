"""Who trains for another process leaves, its work saved, when that one is killed; what a person
started goes on."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from harness.cli.hydra_app import compose
from harness.diagnostics import drill
from harness.runs import metrics, process
from harness.training.sweep_jobs import run_job
from tests.training.processes import overrides
from tests.training.sweeps import status
from tests.waiting import GUARD, wait_until

ENDLESS = ("train.steps=1000000", "eval.every=100000", "checkpoint.every=100000")


def worker(chosen: list[str], sweep: Path, alive: Connection) -> None:
    """Holds `alive` until it ends."""
    run_job(compose(chosen), sweep, 0, chosen)


def sweep(chosen: list[str], folder: Path, alive: Connection) -> None:
    """The parent: one worker, and waiting for it."""
    job = get_context("fork").Process(target=worker, args=(chosen, folder, alive))
    job.start()
    job.join()


def rows_of(run: Path) -> int:
    row = metrics.last_row(run / metrics.FILE)
    return 0 if row is None else row["step"]


def newest_checkpoint(run: Path) -> int:
    steps = [int(path.stem.partition("-")[2]) for path in (run / "checkpoints").glob("step-*.pt")]
    return max(steps)


def test_a_worker_saves_and_leaves_when_its_parent_is_killed(tmp_path: Path) -> None:
    context = get_context("forkserver")
    context.set_forkserver_preload(drill.PRELOADED)
    ended, alive = context.Pipe(duplex=False)
    parent = context.Process(target=sweep, args=(overrides(tmp_path, *ENDLESS), tmp_path, alive))
    parent.start()
    alive.close()
    run = tmp_path / "0-gpt-char-s0"
    wait_until(lambda: rows_of(run) >= 3, parent.is_alive)
    parent.kill()
    parent.join()
    assert ended.poll(GUARD)  # nobody holds the other end any more
    assert status(run) == "stopped"
    assert newest_checkpoint(run) == rows_of(run) + 1
    said = (run / "train.log").read_text()
    assert "the process that started this one is gone" in said
    assert "stopped by SIGTERM, work saved" in said


def real(arguments: Sequence[str], folder: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, *arguments], cwd=folder, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=(folder / "said.txt").open("wb"),
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def killed(arguments: Sequence[str], folder: Path, train: Callable[[], bool]) -> None:
    """A real command, killed once its children `train`."""
    command = real(arguments, folder)
    wait_until(train, lambda: command.poll() is None)
    command.kill()
    command.wait()


def has_joblib() -> bool:
    return any(each.name == "hydra-joblib-launcher" for each in importlib.metadata.distributions())


@pytest.mark.long
@pytest.mark.skipif(not has_joblib(), reason="pip install hydra-joblib-launcher")
def test_the_workers_of_joblib_leave(tmp_path: Path) -> None:
    runs = [tmp_path / "sweep" / f"{number}-gpt-char-s{number}" for number in range(2)]
    chosen = overrides(tmp_path, *ENDLESS)
    command = [
        "-m", "harness.train", "-m", *chosen, "seed=0,1,2,3", "hydra/launcher=joblib",
        "hydra.launcher.n_jobs=2", f"hydra.sweep.dir={tmp_path / 'sweep'}",
    ]  # fmt: skip
    killed(command, tmp_path, lambda: all(rows_of(run) >= 3 for run in runs))
    wait_until(lambda: all(status(run) == "stopped" for run in runs))
    # Not even with the jobs that were handed to them already.
    wait_until(lambda: not workers_of(tmp_path))
    assert all(status(path.parent) == "stopped" for path in tmp_path.glob("sweep/*/summary.json"))


def workers_of(folder: Path) -> list[int]:
    """The processes that work in a folder, this one left out."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if (path / "cwd").resolve() == folder and process._start_time(int(path.name)):
                found.append(int(path.name))
        except OSError:
            continue
    return found


@pytest.mark.long
def test_the_ranks_of_torchs_launcher_leave(tmp_path: Path) -> None:
    run = tmp_path / "run"
    chosen = overrides(tmp_path, *ENDLESS, "train.accumulate=2", f"run_dir={run}")
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    killed([*command, "-m", "harness.train", *chosen], tmp_path, lambda: rows_of(run) >= 3)
    wait_until(lambda: not workers_of(tmp_path))
    assert status(run) == "stopped"
    assert newest_checkpoint(run) == rows_of(run) + 1


@pytest.mark.long
def test_a_training_from_the_live_page_outlives_it(tmp_path: Path) -> None:
    """The command says so, and nothing would be won by losing it."""
    page = subprocess.Popen(
        [sys.executable, "-m", "harness.live", "--port", "0"],
        cwd=tmp_path, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert page.stdout is not None
    address, key = page.stdout.readline().strip().split("/?key=")
    run = tmp_path / "run"
    order = {"command": " ".join(overrides(tmp_path, *ENDLESS, f"run_dir={run}"))}
    headers = {"X-Zoo-Key": key, "Origin": address}
    asked = urllib.request.Request(f"{address}/api/start", json.dumps(order).encode(), headers)
    with urllib.request.urlopen(asked) as answer:
        assert answer.status == 200
    wait_until(lambda: rows_of(run) >= 3, lambda: page.poll() is None)
    page.kill()
    page.communicate()
    reached = rows_of(run)
    wait_until(lambda: rows_of(run) > reached + 50)
    process.stop(run)
    wait_until(lambda: status(run) == "stopped")
    wait_until(lambda: not workers_of(tmp_path))


def test_a_training_that_a_person_started_has_no_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    from harness.common import parent

    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    assert parent._parents_end() is None
