"""How commands end: their exit codes, and errors of one line."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.cli.tool import run_tool
from harness.common.contained import UnsafeFile
from harness.common.errors import RunFailure, UsageError
from tests.waiting import GUARD


def ends(main: Callable[[], int], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    with pytest.raises(SystemExit) as ended:
        run_tool(main)
    assert isinstance(ended.value.code, int)
    return ended.value.code, capsys.readouterr().err


def raises(error: BaseException) -> Callable[[], int]:
    def main() -> int:
        raise error

    return main


def test_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    assert ends(lambda: 0, capsys) == (0, "")
    assert ends(lambda: 1, capsys) == (1, "")
    assert ends(raises(UsageError("so")), capsys) == (2, "error: so\n")
    assert ends(raises(RunFailure("so")), capsys) == (1, "error: so\n")
    unsafe = UnsafeFile(Path("run/train.log"), "a pipe")
    assert ends(raises(unsafe), capsys) == (1, "error: run/train.log: a pipe\n")
    assert ends(raises(KeyboardInterrupt()), capsys) == (130, "error: interrupted\n")


def test_sigterm_ends_in_143_with_clean_hands(capsys: pytest.CaptureFixture[str]) -> None:
    cleaned = []

    def main() -> int:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            signal.pause()
        finally:
            cleaned.append(True)
        return 0

    before = signal.getsignal(signal.SIGTERM)
    assert ends(main, capsys) == (143, "")
    assert cleaned
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_bug_is_not_dressed_up_as_a_mistake() -> None:
    with pytest.raises(ZeroDivisionError):
        run_tool(raises(ZeroDivisionError()))


def test_what_an_error_quotes_does_not_break_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert ends(raises(UsageError("a\nb\r\n  c")), capsys) == (2, "error: a b c\n")


@pytest.mark.long
def test_a_reader_that_left_is_no_mistake(finished_run: Path) -> None:
    """`harness.sample … | true`: nothing on stderr, exit code 0."""
    script = (
        f'"{sys.executable}" -m harness.sample "{finished_run}" --tokens 3 2>err; echo $? >code'
    )
    folder = finished_run.parent
    # As most people have it: what is printed is written at the end.
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    pipe = ["bash", "-c", f"({script}) | true"]
    subprocess.run(pipe, cwd=folder, env=buffered, check=True, timeout=GUARD)
    assert (folder / "err").read_text() == ""
    assert (folder / "code").read_text() == "0\n"


def test_a_terminal_without_the_characters_shows_others(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    with pytest.raises(SystemExit):
        run_tool(lambda: print("a…b") or 0)
    assert written.getvalue() == b"a?b\n"
