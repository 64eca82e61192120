"""Commands end well on hostile folders: in words, and nothing outside changes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.hostile import folders, trying

FEW = [
    (name, command)
    for name in ("train.log: a link to a private file", "summary.json: a pipe")
    for command in ("evaluate", "resume")
]


@pytest.mark.parametrize(("name", "command"), FEW)
def test_some_end_well(name: str, command: str, finished_run: Path, tmp_path: Path) -> None:
    assert name in folders.names()
    tried = trying.attempt(name, command, finished_run, tmp_path / "try")
    assert tried.outcome in trying.GOOD, tried.said


@pytest.mark.long
def test_all_end_well() -> None:
    ended = subprocess.run([sys.executable, "-m", "tests.hostile"], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout
