"""A command that decided what to do while another training had not yet come, or not yet ended."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from harness.common.errors import RunFailure
from harness.runs.folder import RunFolder
from harness.training import run as running
from tests.small_runs import cut_off, summary, train
from tests.training.sweeps import contents

CHOSEN = ("model=bigram", "schedule=constant", "eval.sample_tokens=0")
AUTO = (*CHOSEN, "resume=auto")


def meanwhile(monkeypatch: pytest.MonkeyPatch, happens: Callable[[], None]) -> None:
    """Once, after the first command's decision, when it has encoded the text."""
    load, first = running.load_dataset, [True]

    def loading(*arguments, **options):  # noqa: ANN002, ANN003, ANN202
        found = load(*arguments, **options)
        if first and first.pop():
            happens()
        return found

    monkeypatch.setattr(running, "load_dataset", loading)


@pytest.mark.parametrize("reached", [None, 5])
def test_a_run_that_another_command_began_is_gone_on_with(
    reached: int | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It has ended, or has stopped at the step that it reached."""
    left: dict[str, tuple[int, bytes]] = {}

    def other() -> None:
        code = cut_off(tmp_path, reached, monkeypatch, *AUTO) if reached else train(tmp_path, *AUTO)
        assert code == (143 if reached else 0)
        left.update(contents(tmp_path / "run"))
        capsys.readouterr()

    meanwhile(monkeypatch, other)
    assert train(tmp_path, *AUTO) == 0
    told = capsys.readouterr().err
    if reached:
        assert f"going on from step {reached}" in told
    else:
        assert "is finished already: nothing to do" in told
        assert contents(tmp_path / "run") == left
    assert summary(tmp_path)["status"] == "finished"


def test_a_run_that_another_command_ended_is_left_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    left: dict[str, tuple[int, bytes]] = {}
    cut_off(tmp_path, 5, monkeypatch, *AUTO)

    def other() -> None:
        assert train(tmp_path, *AUTO) == 0
        left.update(contents(tmp_path / "run"))

    meanwhile(monkeypatch, other)
    capsys.readouterr()
    assert train(tmp_path, *AUTO) == 0
    assert capsys.readouterr().err.count("is finished already: nothing to do") == 1
    assert contents(tmp_path / "run") == left


@pytest.mark.parametrize("kind", ["step", "best"])
def test_nothing_begins_over_checkpoints(kind: str, tmp_path: Path) -> None:
    """In a folder for checkpoints that holds another run's of that name."""
    other = tmp_path / "other" / "run"
    other.mkdir(parents=True)
    (other / f"{kind}-00000007.pt").touch()
    (tmp_path / "run").mkdir()
    with pytest.raises(RunFailure, match=f"holds a {kind} checkpoint, of step 7, and the run was"):
        train(tmp_path, *AUTO, f"checkpoint_dir={other.parent}")
    assert list(other.iterdir())
    assert not RunFolder(tmp_path / "run").log.exists()
