"""Standard streams that are closed, full or unread end no command in a traceback, and lose no
training."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.cli import streams
from harness.cli.tool import run_tool
from harness.common.console import Console
from harness.common.paths import REPOSITORY
from tests.small_runs import summary, train


def ends(main: Callable[[], int], *streams: int | None) -> int:
    """The exit code of a command in a process of its own, given descriptors of its stdin, stdout
    and stderr, None for a closed one."""
    child = os.fork()
    if not child:
        code = 99
        try:
            for number, stream in enumerate(streams):
                if stream is not None:
                    os.dup2(stream, number)
                else:
                    os.close(number)
            for number, name in enumerate(("stdin", "stdout", "stderr")):  # as Python does it
                setattr(sys, name, None)
                if streams[number] is not None:
                    mode = "w" if number else "r"
                    setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115
            run_tool(main)
        except SystemExit as ended:
            code = int(ended.code or 0)
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def unread() -> int:
    """A pipe that nobody reads any more."""
    read, write = os.pipe()
    os.close(read)
    return write


def full() -> int:
    return os.open("/dev/full", os.O_WRONLY)


def talk() -> int:
    print("so much " * 9999)
    print("and more", file=sys.stderr)
    assert all(map(os.fstat, range(3)))
    return 0


def test_a_closed_stream_is_nobodys_file(tmp_path: Path) -> None:
    def work() -> int:
        with (tmp_path / "results").open("wb") as file:
            assert file.fileno() > 2
            os.write(1, b"for the terminal")
            os.write(2, b"for the terminal")
            return int(sys.stdin.read() != "")

    assert ends(work, None, None, None) == 0
    assert (tmp_path / "results").read_bytes() == b""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a full device")
def test_what_can_not_be_printed(tmp_path: Path) -> None:
    with (tmp_path / "err").open("wb") as err:
        assert ends(talk, None, unread(), err.fileno()) == 0
        assert ends(talk, None, os.open(os.devnull, os.O_WRONLY), unread()) == 0
        assert ends(talk, None, os.open(os.devnull, os.O_WRONLY), full()) == 0
        assert (tmp_path / "err").read_bytes() == b""
        assert ends(talk, None, full(), err.fileno()) == 1
    said = (tmp_path / "err").read_text()
    assert said == "error: standard output can't be written: No space left on device\n"


def test_a_table_that_nobody_reads_to_its_end(tmp_path: Path) -> None:
    """`… | head`: rich would exit with 1."""

    def work() -> int:
        for _ in range(9999):
            Console(file=sys.stdout).print("so much")
        return 3

    with (tmp_path / "err").open("wb") as err:
        assert ends(work, None, unread(), err.fileno()) == 0
        # What main says of its work is not lost with its output.
        assert ends(lambda: print("so much") or 3, None, unread(), err.fileno()) == 3
    assert (tmp_path / "err").read_bytes() == b""
    for path in (REPOSITORY / "harness").rglob("*.py"):
        if path.name != "console.py":
            assert "rich.console" not in path.read_text(), f"{path}: harness.common.console"


def test_a_full_pipe_that_does_not_block_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    read, write = os.pipe()
    os.set_blocking(write, False)
    said, found = b"so much " * 99_999, bytearray()

    def until_read(*streams: object) -> None:
        found.extend(os.read(read, 1 << 16))

    monkeypatch.setattr(streams.select, "select", until_read)
    assert streams._Results(write, "w").write(said) == len(said)
    assert len(found) > len(said) / 2
    assert found + os.read(read, 1 << 20) == said
    os.close(read)


def test_without_a_buffer_each_word_is_there_at_once(tmp_path: Path) -> None:
    """python -u."""
    code = (
        "import os, sys; from harness.cli.streams import prepare_streams; prepare_streams();"
        "sys.stdout.write('a'); print('b', end='', file=sys.stderr); os._exit(0)"
    )
    ended = subprocess.run([sys.executable, "-u", "-c", code], capture_output=True)
    assert (ended.stdout, ended.stderr) == (b"a", b"b")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a full device")
@pytest.mark.parametrize("out", ["closed", "full"])
def test_a_training_needs_no_streams(tmp_path: Path, out: str) -> None:
    def stream() -> int | None:
        return full() if out == "full" else None

    folder = tmp_path / "a"
    # The training is finished; that its result could not be printed is said by the code.
    assert ends(lambda: train(folder), None, stream(), stream()) == int(out == "full")
    assert summary(folder)["status"] == "finished"


def test_a_stream_of_a_test_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    own = io.TextIOWrapper(io.BytesIO())
    monkeypatch.setattr(sys, "stdout", own)
    with pytest.raises(SystemExit):
        run_tool(lambda: 0)
    assert sys.stdout is own
