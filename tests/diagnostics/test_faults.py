"""The drills of many tries: they find nothing in the code as it is, and the fault of a mutant."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness import drill as drill_command
from harness.diagnostics.faults import readers, tries
from harness.diagnostics.faults.tries import Known, Result
from tests.diagnostics.drilling import drilled


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Result]]:
    return drilled(tmp_path_factory.mktemp("drilled"))


@pytest.mark.parametrize("drill", ["killed", "full", "flipped", "fuzzed"])
def test_nothing_is_lost(found: dict[str, list[Result]], drill: str) -> None:
    assert {each.verdict for each in found[drill]} <= {"equal", "noticed"}, found[drill]
    assert sum(each.times for each in found[drill]) > 0


@pytest.mark.parametrize(
    ("drill", "verdict", "words"),
    [
        ("killed, repeating samples", "silence", "samples.txt differs"),
        ("full, silent", "silence", "says running for ever"),
        ("flipped, trusting", "silence", "bits_per_byte"),
        ("fuzzed, raising", "traceback", "KeyError: \"'the end'\" at KeyError drilling.py"),
        ("fuzzed, greedy", "traceback", "MemoryError"),
        ("fuzzed, slow", "hang", "longer than 1 s"),
    ],
)
def test_a_mutant_is_noticed(
    found: dict[str, list[Result]], drill: str, verdict: str, words: str
) -> None:
    (fault,) = (each for each in found[drill] if each.verdict not in tries.HARMLESS)
    assert fault.verdict == verdict
    assert words in fault.detail


def test_every_file_of_a_run_is_fuzzed(
    finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also the losses of tokens, which `harness.compare --where` adds."""
    monkeypatch.setattr(readers, "tokenizer_readers", lambda folder: [])
    run = tmp_path / "run"
    shutil.copytree(finished_run, run)
    fuzzed = readers.readers(run, tmp_path)
    files = {path.name for path in run.iterdir() if path.is_file()}
    assert "val_token_nats.f32" in files
    assert files <= {str(reader.path) for reader in fuzzed}
    for reader in fuzzed:  # as they are, all can be read
        reader.read(run)


RESULTS = [
    Result("fresh: summary", "change 1", "equal", peak_bytes=2_000_000, times=2),
    Result("fresh: summary", "change 2", "silence", "1 is 2", peak_bytes=1_000_000),
]


def test_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert tries.report(RESULTS, [], time.monotonic(), as_json=False) == 1
    head, _, row, total, fault = capsys.readouterr().out.splitlines()
    assert head.split(" | ")[1:3] == ["tried", "equal"]
    assert [cell.strip() for cell in row.split("|")[1:6]] == ["fresh: summary", "3", "2", "0", "0"]
    assert total.split("|")[2:] == row.split("|")[2:]
    assert fault == "silence: fresh: summary: change 2: 1 is 2"
    assert tries.report(RESULTS[:1], [], time.monotonic(), as_json=False) == 0


def test_what_is_known_is_listed_with_its_reason(capsys: pytest.CaptureFixture[str]) -> None:
    known = [Known("silence: fresh: .* 1 is 2", "rounding")]
    assert tries.report(RESULTS, known, time.monotonic(), as_json=True) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["rows"]["all"]["silence"] == 1
    assert [fault["reason"] for fault in printed["faults"]] == ["rounding"]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["kills", "--tries", "0"], "--tries 0 must be at least 1"),
        (["disks", "--jobs", "0"], "--jobs 0 must be at least 1"),
        (["fuzz", "--minutes", "0"], "--minutes 0.0 must be above 0"),
        (["fuzz", "model=gpt"], "no settings"),
        (["requests", "model=gpt"], "no settings"),
    ],
)
def test_drills_that_can_not_be_are_refused(
    arguments: list[str],
    line: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["drill.py", *arguments])
    with pytest.raises(SystemExit, match="2"):
        drill_command.main()
    assert line in capsys.readouterr().err


@pytest.mark.long
@pytest.mark.parametrize("drill", [*drill_command.TRIES])
def test_whole_drills_find_nothing(drill: str) -> None:
    command = [sys.executable, "-m", "harness.drill", drill]
    ended = subprocess.run(command, capture_output=True, text=True, env=os.environ)
    print(ended.stdout)
    assert ended.returncode == 0, ended.stdout + ended.stderr
