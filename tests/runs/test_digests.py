"""A bit that flips in a finished run's text is named by whoever reads it; what a resume or verify
writes is not."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.runs import digests
from tests.conftest import Ended
from tests.small_runs import train

Command = Callable[..., Ended]
READERS = (("evaluate",), ("sample", "--tokens", "1"), ("compare",))
CHANGED = "is not what digests.sha256 says"


@pytest.fixture
def copied(finished_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished_run, tmp_path / "run"))


def test_every_file_of_a_finished_run_has_one(copied: Path) -> None:
    listed = [line.split()[1] for line in (copied / digests.FILE).read_text().splitlines()]
    assert listed == [name for name in digests.DIGESTED if (copied / name).exists()]
    assert len(listed) >= 5
    assert digests.complaints(copied) == []


def test_untouched_nobody_says_a_word(
    copied: Path, command: Command, caplog: pytest.LogCaptureFixture
) -> None:
    for tool, *options in READERS:
        command(tool, copied, *options)
    assert CHANGED not in caplog.text


@pytest.mark.parametrize("name", ["metrics.jsonl", "samples.txt", "test_nats.json"])
def test_a_flipped_bit_is_named_by_every_reader(
    name: str, copied: Path, command: Command, caplog: pytest.LogCaptureFixture
) -> None:
    path = copied / name
    path.write_bytes(path.read_bytes().replace(b"1", b"3", 1))
    for tool, *options in READERS:
        caplog.clear()
        command(tool, copied, *options)
        assert f"{name} {CHANGED}" in caplog.text


@pytest.mark.parametrize("name", digests.DIGESTED)
def test_each_is_compared(name: str, copied: Path) -> None:
    (copied / name).touch()
    digests.write(copied)
    assert digests.complaints(copied) == []
    (copied / name).write_bytes((copied / name).read_bytes() + b" ")
    assert digests.complaints(copied) == [f"{name} {CHANGED}: it has changed since"]
    digests.enter(copied, name)
    assert digests.complaints(copied) == []
    (copied / name).unlink()  # its own reader says so
    assert digests.complaints(copied) == []


def test_damaged_itself_it_says_so(copied: Path) -> None:
    path = copied / digests.FILE
    whole = path.read_bytes()
    for at in range(0, len(whole), 7):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        (line,) = digests.complaints(copied)
        assert digests.FILE in line
    path.unlink()
    assert digests.complaints(copied) == []  # a run of an earlier version, or one that was killed
    path.symlink_to("summary.json")
    assert digests.complaints(copied) == [f"{digests.FILE} is damaged"]


def test_an_extended_run_says_what_changed_and_digests_what_it_wrote(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert train(tmp_path, "model=bigram", "train.steps=3") == 0
    run = tmp_path / "run"
    before = (run / digests.FILE).read_bytes()
    text = (run / "metrics.jsonl").read_text()
    (run / "metrics.jsonl").write_text(text.replace('"step": 1,', '"step":  1,'))
    assert train(tmp_path, "model=bigram", "train.steps=5", "resume=true") == 0
    assert f"metrics.jsonl {CHANGED}" in caplog.text
    assert (run / digests.FILE).read_bytes() != before
    assert digests.complaints(run) == []
    caplog.clear()
    assert train(tmp_path, "model=bigram", "train.steps=6", "resume=true") == 0
    assert CHANGED not in caplog.text
