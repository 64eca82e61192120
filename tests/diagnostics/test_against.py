"""Two configurations or revisions, measured in alternation."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from harness.common.errors import UsageError
from harness.diagnostics import against

# Says when it begins and ends a turn, in a file that both sides write.
SIDE = """
import json, sys
name, log, turns = sys.argv[1], sys.argv[2], int(sys.argv[3])
print("null", flush=True)
for turn in range(turns):
    if not sys.stdin.readline():
        sys.exit(3)
    open(log, "a").write(f"{name}+{name}-")
    print(json.dumps({"seconds": [1.0], "name": name} if turn == turns - 1 else None), flush=True)
"""


def side(*words: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SIDE, *map(str, words)]
    return subprocess.Popen(command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def test_turns_never_overlap_and_neither_side_always_follows(tmp_path: Path) -> None:
    log, turns = tmp_path / "log", against.WARM_UP + against.TURNS
    sides = [side(name, log, turns) for name in "ab"]
    found = against.alternate(sides)
    for each in sides:
        each.communicate()
    assert [each["name"] for each in found] == ["a", "b"]
    a, b = "a+a-", "b+b-"
    assert log.read_text() == (b + a + a + b) * (turns // 2)


def test_a_side_that_fails_ends_the_measurement_with_its_code(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "raise SystemExit(2)"]
    broken = subprocess.Popen(command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with pytest.raises(SystemExit) as ended:
        against.alternate([broken])
    broken.communicate()
    assert ended.value.code == 2


def test_the_other_side_is_settings_or_a_revision() -> None:
    assert against._parse(["model=gpt", "--against", "optimizer=muon"])[0] == ["model=gpt"]
    assert against._parse(["--against=HEAD~1", "seed=1"]) == (["seed=1"], "HEAD~1")
    for words in (["--against"], ["--against", "-m"], ["--against="]):
        with pytest.raises(UsageError, match="takes settings"):
            against._parse(words)
    with pytest.raises(UsageError, match="neither settings"), against._revision("no-such-name"):
        pass


def test_a_word_that_is_no_setting_is_not_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["bench", "--against", "optimizer=muon n_layer 4"])
    with pytest.raises(UsageError, match="not every part is a setting"):
        against.against()


@pytest.mark.long
def test_a_revision_reads_the_assets_of_this_code() -> None:
    """Its files lie in a temporary folder, beside which there are none."""
    code = [sys.executable, "-m", "harness.bench", "model=bigram", "--against", "HEAD"]
    done = subprocess.run(code, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("this code / HEAD: ")


@pytest.mark.long
def test_a_change_that_costs_is_seen(capfd: pytest.CaptureFixture[str]) -> None:
    """Sixteen times the work is not taken for the same, and the same not for more."""
    code = [sys.executable, "-m", "harness.bench", "model=bigram", "train.batch_size=64"]
    for other, low, high in (("train.batch_size=64", 0.7, 1.4), ("train.batch_size=1024", 0, 0.5)):
        done = subprocess.run([*code, "--against", other], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        ratio = float(done.stdout.rpartition(": ")[2].split()[0])
        assert low < ratio < high
