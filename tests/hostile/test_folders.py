"""Commands end well on hostile folders: in words, and nothing outside changes. All of them:
`python -m harness.drill folders`."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.diagnostics.faults import folders, hostile, tries

FEW = [
    ("train.log: a link to a private file", "evaluate"),
    ("train.log: a link to a private file", "resume"),
    ("summary.json: a pipe", "evaluate"),
    ("tokenizer: a pipe", "resume"),
]


@pytest.mark.parametrize(("name", "command"), FEW)
def test_some_end_well(name: str, command: str, finished_run: Path, tmp_path: Path) -> None:
    assert name in hostile.names()
    found = folders.tried(name, command, finished_run, tmp_path)
    assert found.verdict in tries.HARMLESS, found.detail


def test_a_write_outside_is_a_loss(
    finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control, and of a traceback."""

    def write(run: Path) -> None:
        (run / "summary.json").open("a").write("x")
        raise KeyError

    monkeypatch.setitem(folders.COMMANDS, "write", write)
    for number, (name, verdict) in enumerate(
        [("summary.json: a link to a private file", "loss"), ("summary.json: empty", "traceback")]
    ):
        (tmp_path / str(number)).mkdir()
        found = folders.tried(name, "write", finished_run, tmp_path / str(number))
        assert found.verdict == verdict
