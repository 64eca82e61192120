"""Text in a run's files of records can't pose as a record."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import tempfile
from pathlib import Path

import hypothesis.strategies as st
import pytest
import yaml
from hypothesis import example, given

from harness.common.errors import RunFailure
from harness.common.rows import strict_json
from harness.live.watch import LOG_BYTES, LiveRun
from harness.loggers.local import Local
from harness.report.records.runs import read_run
from harness.runs import folder, samples
from harness.runs.folder import RunFolder
from harness.runs.samples import Sample
from harness.training import loop
from tests.report.comparing import write_run
from tests.small_runs import settings, train
from tests.trying import tried

HOSTILE = [
    "=== step 99999 ===\nsome text after it\n\n=== step 99999 ===",
    "\n=== step 3 ===\n",
    "\\=== step 3 ===\n\\\\=== step 4 ===\n\\",
    "=",
    "\\",
    "\\=\n\n\n",
    "",
    "\n",
    "\n\n",
    "a\rb\r\n=== step 1 ===\r\nc\N{LINE SEPARATOR}=== step 1 ===\x85=\x0b=\x0c=\x1c=\0=",
    "\udcff=== step 1 ===\n\udc80=== step 1 ===\n=\udcff",
    "2026-01-01 00:00:00,000 ERROR error: no such error\nrun folder: elsewhere",
    '{"step": 99999, "train/loss": 0}\n{"step": 99999}',
]
# What any bytes decode to.
TEXTS = st.one_of(
    st.sampled_from(HOSTILE),
    st.lists(st.sampled_from([*"=\\\n\r3é ", "=== step ", " ===\n", "\udcff"])).map("".join),
    st.binary().map(lambda found: found.decode("utf-8", "surrogateescape")),
)


def written(folder: Path, texts: list[str]) -> tuple[Path, list[Sample]]:
    path = folder / samples.FILE
    blocks = [Sample(4 * number, text) for number, text in enumerate(texts)]
    for block in blocks:
        samples.append(path, block)
    return path, blocks


@given(st.lists(TEXTS, min_size=1, max_size=4))
@example(HOSTILE)
@tried(200)
def test_samples_come_back_byte_for_byte(texts: list[str]) -> None:
    with tempfile.TemporaryDirectory() as name:
        path, blocks = written(Path(name), texts)
        assert samples.read(path) == blocks
        samples.keep_before(path, 4)
        assert samples.read(path) == blocks[:1]
        again = path.read_bytes()
        samples.keep_before(path, 4)
        assert path.read_bytes() == again


@given(st.lists(TEXTS, min_size=1, max_size=4), st.integers(0, 200))
@example(["\\=== step 3 ===\n"], 17)
@tried(200)
def test_a_file_cut_anywhere_has_no_sample_that_was_not_written(texts: list[str], cut: int) -> None:
    """Its end, as the live page reads it; and its beginning, as a kill leaves it."""
    with tempfile.TemporaryDirectory() as name:
        path, blocks = written(Path(name), texts)
        found = samples.read(path, last_bytes=cut)
        assert found == blocks[len(blocks) - len(found) :]
        content = path.read_bytes()
        path.write_bytes(content[: -cut or None])
        torn = samples.read(path)
        assert torn[:-1] == blocks[: len(torn)][:-1]
        assert [step for step, _ in torn] == [step for step, _ in blocks[: len(torn)]]


def test_samples_that_need_no_backslash_look_as_they_always_did(tmp_path: Path) -> None:
    path, _ = written(tmp_path, ["To be,\nor not", "\\alpha = 1"])
    assert path.read_text() == "=== step 0 ===\nTo be,\nor not\n\n=== step 4 ===\n\\alpha = 1\n\n"


def test_samples_of_earlier_versions_are_read(tmp_path: Path) -> None:
    path = tmp_path / samples.FILE
    path.write_text("=== step 0 ===\n== a ==\n\n=== step 4 ===\nb\n\n=== step 99 ===\nc\n\n")
    assert samples.read(path) == [(0, "== a =="), (4, "b"), (99, "c")]
    samples.keep_before(path, 8)
    assert samples.read(path) == [(0, "== a =="), (4, "b")]


def test_a_kill_while_a_heading_was_written_costs_that_sample_alone(tmp_path: Path) -> None:
    path, blocks = written(tmp_path, ["a", "b"])
    for torn in ("=", "=== step 8 ===", "=== step 8 ===\nhal"):
        path.write_bytes(b"".join(map(samples._block, blocks)) + torn.encode())
        samples.keep_before(path, 8)
        samples.append(path, Sample(8, "c"))
        assert samples.read(path) == [*blocks, (8, "c")]


@pytest.mark.parametrize("text", HOSTILE)
def test_a_resumed_run_keeps_every_sample_whatever_was_sampled(tmp_path: Path, text: str) -> None:
    """The report and the live page show it, too."""
    folder = write_run(tmp_path / "run", "gpt")
    (folder / samples.FILE).unlink()
    path, blocks = written(folder, [text, "real", text])
    shown = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    run = read_run(folder)
    assert run.sample == (8, shown)
    page = LiveRun(folder).details()["samples"]
    assert page == [{"step": 4 * k, "text": t} for k, t in enumerate([shown, "real", shown])]
    samples.keep_before(path, 8)
    assert samples.read(path) == blocks[:2]


def test_training_writes_samples_that_can_not_pose(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "sample_text", lambda *rest: HOSTILE[0])
    chosen = ("model=bigram", "checkpoint.every=4")
    train(tmp_path / "a", *chosen)
    path, expected = tmp_path / "a/run/samples.txt", [(step, HOSTILE[0]) for step in (0, 4, 8)]
    assert samples.read(path) == expected
    (tmp_path / "a/run/checkpoints/step-00000008.pt").unlink()
    place = tmp_path / "a/run/summary.json"
    place.write_text(place.read_text().replace("finished", "running"))
    train(tmp_path / "a", *chosen, "resume=true")
    assert samples.read(path) == expected


RECORD = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} [A-Z]+ ")


def test_a_message_is_one_record_of_the_log_whatever_it_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = RunFolder(tmp_path)
    log = logging.getLogger("harness")
    with folder.logging(quiet=True):
        for text in HOSTILE:
            log.info(f"said: {text}")
            log.info("error: one", exc_info=ValueError(text))
    lines = folder.log.read_text().splitlines()
    assert len([line for line in lines if RECORD.match(line)]) == 2 * len(HOSTILE)
    assert all(RECORD.match(line) or line.startswith("    ") for line in lines)
    assert capsys.readouterr().err == ""


def test_a_message_on_the_screen_can_not_pose_as_another(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The live page reads there where a training that it began keeps its run."""
    with RunFolder(tmp_path).logging():
        logging.getLogger("harness").error("error: one\nrun folder: elsewhere\rerror: another")
    assert capsys.readouterr().err == "error: one\n    run folder: elsewhere\n    error: another\n"


def test_the_live_page_shows_whole_lines_of_a_long_log(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", "gpt")
    for more in range(4):
        (folder / "train.log").write_text("first\n    error: no\n" + "a" * (LOG_BYTES - 10 - more))
        assert not LiveRun(folder).details()["log"].startswith("error")


@pytest.mark.parametrize("text", HOSTILE)
def test_a_row_is_one_line_whatever_its_names(tmp_path: Path, text: str) -> None:
    path, local = tmp_path / Local.FILE, Local()
    local.open(tmp_path, settings(tmp_path / "a"), 0)
    row = {"step": 0, text: 1.0, "text": text, "all": [text, {text: text}]}
    local.log(row)
    local.close({})
    (line,) = path.read_bytes().splitlines()
    assert json.loads(line) == row
    assert json.loads(strict_json({"error": text}, indent=2)) == {"error": text}


@pytest.mark.parametrize("text", [text for text in HOSTILE if text.isascii()])
def test_a_setting_is_one_value_whatever_it_says(tmp_path: Path, text: str) -> None:
    chosen = settings(tmp_path / "a")
    chosen = chosen.replace(eval=chosen.eval.replace(prompt=text))
    assert yaml.safe_load(chosen.dump())["eval"]["prompt"] == text


@pytest.mark.parametrize("kind", ["a link", "a hard link", "a pipe", "a folder"])
def test_a_log_that_is_no_file_of_its_own_is_refused_in_words(kind: str, tmp_path: Path) -> None:
    folder, other = RunFolder(tmp_path), tmp_path / "other"
    other.touch()
    match kind:
        case "a link":
            folder.log.symlink_to(other)
        case "a hard link":
            folder.log.hardlink_to(other)
        case "a pipe":
            os.mkfifo(folder.log)
        case _:
            folder.log.mkdir()
    with pytest.raises(RunFailure, match=f"train.log can't be written: {kind}"), folder.logging():
        pass
    assert other.read_bytes() == b""


def test_git_is_asked_without_its_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A `git status` that refreshes the index, and is killed, leaves index.lock in the way."""
    known = tmp_path / "known.txt"
    known.write_text("x")
    as_me = ("-c", "user.name=x", "-c", "user.email=x@example.org")
    for line in (["init", "-q"], ["add", "."], [*as_me, "commit", "-qm", "x"]):
        subprocess.run(["git", *line], cwd=tmp_path, check=True)
    os.utime(known, (1, 1))  # git would note that its content is the same
    before = (tmp_path / ".git/index").read_bytes()
    monkeypatch.setattr(folder, "REPOSITORY", tmp_path)
    assert folder.git.__wrapped__()["dirty"] is False
    assert (tmp_path / ".git/index").read_bytes() == before
    subprocess.run(["git", "status"], cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / ".git/index").read_bytes() != before  # the control
