"""Files that the user names: only those that end and can be read twice, and every byte of them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness.common import outside
from harness.common.errors import UsageError
from harness.common.outside import open_regular, read_text


@pytest.fixture
def waiting_pipe(tmp_path: Path) -> Path:
    """A named pipe that nobody writes to."""
    os.mkfifo(tmp_path / "pipe")
    return tmp_path / "pipe"


def piped(content: bytes) -> Path:
    """An anonymous pipe that holds this and has ended, as `<(…)` in a shell gives it."""
    read, write = os.pipe()
    os.write(write, content)
    os.close(write)
    return Path(f"/dev/fd/{read}")


def test_what_is_no_regular_file_is_refused_at_once(waiting_pipe: Path, tmp_path: Path) -> None:
    for path in (waiting_pipe, piped(b"text"), Path("/dev/zero")):
        with pytest.raises(UsageError, match=rf"^--text {path} is a pipe or a device, not a file"):
            open_regular(path, "--text ")
    for path, why in (
        (tmp_path, "Is a directory"),
        (tmp_path / "none", "No such file or directory"),
        (tmp_path / "a\0b", "null"),
        (tmp_path / ("a" * 300), "File name too long"),
    ):
        with pytest.raises(UsageError, match=f"can't be read: .*{why}"):
            open_regular(path)


@pytest.mark.parametrize("content", [b"a\r\nb\rc\n\r\n", b"\xef\xbb\xbfa\0b", b"\xff\xfe\r\n", b""])
@pytest.mark.parametrize("source", ["file", "pipe"])
def test_every_byte_is_kept(content: bytes, source: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(content)
    path = tmp_path / "file" if source == "file" else piped(content)
    assert read_text(path, "").encode("utf-8", "surrogateescape") == content


def test_a_pipe_is_read_to_its_end_and_no_further_than_that(
    waiting_pipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert read_text(waiting_pipe, "") == ""  # nobody writes, so it has ended
    monkeypatch.setattr(outside, "MOST", 9)
    assert read_text(piped(b"nine byte"), "") == "nine byte"
    with pytest.raises(UsageError, match="does not end: more than 9 bytes came"):
        read_text(piped(b"ten bytes!"), "")


def test_a_slow_writer_is_waited_for() -> None:
    with open_regular(piped(b""), or_pipe=True) as file:
        assert os.get_blocking(file.fileno())
