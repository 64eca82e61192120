"""Systems that the zoo does not run on: one line says so, where nothing else was imported yet."""

from __future__ import annotations

import subprocess
import sys

from harness.common.paths import REPOSITORY

PROGRAM = "import sys; sys.platform = 'win32'; import harness"


def test_windows_is_told_in_one_line() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert ended.returncode == 2
    assert ended.stderr == "error: the zoo runs on Linux and macOS; on Windows, run it in WSL\n"
