"""Many jobs from one command: apart from each other in folder, seed and failure."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Any

import pytest

from harness.cli.hydra_app import compose
from harness.config.saved import load_settings
from harness.training import loop, new_folder, sweep
from tests.conftest import Ended
from tests.small_runs import SMALL
from tests.waiting import GUARD, wait_until
from zoo.bigram import Bigram

Command = Callable[..., Ended]


@pytest.fixture
def small(small_text: Path, tmp_path: Path) -> tuple[str, ...]:
    """Settings of a job of a fraction of a second."""
    return (
        *SMALL, f"data.path={small_text}", f"cache={tmp_path / 'cache'}",
        "model.n_layer=1", "model.n_head=2", "model.n_embd=16", "model.dropout=0.2",
    )  # fmt: skip


def without_model(small: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(override for override in small if not override.startswith("model."))


def trace(run: Path) -> list[dict[str, Any]]:
    """metrics.jsonl, but for the seconds."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def status(run: Path) -> str:
    return json.loads((run / "summary.json").read_text())["status"]


def folders(sweep: Path) -> list[str]:
    return sorted(path.name for path in sweep.iterdir() if path.is_dir())


def contents(run: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path.relative_to(run)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(run.rglob("*"))
        if path.is_file()
    }


def test_every_combination_is_a_run_and_one_table_ends_them(
    command: Command, small: tuple[str, ...], tmp_path: Path
) -> None:
    folder = tmp_path / "sweep"
    ended = command(
        "train", "-m", "model=bigram,gpt", "seed=0,1", *without_model(small),
        f"hydra.sweep.dir={folder}",
    )  # fmt: skip
    assert ended.code == 0, ended.err
    names = ["0-bigram-char-s0", "1-bigram-char-s1", "2-gpt-char-s0", "3-gpt-char-s1"]
    assert folders(folder) == names
    for name in names:
        assert status(folder / name) == "finished"
        chosen = load_settings(folder / name / "config.yaml")
        assert f"-{chosen.names.model}-char-s{chosen.seed}" in name
    assert len({json.dumps(trace(folder / name)) for name in names}) == 4
    # A line for each job, then a table with a line for each model.
    lines = ended.out.splitlines()
    assert [line.rpartition("/")[2] for line in lines[:4]] == names
    ranks = [line.split()[:3] for line in lines if re.match(r" *\d +\w", line)]
    assert ranks == [["1", "gpt", "2"], ["2", "bigram", "2"]]  # rank, model, how many seeds
    assert (folder / "report.html").stat().st_size > 1000


def test_a_recipe_can_be_a_sweep(command: Command, assets: Path, tmp_path: Path) -> None:
    """experiment=compare says hydra.mode=MULTIRUN and what to sweep over."""
    folder = tmp_path / "sweep"
    ended = command(
        "train", "experiment=compare", "model=bigram", "seed=3,4", "train.steps=1",
        "eval.sample_tokens=0", f"assets=[{assets}]", f"hydra.sweep.dir={folder}",
    )  # fmt: skip
    assert ended.code == 0, ended.err
    assert folders(folder) == ["0-bigram-char-s3", "1-bigram-char-s4"]


def test_a_job_alone_equals_the_same_job_in_a_sweep(
    command: Command, small: tuple[str, ...], tmp_path: Path
) -> None:
    """Bit for bit, dropout and all, after another job in the same process."""
    folder = tmp_path / "sweep"
    assert command("train", "-m", "seed=0,1", *small, f"hydra.sweep.dir={folder}").code == 0
    assert command("train", "seed=1", *small, f"run_dir={tmp_path / 'alone'}").code == 0
    assert trace(folder / "1-gpt-char-s1") == trace(tmp_path / "alone")
    assert trace(folder / "0-gpt-char-s0") != trace(tmp_path / "alone")


def test_a_job_that_can_not_be_leaves_the_others_alone(
    command: Command, small: tuple[str, ...], tmp_path: Path
) -> None:
    folder = tmp_path / "sweep"
    ended = command("train", "-m", *small, "model.n_head=3,4", f"hydra.sweep.dir={folder}")
    assert ended.code == 1
    reason = "n_embd=16 is not a multiple of n_head=3"
    assert f"job 0 will fail: model: {reason}" in ended.err.splitlines()[0]
    assert "Traceback" not in ended.err
    assert folders(folder) == ["0-gpt-char-s0", "1-gpt-char-s0"]
    assert [status(folder / name) for name in folders(folder)] == ["failed", "finished"]
    log = (folder / "0-gpt-char-s0" / "train.log").read_text()
    assert "Traceback" in log
    assert reason in log
    (line,) = [line for line in ended.out.splitlines() if "0-gpt-char-s0" in line]
    assert "failed" in line
    assert reason in " ".join(ended.out.split())


def test_a_job_whose_settings_can_not_be_read_leaves_the_others_alone(
    command: Command, small: tuple[str, ...], tmp_path: Path
) -> None:
    folder = tmp_path / "sweep"
    ended = command(
        "train", "-m", *small, "train.steps=0,1,x", "seed=5", f"hydra.sweep.dir={folder}"
    )
    assert ended.code == 1
    assert folders(folder) == ["0-gpt-char", "1-gpt-char-s5", "2-gpt-char"]
    assert [status(folder / name) for name in folders(folder)] == ["failed", "finished", "failed"]
    assert "train.steps=0 must be above 0" in (folder / "0-gpt-char" / "train.log").read_text()
    assert "failed" in ended.out


def test_a_job_that_crashes_leaves_the_others_alone(
    command: Command, small: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def features(*arguments: object) -> None:
        raise RuntimeError("boom in the model")

    monkeypatch.setattr(Bigram, "features", features)
    folder = tmp_path / "sweep"
    ended = command(
        "train", "-m", "model=bigram,gpt", *without_model(small), f"hydra.sweep.dir={folder}"
    )
    assert ended.code == 1
    assert [status(folder / name) for name in folders(folder)] == ["failed", "finished"]
    log = (folder / "0-bigram-char-s0" / "train.log").read_text()
    assert "Traceback" in log
    assert "RuntimeError: boom in the model" in log
    assert "boom" not in (folder / "1-gpt-char-s0" / "train.log").read_text()
    assert "boom in the model" in ended.out


def test_two_sweeps_of_the_same_second_get_different_folders() -> None:
    while True:
        found = [compose([]) for _ in range(2)]
        first, second = (str(cfg.hydra.sweep.dir) for cfg in found)
        if first[:-6] == second[:-6]:  # the same second: what differs is the last six letters
            break
    assert first != second
    assert first == found[0].hydra.sweep.dir  # and one sweep stays in its own


def test_two_runs_of_the_same_second_get_different_folders(
    command: Command, small: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes that begin together each see the name free, and one makes the folder first."""

    class Stopped(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Stopped:
            return cls(2026, 1, 2, 3, 4, 5)

    monkeypatch.setattr(new_folder, "datetime", Stopped)
    for _ in range(3):
        assert command("train", *small, "train.steps=1").code == 0
    names = [f"03-04-05-gpt-char-s0{number}" for number in ("", "-2", "-3")]
    assert folders(tmp_path / "here" / "runs" / "2026-01-02") == names


def test_a_taken_folder_is_refused_and_left_as_it_was(
    command: Command, small: tuple[str, ...], tmp_path: Path
) -> None:
    folder = tmp_path / "sweep"
    folder.mkdir()
    (folder / "mine").write_text("x")
    ended = command("train", "-m", "seed=0,1", *small, f"hydra.sweep.dir={folder}")
    assert ended.code == 2
    assert ended.err == (
        f"error: hydra.sweep.dir={folder} exists already; go on with it by resume=true\n"
    )
    assert [path.name for path in folder.iterdir()] == ["mine"]


# Going on with a sweep


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
from harness.training import loop
from harness import train
draw = loop.draw_batch
def drawing(ids, seed, step, *rest):
    if (seed, step) == (1, 30):
        os.kill(os.getpid(), signal.SIGKILL)
    return draw(ids, seed, step, *rest)
loop.draw_batch = drawing
run_hydra(train.task)
"""


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


# The rest of what it does


def test_a_sweep_of_measurements_leaves_no_folder(
    command: Command, small: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """harness.bench keeps nothing, so a sweep of it has no table and no report."""
    leave: list[Any] = []
    monkeypatch.setattr(sweep.atexit, "register", lambda *call: leave.append(call))
    monkeypatch.setattr(
        "harness.diagnostics.bench.measure", lambda settings: {"seed": str(settings.seed)}
    )
    ended = command("bench", "-m", "seed=0,1", *small)
    assert ended.code == 0, ended.err
    assert re.findall(r"seed +(\d)", ended.out) == ["0", "1"]
    for function, *arguments in leave:  # as the process would on leaving
        function(*arguments)
    assert list((tmp_path / "here").iterdir()) == []


def test_a_report_that_fails_fails_the_sweep(
    command: Command, small: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hydra would turn it into a warning and exit code 0."""

    def write_report(*arguments: object) -> None:
        raise ZeroDivisionError("in the report")

    monkeypatch.setattr("harness.training.sweep.write_report", write_report)
    ended = command("train", "-m", *small, "train.steps=1", f"hydra.sweep.dir={tmp_path / 's'}")
    assert ended.code == 1
    assert "ZeroDivisionError: in the report" in ended.err
