"""Many jobs from one command: apart from each other in folder, seed and failure."""

from __future__ import annotations

import json
import re
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Any

import pytest

from harness.cli.hydra_app import compose
from harness.common.errors import RunFailure
from harness.config.saved import load_settings
from harness.runs import test_reads
from harness.runs.summary import read_summary
from harness.training import new_folder, sweep
from tests.training.sweeps import Command, folders, status, trace, without_model
from zoo.bigram import Bigram


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


def test_variants_of_a_model_are_candidates(
    command: Command, small: tuple[str, ...], tmp_path: Path
) -> None:
    """Validation alone chooses among them; a stopped one that goes on by itself stays one."""
    folder = tmp_path / "sweep"
    ended = command(
        "train", "-m", *small, "model.n_head=1,2", "train.steps=1", f"hydra.sweep.dir={folder}"
    )
    assert ended.code == 0, ended.err
    for name in folders(folder):
        assert read_summary(folder / name).candidate
        assert "candidate" not in (folder / name / "config.yaml").read_text()
    assert "validation bits per byte" in ended.out
    assert " test " not in ended.out.partition("reaches")[0]
    run = folder / folders(folder)[0]
    assert command("train", f"run_dir={run}", "resume=true", "train.steps=2").code == 0
    assert read_summary(run).candidate
    scored = command("evaluate", str(run))
    assert re.search(r"(?m)^split +val$", scored.out)
    assert not (run / test_reads.FILE).exists()
    assert command("evaluate", str(run), "--split", "test").code == 0
    assert "harness.evaluate" in (run / test_reads.FILE).read_text()


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


@pytest.mark.long
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
    assert "train.steps=0 must be at least 1" in (folder / "0-gpt-char" / "train.log").read_text()
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


@pytest.mark.parametrize(
    ("jobs", "code"),
    [pytest.param("model.n_embd=8", 0, marks=pytest.mark.long), ("model.n_embd=8,7", 1)],
)
@pytest.mark.long
def test_a_table_that_nobody_reads_is_no_failure(
    jobs: str,
    code: int,
    command: Command,
    small: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`… | head`. A job that failed is one all the same: 7 is no multiple of the heads."""

    def print_comparison(*arguments: object) -> None:
        raise BrokenPipeError

    monkeypatch.setattr(sweep, "print_comparison", print_comparison)
    model = ("model=gpt", "model.n_layer=1", "model.n_head=2")
    chosen = (*without_model(small), *model, jobs, "train.steps=1")
    ended = command("train", "-m", *chosen, f"hydra.sweep.dir={tmp_path / 'sweep'}")
    assert ended.code == code, ended.err
    assert (tmp_path / "sweep" / "report.html").exists()


def test_a_disk_that_is_full_before_the_first_job_ends_the_sweep(
    command: Command, small: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load_dataset(*arguments: Any) -> None:
        raise RunFailure("train.ids can't be written: No space left on device")

    monkeypatch.setattr(sweep, "load_dataset", load_dataset)
    ended = command("train", "-m", *small, "seed=0,1", f"hydra.sweep.dir={tmp_path / 'sweep'}")
    assert ended.code == 1
    assert ended.err == "error: train.ids can't be written: No space left on device\n"
