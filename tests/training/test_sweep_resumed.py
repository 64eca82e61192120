"""A sweep that was cut off, killed or extended trains only what is missing."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.config.saved import load_settings
from harness.runs.digest import digest_of_run
from harness.training import loop, sweep_jobs
from tests.conftest import Ended
from tests.training.sweeps import Command, contents, folders, status, trace, without_model
from tests.waiting import GUARD, wait_until


def cut_off(
    command: Command, job: int, step: int, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Ended]:
    """Runs a sweep with a SIGTERM while the batch of a step of a job is drawn."""
    draw, begun = loop.draw_batch, []

    def drawing(ids: Any, seed: int, now: int, *rest: Any) -> Any:
        if now == 0:
            begun.append(seed)
        if (len(begun) - 1, now) == (job, step):
            os.kill(os.getpid(), signal.SIGTERM)
        return draw(ids, seed, now, *rest)

    def run(*arguments: str) -> Ended:
        with monkeypatch.context() as patch:
            patch.setattr(loop, "draw_batch", drawing)
            return command(*arguments)

    return run


@pytest.mark.long
def test_a_sweep_that_was_cut_off_goes_on_where_it_stopped(
    command: Command, small: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, whole = tmp_path / "sweep", tmp_path / "whole"
    line = ("train", "-m", "seed=0,1,2", *small)
    assert command(*line, f"hydra.sweep.dir={whole}").code == 0

    ended = cut_off(command, 1, 5, monkeypatch)(*line, f"hydra.sweep.dir={folder}")
    assert ended.code == 143
    assert f"resume=true hydra.sweep.dir={folder}" in ended.err
    assert folders(folder) == ["0-gpt-char-s0", "1-gpt-char-s1"]
    assert [status(folder / name) for name in folders(folder)] == ["finished", "stopped"]
    finished = contents(folder / "0-gpt-char-s0")

    ended = command(*line, "resume=true", f"hydra.sweep.dir={folder}")
    assert ended.code == 0, ended.err
    assert "0-gpt-char-s0 is finished already: nothing to do" in ended.err
    assert "going on from step 5" in ended.err or "going on from step 6" in ended.err
    assert contents(folder / "0-gpt-char-s0") == finished
    assert folders(folder) == folders(whole)
    for name in folders(whole):
        assert trace(folder / name) == trace(whole / name)
        assert status(folder / name) == "finished"


@pytest.mark.long
def test_a_job_that_failed_is_tried_again(
    command: Command, small: tuple[str, ...], small_text: Path, tmp_path: Path
) -> None:
    """It had no folder of its own making when it failed: its tokenizer, too, is made now."""
    folder, other = tmp_path / "sweep", tmp_path / "other.txt"
    line = ("train", "-m", *small, f"data.path={small_text},{other}", f"hydra.sweep.dir={folder}")
    ended = command(*line)
    assert ended.code == 1
    assert [status(folder / name) for name in folders(folder)] == ["finished", "failed"]
    assert "other.txt can't be read" in (folder / "1-gpt-char-s0" / "train.log").read_text()
    shutil.copy(small_text, other)
    assert command(*line, "resume=true").code == 0
    assert [status(folder / name) for name in folders(folder)] == ["finished", "finished"]
    assert trace(folder / "1-gpt-char-s0") == trace(folder / "0-gpt-char-s0")
    assert command("evaluate", folder / "1-gpt-char-s0").code == 0


# The second job's process ends by SIGKILL while the batch of a step is drawn.
KILLED = """
import os, signal
from harness.cli.hydra_app import run_hydra
from harness.runs.digest import digest_of_run
from harness.training import loop, sweep_jobs
from harness import train
draw = loop.draw_batch
def drawing(ids, seed, step, *rest):
    if (seed, step) == (1, 30):
        os.kill(os.getpid(), signal.SIGKILL)
    return draw(ids, seed, step, *rest)
loop.draw_batch = drawing
run_hydra(train.task)
"""


@pytest.mark.long
def test_killed_reordered_and_extended_it_runs_only_what_is_missing(
    command: Command, small: tuple[str, ...], tmp_path: Path
) -> None:
    """SIGKILL leaves no time to say anything: what is there is known by its configuration alone."""
    line = ("-m", *small, "train.steps=50", "eval.every=100", "checkpoint.every=20")
    folder, whole = tmp_path / "sweep", tmp_path / "whole"
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, *line, "seed=0,1,2", f"hydra.sweep.dir={folder}"],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    second = folder / "1-gpt-char-s1"
    assert [status(folder / name) for name in folders(folder)] == ["finished", "running"]
    finished = contents(folder / "0-gpt-char-s0")

    again = ("train", *line, "seed=3,1,0", "resume=true", f"hydra.sweep.dir={folder}")
    ended = command(*again)
    assert ended.code == 0, ended.err
    assert "1 of 3 jobs are finished" in ended.err
    assert f"{folder}/0-gpt-char-s0 is finished already: nothing to do" in ended.err
    assert int(re.findall(r"going on from step (\d+)", ended.err)[0]) >= 20
    assert contents(folder / "0-gpt-char-s0") == finished
    assert folders(folder) == ["0-gpt-char-s0", "0-gpt-char-s3", "1-gpt-char-s1"]
    assert command("train", *line, "seed=1,3", f"hydra.sweep.dir={whole}").code == 0
    assert trace(folder / "1-gpt-char-s1") == trace(whole / "0-gpt-char-s1")
    assert trace(folder / "0-gpt-char-s3") == trace(whole / "1-gpt-char-s3")

    before = contents(folder / "0-gpt-char-s3") | contents(second)
    ended = command(*again)
    assert "3 of 3 jobs are finished" in ended.err
    assert contents(folder / "0-gpt-char-s3") | contents(second) == before
    assert ended.code == 0


@pytest.mark.long
def test_other_settings_make_other_jobs(
    command: Command, small: tuple[str, ...], tmp_path: Path
) -> None:
    """Those that are there already stay as they are, and are not taken for the ones asked for."""
    folder = tmp_path / "sweep"
    line = ("train", "-m", "seed=0", *small, f"hydra.sweep.dir={folder}")
    assert command(*line).code == 0
    before = contents(folder / "0-gpt-char-s0")
    assert command(*line, "optimizer.lr=0.5", "train.steps=2", "resume=true").code == 0
    assert contents(folder / "0-gpt-char-s0") == before
    first, second = folders(folder)
    assert re.fullmatch(r"0-gpt-char-s0-[0-9a-f]{6}", second)
    assert load_settings(folder / second / "config.yaml").optimizer["lr"] == 0.5
    assert command(*line, "optimizer.lr=0.5", "train.steps=2", "resume=true").code == 0
    assert folders(folder) == [first, second]


@pytest.mark.long
def test_a_finished_job_that_was_edited_is_not_taken_for_the_one_asked_for(
    command: Command, small: tuple[str, ...], tmp_path: Path
) -> None:
    folder = tmp_path / "sweep"
    line = ("train", "-m", "seed=0", *small, "train.steps=1", f"hydra.sweep.dir={folder}")
    assert command(*line).code == 0
    saved = folder / "0-gpt-char-s0" / "config.yaml"
    saved.write_text(saved.read_text().replace("n_layer: 1", "n_layer: 2"))
    assert command(*line, "resume=true").code == 0
    assert len(folders(folder)) == 2


@pytest.mark.long
def test_a_recipe_that_was_cut_off_goes_on(
    command: Command, small: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of precision=auto, which was resolved when its jobs began."""
    folder = tmp_path / "sweep"
    line = (
        "train", "experiment=compare", "model=bigram,mlp", *without_model(small),
        "precision=auto", f"hydra.sweep.dir={folder}",
    )  # fmt: skip
    assert cut_off(command, 1, 5, monkeypatch)(*line).code == 143
    ended = command(*line, "resume=true")
    assert ended.code == 0, ended.err
    assert "1 of 2 jobs are finished" in ended.err
    assert "going on from step 5" in ended.err
    assert folders(folder) == ["0-bigram-char-s0", "1-mlp-char-s0"]


def test_a_sweep_goes_on_only_where_there_is_one(
    command: Command, small: tuple[str, ...], tmp_path: Path
) -> None:
    for folder in (tmp_path / "nope", tmp_path):
        ended = command("train", "-m", *small, "resume=true", f"hydra.sweep.dir={folder}")
        assert ended.code == 2
        assert f"({folder} is none)" in ended.err


def test_sigterm_stops_the_whole_sweep(small: tuple[str, ...], tmp_path: Path) -> None:
    """The real command, as a scheduler would stop it."""
    folder = tmp_path / "sweep"
    started = subprocess.Popen(
        [
            sys.executable, "-m", "harness.train", "-m", "seed=0,1", *small,
            "train.steps=1000000", "eval.every=1000000", f"hydra.sweep.dir={folder}",
        ],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path,
    )  # fmt: skip
    metrics = folder / "0-gpt-char-s0" / "metrics.jsonl"
    wait_until(
        lambda: metrics.exists() and metrics.stat().st_size > 1000, lambda: started.poll() is None
    )
    started.send_signal(signal.SIGTERM)
    out, err = started.communicate(timeout=GUARD)
    assert started.returncode == 143, err
    assert folders(folder) == ["0-gpt-char-s0"]
    assert status(folder / "0-gpt-char-s0") == "stopped"
    assert "stopped by SIGTERM, work saved" in err
    assert "Traceback" not in err
    assert out == ""


@pytest.mark.long
def test_what_a_kill_left_of_the_report_is_removed(
    command: Command, small: tuple[str, ...], tmp_path: Path
) -> None:
    folder = tmp_path / "sweep"
    line = ("train", "-m", "seed=0", *small, "train.steps=1", f"hydra.sweep.dir={folder}")
    assert command(*line).code == 0
    (folder / ".report.html.zoo-8b1b88b7").touch()
    assert command(*line, "resume=true").code == 0
    assert list(folder.glob(".*")) == []


def test_a_resumed_sweep_looks_at_each_run_once(
    train_run: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not once for each job that is not finished: with N of both it would be N²."""
    own, sweep, looks = (
        train_run("model=bigram", "train.steps=1"),
        tmp_path / "sweep",
        Counter[Path](),
    )
    settings = load_settings(own / "config.yaml")
    for seed in range(20):
        shutil.copytree(own, sweep / f"{seed}-before")
        (sweep / f"{seed}-before" / "config.yaml").write_text(settings.replace(seed=seed).dump())

    def look(run: Path) -> str | None:
        looks[run] += 1
        return digest_of_run(run)

    monkeypatch.setattr(sweep_jobs, "digest_of_run", look)
    for seed in range(10, 30):
        found = sweep_jobs.job_folder(sweep, f"{seed}-job", settings.replace(seed=seed))
        assert found == sweep / (f"{seed}-before" if seed < 20 else f"{seed}-job")
        assert sweep_jobs.job_folder(sweep, "again", settings.replace(seed=seed)) == found
    assert {looks[sweep / f"{seed}-before"] for seed in range(20)} == {1}
    (sweep / "multirun.yaml").touch()  # the sweep is started again
    shutil.move(sweep / "12-before", sweep / "moved")
    assert sweep_jobs.job_folder(sweep, "job", settings.replace(seed=12)) == sweep / "moved"
