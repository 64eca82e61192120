"""A run that is resumed by other code, libraries or threads, or with a damaged tokenizer."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.compute.processor import VARIABLES
from harness.runs.load import load_run
from tests.small_runs import cut_off, summary, trace, train

CHOSEN = ("model=bigram", "eval.sample_tokens=0")


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stopped")
    with pytest.MonkeyPatch.context() as patch:
        assert cut_off(folder / "a", 4, patch, *CHOSEN) == 143
    return folder


def changed(path: Path, group: str, name: str, value: object) -> None:
    found = json.loads(path.read_text())
    found[group][name] = value
    path.write_text(json.dumps(found))


@pytest.mark.parametrize(
    ("group", "name", "value", "said"),
    [
        ("machine", "threads", 64, "threads 64 → "),
        ("machine", "processes", 2, "processes 2 → 1"),
        ("versions", "torch", "1.0", "torch 1.0 → "),
        ("git", "commit", "0" * 40, f"code {'0' * 40} → "),
        ("machine", "name", "abacus", "processor abacus → "),
        ("machine", "NVIDIA_TF32_OVERRIDE", "1", "NVIDIA_TF32_OVERRIDE 1 → unset"),
    ],
)
def test_what_can_not_be_equal_bit_for_bit_is_said(
    group: str,
    name: str,
    value: object,
    said: str,
    stopped: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    shutil.copytree(stopped, tmp_path, dirs_exist_ok=True)
    changed(tmp_path / "a/run/summary.json", group, name, value)
    assert train(tmp_path / "a", *CHOSEN, "resume=true") == 0
    (line,) = [line for line in caplog.messages if "resumed with other" in line]
    assert f"resumed with other {said}" in line
    assert line.endswith("it need not equal an uninterrupted run bit for bit")


@pytest.mark.parametrize("name", VARIABLES)
def test_a_variable_that_changes_numbers_is_recorded_and_compared(
    name: str, stopped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    before = os.environ.get(name, "unset")
    monkeypatch.setenv(name, "any")  # too late for its library
    shutil.copytree(stopped, tmp_path, dirs_exist_ok=True)
    assert train(tmp_path / "a", *CHOSEN, "resume=true") == 0
    assert f"resumed with other {name} {before} → any: it need not equal" in caplog.text
    assert summary(tmp_path / "a")["machine"][name] == "any"


def test_nothing_is_said_of_what_is_equal(
    stopped: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(stopped, tmp_path, dirs_exist_ok=True)
    assert train(tmp_path / "a", *CHOSEN, "resume=true") == 0
    assert "resumed with other" not in caplog.text
    assert "written again" not in caplog.text


def test_a_summary_that_can_not_be_read_is_said(
    stopped: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(stopped, tmp_path, dirs_exist_ok=True)
    (tmp_path / "a/run/summary.json").write_text("{")
    assert train(tmp_path / "a", *CHOSEN, "resume=true") == 0
    assert "whether code, libraries and machine are those of before is not known" in caplog.text


def cut(tokenizer: Path) -> None:
    path = max(tokenizer.iterdir(), key=lambda path: path.stat().st_size)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def without_digest(tokenizer: Path) -> None:
    (tokenizer / "sha256.txt").unlink()


def with_a_folder(tokenizer: Path) -> None:
    (tokenizer / "folder").mkdir()


@pytest.mark.parametrize("damage", [cut, without_digest, with_a_folder, shutil.rmtree])
def test_a_damaged_tokenizer_is_written_again(
    damage: Callable[[Path], None],
    stopped: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    shutil.copytree(stopped, tmp_path, dirs_exist_ok=True)
    damage(tmp_path / "a/run/tokenizer")
    assert train(tmp_path / "a", *CHOSEN, "resume=true") == 0
    (line,) = [line for line in caplog.messages if "written again" in line]
    assert line.endswith("; it was written again")
    assert load_run(tmp_path / "a/run", "best", "cpu", []).step > 0
    assert summary(tmp_path / "a")["status"] == "finished"
    assert len(trace(tmp_path / "a")) == 9
