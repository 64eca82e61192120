"""resume=auto: one command that begins a run, goes on with it, or says that all is done; and no
interruption of an extended run leaves it finished."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.common.errors import UsageError
from harness.config.saved import load_settings
from harness.runs import lock
from harness.runs.folder import RunFolder
from harness.runs.resume import is_finished
from harness.training import sweep
from tests.conftest import Ended
from tests.small_runs import cut_off, rows, settings, summary, trace, train
from tests.training.sweeps import contents, folders, status

CHOSEN = ("model=bigram", "schedule=constant", "eval.sample_tokens=0")
AUTO = (*CHOSEN, "resume=auto")


def test_one_command_begins_goes_on_and_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cut_off(tmp_path / "a", 5, monkeypatch, *AUTO) == 143
    assert train(tmp_path / "a", *AUTO) == 0
    assert "going on from step 5" in capsys.readouterr().err
    before = contents(tmp_path / "a/run")
    # As one leaves that is killed after its last write: nobody's.
    (tmp_path / "a/run/process.json").write_text("{}")
    (tmp_path / "a/run/.summary.json.zoo-abcd1234").write_text("{")
    assert train(tmp_path / "a", *AUTO) == 0
    assert "is finished already: nothing to do" in capsys.readouterr().err
    assert contents(tmp_path / "a/run") == before
    train(tmp_path / "whole", *CHOSEN)
    assert trace(tmp_path / "a") == trace(tmp_path / "whole")


def killed_early(run: Path) -> None:
    (run / "checkpoints").mkdir()
    (run / ".config.yaml.zoo-abcd1234").write_text("names: {da")
    (run / "process.json").write_text('{"pid": ')
    (run / "train.log").touch()


@pytest.mark.parametrize("left", [lambda run: None, killed_early])
def test_a_folder_without_a_configuration_is_begun(
    left: Callable[[Path], None], tmp_path: Path
) -> None:
    """Made by a scheduler, or all that a run that was killed at once left."""
    (tmp_path / "a/run").mkdir(parents=True)
    left(tmp_path / "a/run")
    assert train(tmp_path / "a", *AUTO) == 0
    assert train(tmp_path / "a", *AUTO) == 0
    assert len(rows(tmp_path / "a")) == 9
    assert not [path.name for path in (tmp_path / "a/run").glob(".*")]


def test_nothing_else_is_touched(tmp_path: Path) -> None:
    (tmp_path / "a/run/sub").mkdir(parents=True)
    (tmp_path / "a/run/sub/thesis.tex").touch()
    with pytest.raises(UsageError, match="holds other files and no run: choose another run_dir"):
        train(tmp_path / "a", *AUTO)
    assert [path.name for path in (tmp_path / "a/run").iterdir()] == ["sub"]
    (tmp_path / "b").mkdir()
    (tmp_path / "b/run").touch()
    with pytest.raises(UsageError, match="holds other files and no run"):
        train(tmp_path / "b", *AUTO)


def test_the_command(command: Callable[..., Ended], small_text: Path, tmp_path: Path) -> None:
    assert "resume=auto needs run_dir=…" in command("train", "resume=auto").err
    line = (
        *("train", "resume=auto", "model=bigram", "data=text", f"data.path={small_text}"),
        *(f"cache={tmp_path / 'cache'}", f"run_dir={tmp_path / 'run'}", "eval.sample_tokens=0"),
        *("train.batch_size=2", "train.seq_len=16", "device=cpu", "precision=fp32"),
    )
    assert command(*line, "train.steps=2").code == 0
    ended = command(*line, "train.steps=2")
    assert (ended.code, "is finished already" in ended.err) == (0, True)
    assert command(*line, "train.steps=3").code == 0
    assert len((tmp_path / "run/metrics.jsonl").read_text().splitlines()) == 4
    assert "optimizer.lr" in command(*line, "train.steps=3", "optimizer.lr=0.5").err


@pytest.mark.long
def test_a_sweep(
    command: Callable[..., Ended],
    small_text: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "sweep"
    line = (
        *("train", "-m", "seed=0,1", "resume=auto", "model=bigram", "data=text"),
        *(f"data.path={small_text}", f"cache={tmp_path / 'cache'}", "eval.sample_tokens=0"),
        *("train.batch_size=2", "train.seq_len=16", "train.steps=2", "device=cpu"),
    )
    monkeypatch.setattr(sweep, "write_report", lambda *arguments: None)
    refused = command(*line)
    assert (refused.code, "resume=auto needs hydra.sweep.dir=…" in refused.err) == (2, True)
    line = (*line, f"hydra.sweep.dir={folder}")
    folder.mkdir()
    assert command(*line).code == 0
    shutil.rmtree(folder / "1-bigram-char-s1")
    (folder / "1-bigram-char-s1").mkdir()  # killed before it had a configuration
    with lock.hold(folder / "1-bigram-char-s1"):
        ended = command(*line)
        assert ended.code == 1
        assert "1-bigram-char-s1 is in use" in ended.err
        left = [path.name for path in (folder / "1-bigram-char-s1").iterdir()]
        assert left == ["process.json"]
    ended = command(*line)
    assert ended.code == 0
    assert "1 of 2 jobs are finished" in ended.err
    assert [status(folder / name) for name in folders(folder)] == ["finished", "finished"]


def die_after(number: int) -> None:
    """This process is killed once it has written so many files."""
    replace, done = os.replace, []

    def replacing(source: str, target: str, **folders: int) -> None:
        replace(source, target, **folders)
        done.append(target)
        if len(done) == number:
            os._exit(9)

    os.replace = replacing  # type: ignore[assignment]


def test_an_interrupted_extension_is_never_finished(tmp_path: Path) -> None:
    """Killed after each of its atomic writes in turn."""
    train(tmp_path / "short", *CHOSEN, "train.steps=2")
    longer = (*AUTO, "train.steps=3")
    train(tmp_path / "long", *CHOSEN, "train.steps=3")
    for killed_after in range(1, 99):
        folder = tmp_path / str(killed_after)
        shutil.copytree(tmp_path / "short", folder)
        wanted = settings(folder, *longer)
        child = os.fork()
        if child == 0:
            die_after(killed_after)
            os._exit(train(folder, *longer))
        _, ended = os.waitpid(child, 0)
        run, code = RunFolder(folder / "run"), os.waitstatus_to_exitcode(ended)
        if code == 0:
            assert killed_after > 5
            assert is_finished(run, wanted)
            return
        assert code == 9
        finished = summary(folder)["status"] == "finished"  # the last write of all, or none yet
        own = load_settings(run.config)
        assert is_finished(run, own) == finished
        last = finished and own.train.steps == 3
        assert is_finished(run, wanted) == last
        if killed_after % 3 == 0:
            assert train(folder, *longer) == 0
            assert trace(folder) == trace(tmp_path / "long")
    raise AssertionError("it never ended")


def test_a_configuration_that_was_written_first_is_not_believed(tmp_path: Path) -> None:
    """What earlier versions left: the new configuration beside the old status."""
    train(tmp_path / "a", *CHOSEN, "train.steps=2")
    path = tmp_path / "a/run/config.yaml"
    path.write_text(path.read_text().replace("steps: 2", "steps: 3"))
    assert train(tmp_path / "a", *AUTO, "train.steps=3") == 0
    assert summary(tmp_path / "a")["train"]["steps"] == 3
