"""Processes that would go on from different states leave, each with a line that says so."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.small_runs import cut_off, train
from tests.training.sweeps import contents
from tests.training.test_launcher import free_port

CHOSEN = ("model=bigram", "eval.sample_tokens=0", "train.accumulate=2", "resume=auto")


def both(folders: list[Path], said: Path) -> list[int]:
    """The exit codes of two processes of one training, each with a run folder of its own; what
    they raised is in `said`."""
    address = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    children = []
    for rank, folder in enumerate(folders):
        if (child := os.fork()) == 0:
            os.environ.update(address | {"RANK": str(rank)})
            try:
                os._exit(train(folder, *CHOSEN))
            except BaseException as error:
                said.joinpath(str(rank)).write_text(str(error))
                os._exit(getattr(error, "code", None) or 99)
        children.append(child)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


@pytest.mark.parametrize("second", [None, 3, 5])
def test_other_states_are_noticed(
    second: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None: the second one would begin. 5: the same step, but another
    training's: it took other seconds."""
    folders, said = [tmp_path / "a", tmp_path / "b"], tmp_path / "said"
    said.mkdir()
    cut_off(folders[0], 5, monkeypatch, *CHOSEN)
    if second is not None:
        cut_off(folders[1], second, monkeypatch, *CHOSEN)
    before = contents(folders[0] / "run")
    both(folders, said)
    lines = {path.read_text() for path in said.iterdir()}
    assert len(list(said.iterdir())) == 2
    assert len(lines) == 1
    line = lines.pop()
    if second != 5:
        assert f"start (step 5 in RANK 0, step {second or 0} in 1)" in line
    assert "checkpoint (" in line
    assert contents(folders[0] / "run") == before
