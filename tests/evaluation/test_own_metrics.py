"""A user's own figures: in the rows, the summary and the table, and harmless."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from harness.common.errors import UsageError
from harness.config.saved import load_settings
from harness.evaluation.own_metrics import OwnMetrics
from harness.evaluation.score import score_split, windows
from harness.runs.load import load_run
from tests.conftest import Ended
from tests.evaluation import figures
from tests.small_runs import GPT_SMALL, cut_off, rows, summary, trace, train

HERE = "tests.evaluation.figures"
TRUST = "trust=[tests]"
NAMES = ("accuracy", "greedy", "sober", "late", "misshapen", "undefined")


def named(*names: str) -> str:
    return f"metrics=[{','.join(f'{HERE}.{name}' for name in names)}]"


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plain")
    assert train(folder, *GPT_SMALL, "model.dropout=0.1") == 0
    return folder


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("measured")
    figures.CALLS.clear()
    of = named(*NAMES)
    assert train(folder, *GPT_SMALL, "model.dropout=0.1", of, TRUST) == 0
    return folder


def test_nothing_else_changes(plain: Path, measured: Path) -> None:
    """Not a bit of a loss, a weight's effect or a score, whatever the functions do."""
    own = {f"val/{name}" for name in NAMES}
    found = [{k: v for k, v in row.items() if k not in own} for row in trace(measured)]
    assert found == trace(plain)
    for part in ("val", "test"):
        scored = summary(measured)[part]
        assert scored.pop("own").keys() == {name.removeprefix("val/") for name in own}
        assert scored == summary(plain)[part]
    assert summary(measured)["certificate"] == summary(plain)["certificate"]


def test_a_figure_is_the_mean_over_the_targets_of_the_split(measured: Path) -> None:
    """Against windows cut by hand."""
    run = load_run(measured / "run", "best", "cpu", [])
    ids = torch.from_numpy(np.asarray(run.dataset().test.ids).astype(np.int64))  # type: ignore
    hits = []
    with torch.no_grad():
        for start, new in windows(len(ids) - 1, 16, 8):
            logits = run.model.eval()(ids[None, start : start + 16])[0]
            right = logits.argmax(-1) == ids[start + 1 : start + 17]
            hits += right[-new:].tolist()
    assert len(hits) == len(ids) - 1
    assert summary(measured)["test"]["own"]["accuracy"] == pytest.approx(np.mean(hits), abs=1e-12)


def test_one_that_fails_costs_its_own_figure(measured: Path) -> None:
    evaluated = [row for row in rows(measured) if "val/nats_per_token" in row]
    assert len(evaluated) == 3
    for row in evaluated:
        assert row["val/accuracy"] == row["val/sober"] is not None
        assert row["val/greedy"] == 1.0
        assert row["val/late"] is row["val/misshapen"] is row["val/undefined"] is None
    assert len(figures.CALLS) == 2  # and it is not called again
    log = (measured / "run" / "train.log").read_text()
    assert log.count("metrics: late is left out from here on: RuntimeError: boom and more") == 1
    assert log.count("metrics: misshapen is left out") == 1


def test_a_table_has_a_column(
    measured: Path, tmp_path: Path, command: Callable[..., Ended]
) -> None:
    paths = [tmp_path / "table.md", tmp_path / "table.csv"]
    ended = command(
        "compare", str(measured), "--markdown", str(paths[0]), "--csv", str(paths[1]),
        "--out", str(tmp_path / "report.html"),
    )  # fmt: skip
    assert ended.code == 0, ended.err
    accuracy = summary(measured)["test"]["own"]["accuracy"]
    head, _, line = (each for each in paths[0].read_text().splitlines() if each.startswith("| "))
    at = head.split("|").index(" accuracy test ")
    assert line.split("|")[at].strip() == f"{accuracy:.3f}"
    assert "test accuracy" in paths[1].read_text()
    assert "accuracy" in (tmp_path / "report.html").read_text()


def test_they_are_the_users_and_not_the_folders(measured: Path) -> None:
    """A folder may come from a stranger; who resumes names them again."""
    assert HERE in (measured / "run" / "config.yaml").read_text()
    assert load_settings(measured / "run" / "config.yaml").metrics == []


def test_resumed_with_others_the_training_is_the_same(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = (*GPT_SMALL, "model.dropout=0.1")
    cut_off(tmp_path, 5, monkeypatch, *begin)
    assert train(tmp_path, *begin, "resume=true", named("accuracy"), TRUST) == 0
    last = trace(tmp_path)[-1]
    assert isinstance(last.pop("val/accuracy"), float)
    assert last == trace(plain)[-1]


@pytest.mark.parametrize(
    ("names", "trust", "words"),
    [
        (["accuracy"], [], r"metrics=tests\..* lies outside the trusted packages"),
        (["acuracy"], ["tests"], r"metrics=tests\.evaluation\.figures\.acuracy does not exist"),
        (["foreign"], ["tests"], "is not a function of tests"),
        (["Figure"], ["tests"], "is not a function of tests"),
        (["accuracy", "accuracy"], ["tests"], "there is a figure accuracy already"),
        (["perplexity"], ["tests"], "there is a figure perplexity already"),
    ],
)
def test_refused(names: list[str], trust: list[str], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        OwnMetrics.of([f"{HERE}.{name}" for name in names], trust)


def test_refused_in_one_line_before_there_is_a_folder(
    tmp_path: Path, command: Callable[..., Ended], small_text: Path
) -> None:
    run = tmp_path / "run"
    own = (named("nothing"), TRUST)
    ended = command("train", "data=text", f"data.path={small_text}", f"run_dir={run}", *own)
    assert ended.code == 2
    assert len(ended.err.splitlines()) == 1
    assert not run.exists()


def test_a_score_without_own_figures_has_none(plain: Path) -> None:
    run = load_run(plain / "run", "best", "cpu", [])
    split: Any = run.dataset().test
    score = score_split(run.model, split, run.tokenizer, run.compute)
    assert score.own == {}
    assert "own" not in score.summary()
