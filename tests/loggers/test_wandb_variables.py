"""W&B's own variables mean what its users expect, and what is wrong with them is said at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from harness.loggers.wandb import WandB
from tests.conftest import Ended
from tests.loggers.stored_rows import BIGRAM, defined, of_type, wandb_rows, wandb_sessions, warnings
from tests.small_runs import rows, train

GIVEN = {
    "WANDB_PROJECT": "theirs", "WANDB_NAME": "a name", "WANDB_TAGS": "one,two", "WANDB_NOTES": "so",
    "WANDB_RUN_GROUP": "together", "WANDB_JOB_TYPE": "study", "WANDB_ENTITY": "them",
}  # fmt: skip


@pytest.mark.long
def test_variables_count_where_no_setting_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a key that can't be one: then the run is offline, and complete."""
    for name, value in GIVEN.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("WANDB_API_KEY", "short")
    chosen = ("logger=[wandb]", "logger.wandb.group=mine", "logger.wandb.tags=[two,three]")
    assert train(tmp_path / "a", *BIGRAM, *chosen) == 0
    (records,) = wandb_sessions(tmp_path / "a" / "run")
    (run,) = of_type(records, "run")
    assert (run["project"], run["display_name"], run["entity"]) == ("theirs", "a name", "them")
    assert (run["run_group"], run["job_type"], run["notes"]) == ("mine", "study", "so")
    assert sorted(run["tags"]) == ["bigram", "char", "corpus", "one", "three", "two"]
    assert wandb_rows(records) == defined(rows(tmp_path / "a"))
    (line,) = warnings(tmp_path / "a" / "run")
    assert "API key must have 40+ characters" in line
    assert line.endswith("going on offline")


def test_a_setting_comes_before_a_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the rows may lie elsewhere."""
    (elsewhere := tmp_path / "elsewhere").mkdir()
    for name, value in (GIVEN | {"WANDB_DIR": str(elsewhere), "WANDB_MODE": "disabled"}).items():
        monkeypatch.setenv(name, value)
    chosen = ("logger=[wandb]", "logger.wandb.project=mine", "logger.wandb.mode=offline")
    assert train(tmp_path / "a", *BIGRAM, *chosen) == 0
    assert wandb_sessions(tmp_path / "a" / "run") == []
    (records,) = wandb_sessions(elsewhere)
    assert of_type(records, "run")[0]["project"] == "mine"


def test_disabled_means_that_nothing_is_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert train(tmp_path / "a", *BIGRAM, "logger=[wandb]") == 0
    (line,) = warnings(tmp_path / "a" / "run")
    assert line.endswith("wandb: WANDB_MODE=disabled: nothing is logged")
    assert not (tmp_path / "a" / "run" / "wandb").exists()


@pytest.mark.parametrize(
    ("variables", "override", "expected"),
    [
        ({"WANDB_PROJECT": "a/b"}, "", "logger.wandb: project 'a/b' must have 1 to 128 characters"),
        ({"WANDB_TAGS": "x" * 65}, "", "must have 1 to 64 characters"),
        ({}, "logger.wandb.project=a:b", "logger.wandb: project 'a:b' must have"),
        ({}, f"logger.wandb.tags=[{'x' * 65}]", "must have 1 to 64 characters"),
        ({}, "logger.wandb.tags=['']", "tag '' must have 1 to 64 characters"),
    ],
)
def test_a_name_that_wandb_refuses_is_refused_before_the_training(
    variables: dict[str, str],
    override: str,
    expected: str,
    command: Callable[..., Ended],
    small_text: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    ended = command(
        "train", "data=text", f"data.path={small_text}", "model=bigram", "logger=wandb",
        *filter(None, [override]),
    )  # fmt: skip
    assert ended.code == 2
    assert expected in ended.err
    assert len(ended.err.splitlines()) == 1
    assert list((tmp_path / "here").iterdir()) == []


def test_a_bad_project_of_the_environment_does_not_matter_where_another_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WANDB_PROJECT", "a/b")
    WandB(project="fine")
    with pytest.raises(ValueError, match="project 'a/b'"):
        WandB()
