"""A run whose text is named from another folder, or lies elsewhere by now."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from harness.config.saved import load_settings
from tests.runs.tampering import Command
from tests.small_runs import TEXT, train


def test_a_path_is_stored_as_it_is_from_anywhere(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever folder it was typed in: no other command is started there. A resume in that folder,
    and one with the path typed again, is of the same text."""
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "mine.txt").write_text(TEXT)
    monkeypatch.chdir(tmp_path / "texts")
    monkeypatch.setenv("HOME", str(tmp_path))
    small = ("model=bigram", "train.steps=2", "eval.sample_tokens=0")
    for number, typed in enumerate(("mine.txt", "../texts/./mine.txt", "~/texts/mine.txt")):
        folder = tmp_path / str(number)
        assert train(folder, *small, f"data.path='{typed}'") == 0
        saved = load_settings(folder / "run" / "config.yaml")
        assert saved.data["path"] == str(tmp_path / "texts" / "mine.txt")
        assert train(folder, *small, f"data.path='{typed}'", "resume=true", "train.steps=3") == 0
    ended = command("evaluate", tmp_path / "0" / "run")
    assert (ended.code, ended.err) == (0, "")


def test_a_path_that_names_nothing_stays_as_it_was_typed(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = command("train", "data=text", "data.path=none.txt")
    assert ended.code == 2
    assert ended.err == "error: data.path=none.txt can't be read: No such file or directory\n"


@pytest.mark.parametrize("tool", ["evaluate", "verify"])
def test_what_reads_the_text_is_told_where_it_lies_now(
    tool: str, command: Command, finished_bigram: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(finished_bigram, tmp_path / "run"))
    config = run / "config.yaml"
    path = load_settings(config).data["path"]
    config.write_text(config.read_text().replace(path, str(tmp_path / "gone.txt")))
    ended = command(tool, run)
    assert ended.code == 2
    assert "gone.txt can't be read: No such file" in ended.err
    assert ended.err.endswith("; if it lies elsewhere now: --data-path FILE\n")
    here = tmp_path / "here" / "now.txt"
    here.write_text(f"{TEXT}!")
    ended = command(tool, run, "--data-path", "now.txt")
    assert ended.code == 2
    assert "the text is not the one this run was trained on" in ended.err
    assert "--data-path" not in ended.err
    here.write_text(TEXT)
    ended = command(tool, run, "--data-path", "now.txt")
    assert ended.code == 0, ended.err


def test_a_model_without_a_run_has_no_text(command: Command) -> None:
    ended = command("verify", "bigram", "--data-path", "x")
    assert ended.code == 2
    assert "--data-path has no meaning for a model without a run" in ended.err
