"""Jobs of a sweep at the same time: one on each device, whatever becomes of the others."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.core.hydra_config import HydraConfig

from harness.common.errors import UsageError
from harness.config.saved import load_settings
from harness.runs.summary import read_summary
from harness.training import devices
from harness.training.devices import Devices, Place, named_devices
from tests.conftest import Ended
from tests.training.sweeps import Command, contents, folders, status, trace, without_model
from tests.waiting import GUARD, wait_until


@pytest.fixture
def _forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fork costs no import, and no device here is one that it could not use."""
    monkeypatch.setattr(devices, "CONTEXT", get_context("fork"))
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)  # they are pretended


def busy(folder: Path, name: str, together: list[str], place: Place) -> int:
    """Holds its device, which must be free, until all of `together` have begun."""
    held = folder / f"{place.device} is busy"
    held.touch(exist_ok=False)
    (folder / name).write_text(f"{place.device} beside {place.beside}")
    wait_until(lambda: all((folder / other).exists() for other in together))
    held.unlink()
    return 0


def in_its_process(folder: Path, place: Place) -> int:
    (folder / str(os.getpid())).touch(exist_ok=False)
    return 0


def killed(place: Place) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def failing(place: Place) -> int:
    return 1


@pytest.mark.usefixtures("_forked")
def test_every_device_has_one_job_at_a_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pretended = ["cuda:0", "cuda:1", "cuda:2"]
    train = Devices(pretended, 7, "go on")
    for number in range(6):
        first = number - number % 3  # three by three they wait for each other
        together = [f"job {first + n}" for n in range(3)]
        train.start(f"job {number}", partial(busy, tmp_path, f"job {number}", together))
    train.start("job 6", partial(busy, tmp_path, "job 6", []))
    train.finish()
    said = capsys.readouterr().err.splitlines()
    assert sum("finished" in line for line in said) == 7
    assert said[-1].endswith("finished; 7 of 7 jobs have ended")
    places = [(tmp_path / f"job {n}").read_text() for n in range(6)]
    expected = [f"{name} beside 2" for name in pretended]
    assert sorted(places[:3]) == sorted(places[3:]) == expected


@pytest.mark.usefixtures("_forked")
def test_a_job_that_dies_or_fails_leaves_the_others_their_device(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = Devices(["cuda:0", "cuda:1"], 4, "go on")
    for name, job in (
        ("dying", killed), ("failing", failing),
        ("a", partial(busy, tmp_path, "a", ["a", "b"])),
        ("b", partial(busy, tmp_path, "b", ["a", "b"])),
    ):  # fmt: skip
        train.start(name, job)
    train.finish()
    said = capsys.readouterr().err
    assert re.search(r"dying on cuda:\d: killed by SIGKILL", said)
    assert re.search(r"failing on cuda:\d: failed", said)
    assert len(re.findall(r"[ab] on cuda:\d: finished", said)) == 2


@pytest.mark.usefixtures("_forked")
def test_every_job_has_a_process_of_its_own(tmp_path: Path) -> None:
    """What an earlier job's libraries keep would be in its peak memory."""
    train = Devices(["cpu", "cpu"], 5, "go on")
    for number in range(5):
        train.start(f"job {number}", partial(in_its_process, tmp_path))
    train.finish()
    assert len([*tmp_path.iterdir()]) == 5


def test_no_more_devices_than_jobs() -> None:
    """The last of a sweep has the machine alone, and its seconds are not marked."""
    for jobs, beside in ((0, 0), (1, 0), (2, 1), (9, 2)):
        train = Devices(["cuda:0", "cuda:1", "cuda:2"], jobs, "go on")
        assert len(train._places) - 1 == beside
        train.finish()


@pytest.mark.parametrize(
    ("asked", "device", "found"),
    [
        (None, "auto", []),
        ("auto", "auto", ["cuda:0", "cuda:1"]),
        (2, "auto", ["cuda", "cuda"]),
        (2, "cpu", ["cpu", "cpu"]),
        ("cuda:1", "auto", ["cuda:1"]),
        (["cuda:1", "cuda:0"], "auto", ["cuda:1", "cuda:0"]),
        (["cuda:1", "cpu"], "auto", "different devices of one kind"),
        (["cuda:1", "cuda:1"], "auto", "different devices of one kind"),
        ([], "auto", "different devices of one kind"),
        (["cuda:2"], "auto", "cuda:2 is not on this machine"),
        (["gpu"], "auto", "sweep.devices=gpu"),
        ("auto", "cpu", "device=cpu and sweep.devices=auto: leave one out"),
    ],
)
def test_devices_by_name(
    asked: Any, device: str, found: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    if isinstance(found, list):
        assert named_devices(asked, device) == found
        return
    with pytest.raises(UsageError, match=re.escape(found)):
        named_devices(asked, device)


def test_without_a_gpu_auto_is_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert named_devices("auto", "auto") == ["cpu"]


@pytest.mark.parametrize(
    ("device", "cores", "found"),
    [
        ("cpu", 3, ["cpu"] * 3),
        ("auto", 2, ["cpu"] * 2),
        ("cpu", 1, []),
        ("cpu", 64, ["cpu"] * 8),
        ("cuda", 3, []),
    ],
)
def test_a_job_on_each_core(
    device: str, cores: int, found: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A single core, and a GPU, train one after another, in this process."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: device == "cuda")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: int(device == "cuda"))
    monkeypatch.setattr(torch, "get_num_threads", lambda: cores)
    assert named_devices("cores", device) == found


@pytest.mark.usefixtures("_forked")
def test_a_job_beside_others_is_the_job_alone(
    command: Command, small: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit; what was finished before is not trained again, and its seconds stay unmarked."""
    monkeypatch.setattr("harness.training.sweep.write_report", lambda *_: None)  # costs a second
    folder, model = tmp_path / "sweep", ("model=bigram", *without_model(small))
    line = ("train", "-m", *model, f"hydra.sweep.dir={folder}")
    assert command(*line).code == 0
    before = contents(folder / "0-bigram-char-s0")
    ended = command(
        *line, "seed=0,1,2", "init=default,xavier,gpt2", "sweep.together=[seed,init]",
        "sweep.devices=2", "resume=true",
    )  # fmt: skip
    assert ended.code == 0, ended.err
    words = "3 jobs: the values of seed and init go together; at the same time on cpu, cpu"
    assert words in ended.err
    assert "2 of 2 jobs have ended" in ended.err
    assert contents(folder / "0-bigram-char-s0") == before
    names = [f"{number}-bigram-char-s{number}" for number in range(3)]
    assert folders(folder) == names
    assert [status(folder / name) for name in names] == ["finished"] * 3
    own = load_settings(folder / names[2] / "config.yaml")
    assert (own.init, own.device) == ("gpt2", "cpu")  # the same job wherever it is trained
    alone = ("seed=2", "init=gpt2", f"run_dir={tmp_path / 'alone'}")
    assert command("train", *model, *alone).code == 0
    assert trace(folder / names[2]) == trace(tmp_path / "alone")
    costs = [read_summary(folder / name).train for name in names]
    assert [cost.beside for cost in costs if cost] == [None, 1, 1]
    assert "while other jobs of the sweep (at most 1)" in ended.out


INTERPOLATED = "init='${by_model:{bigram: xavier, default: default}}'"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-m", "sweep.devices=cpu,cuda:0"], "should be a list: sweep.devices=[…,…]"),
        (["-m", "sweep.devices=0"], "sweep.devices=0 must be at least 1"),
        (["-m", "sweep.devices=[cuda:77]"], "cuda:77 is not on this machine"),
        # As a search writes it: only a job can say what it is.
        (["-m", INTERPOLATED, "sweep.devices=[cuda:77]"], "cuda:77 is not on this machine"),
        (["-m", "sweep.devices=2", "device=auto,cpu"], "device=auto,cpu and sweep.devices"),
        (["sweep.devices=2"], "sweep.devices=2 is for a sweep: add -m"),
    ],
)
def test_a_mistake_is_one_line(
    command: Callable[..., Ended],
    words: list[str],
    message: str,
    small_text: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(HydraConfig.instance(), "cfg", None)  # as in a new process
    text = ["data=text", f"data.path={small_text}", "model=bigram"]
    ended = command("train", *words, *text)
    assert ended.code == 2
    assert message in ended.err
    assert len(ended.err.splitlines()) == 1
    assert list((tmp_path / "here").iterdir()) == []


def test_only_trainings_are_spread(command: Callable[..., Ended]) -> None:
    ended = command("bench", "-m", "model=bigram", "sweep.devices=2")
    assert (ended.code, "sweep.devices is for harness.train" in ended.err) == (2, True)


@pytest.mark.long
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_stopped_or_killed_it_goes_on(
    signum: signal.Signals, small: tuple[str, ...], tmp_path: Path
) -> None:
    """The real command, to whose whole group a terminal sends Ctrl-C. After SIGKILL its workers
    notice by themselves."""
    folder, whole = tmp_path / "sweep", tmp_path / "whole"
    line = [
        sys.executable, "-m", "harness.train", "-m", "seed=0,1,2", *small, "train.steps=4000",
        "eval.every=1000", "sweep.devices=2",
    ]  # fmt: skip
    started = subprocess.Popen(
        [*line, f"hydra.sweep.dir={folder}"], cwd=tmp_path, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    runs = [folder / f"{seed}-gpt-char-s{seed}" for seed in (0, 1)]

    def rows(run: Path) -> int:
        file = run / "metrics.jsonl"
        return file.stat().st_size if file.exists() else 0

    wait_until(lambda: all(rows(run) > 2000 for run in runs), lambda: started.poll() is None)
    if signum == signal.SIGINT:
        os.killpg(started.pid, signum)
    else:
        started.send_signal(signum)
    said = started.communicate(timeout=GUARD)[1]
    assert started.returncode == {15: 143, 2: 130, 9: -9}[signum], said
    wait_until(lambda: [status(run) for run in runs] == ["stopped"] * 2)
    assert "Traceback" not in said
    if signum != signal.SIGKILL:
        assert f"resume=true hydra.sweep.dir={folder}" in said
    ended = subprocess.run([*line, f"hydra.sweep.dir={folder}", "resume=true"], cwd=tmp_path)
    assert ended.returncode == 0
    assert folders(folder) == [*(run.name for run in runs), "2-gpt-char-s2"]
    ended = subprocess.run([*line, f"hydra.sweep.dir={whole}"], cwd=tmp_path)
    assert ended.returncode == 0
    for name in folders(whole):
        assert trace(folder / name) == trace(whole / name)
