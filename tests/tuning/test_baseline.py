"""One command from a new model to its place among others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from harness.cli import recipe
from harness.cli.hydra_app import compose
from harness.config.settings import read_settings
from harness.runs.certificate import read as read_certificate
from harness.runs.summary import read_summary
from harness.tuning import plan, search
from harness.tuning.baseline import baseline
from harness.tuning.plan import INIT, RATE, PlannedCost, Stage
from harness.tuning.progress import SearchProgress
from tests.conftest import Ended
from tests.small_runs import SMALL
from tests.training.sweeps import contents

ONE = (Stage("1-rate", RATE, (1e-2,)),)
FEW = (Stage("1-rate", RATE, (1e-2, 1e-1)), Stage("2-init", INIT, ("default", "xavier")))


@pytest.fixture
def shared(small_text: Path, tmp_path: Path) -> list[str]:
    return [*SMALL, f"data.path={small_text}", f"cache={tmp_path / 'cache'}", "train.steps=4"]


@pytest.fixture
def run(command: Callable[..., Ended]) -> Callable[[Sequence[str], bool], int]:
    def run(arguments: Sequence[str], table: bool) -> int:
        return command("train", *arguments).code

    return run


def stages(monkeypatch: pytest.MonkeyPatch, wanted: tuple[Stage, ...]) -> None:
    for module in (plan, search):
        monkeypatch.setattr(module, "STAGES", wanted)


@pytest.mark.long
def test_a_new_model_is_searched_trained_and_ranked_beside_the_floor(
    tmp_path: Path,
    shared: list[str],
    run: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    stages(monkeypatch, ONE)
    folder = tmp_path / "all"
    assert baseline(["bigram"], ["ngram"], shared, folder, seeds=1, run=run) == 0
    printed = capsys.readouterr().out
    assert "bigram reaches" in printed
    assert "The floor on" in printed
    assert (folder / "table.md").read_text().count("\n| ") >= 3
    assert "<html" in (folder / "report.html").read_text()
    trained = [path.parent for path in folder.glob("*/*/summary.json")]
    assert sorted(read_summary(path).model for path in trained) == ["bigram", "bigram", "ngram"]

    # Once more: nothing is trained again.
    before = {path: contents(path) for path in trained}
    assert baseline(["bigram"], ["ngram"], shared, folder, seeds=1, run=run) == 0
    assert {path: contents(path) for path in before} == before


@pytest.mark.long
def test_every_model_has_the_same_trials_and_seeds_and_a_complete_certificate(
    tmp_path: Path, shared: list[str], run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages(monkeypatch, FEW)
    folder = tmp_path / "all"
    code = baseline(["mlp"], ["bigram", "ngram"], shared, folder, seeds=2, complete=True, run=run)
    assert code == 0
    for model in ("mlp", "bigram"):
        of = [p for p in folder.glob("*/*/summary.json") if read_summary(p.parent).model == model]
        assert len(of) == 3 + 2
    for path in (*folder.glob("chosen/*/summary.json"), *folder.glob("floor/*/summary.json")):
        found = read_certificate(path.parent)
        assert found is not None
        assert found.complete


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train.steps=5"], "name the new model"),
        (["gtp"], "Did you mean gpt"),
        (["gpt", "--seeds", "0"], "--seeds 0 must be at least 1"),
        (["ngram", "--against", "ngram"], "nothing to search or train"),
        (["gpt", "optimizer.lr=1"], "optimizer.lr is set by the search itself"),
    ],
)
def test_a_mistake_is_one_line(
    command: Callable[..., Ended], words: list[str], message: str, tmp_path: Path
) -> None:
    ended = command("baseline", *words, "--folder", tmp_path / "all")
    assert ended.code == 2
    assert message in ended.err
    assert len(ended.err.splitlines()) == 1
    assert not (tmp_path / "all").exists()


def test_the_time_left_is_the_plan_s_at_the_pace_so_far(tmp_path: Path) -> None:
    costs = {"a": PlannedCost(1.0, 100.0), "b": PlannedCost(1.0, 0.0)}
    progress = SearchProgress(tmp_path, costs, each=3, workers=1)
    assert "training 0 of 6 has ended; about 5.0 minutes left" in progress.line(0.0)
    progress._ended = {tmp_path / "a0": 100.0}
    # As planned; twice as fast; and 60 s for what the plan leaves out, which all others have, too.
    assert "training 1 of 6 has ended; about 3.3 minutes left" in progress.line(100.0)
    assert "about 1.7 minutes left" in progress.line(50.0)
    assert "about 8.3 minutes left" in progress.line(160.0)
    # A training that was planned to take no time at all takes some.
    progress._ended = {tmp_path / "b0": 0.0}
    assert "about 5.8 minutes left" in progress.line(10.0)


def test_a_model_without_a_searched_rate_has_a_default_one_and_a_word_on_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    recipe.say.cache_clear()

    def rate(model: str) -> float:
        cfg = compose(["experiment=compare", "hydra.mode=RUN", f"model={model}"])
        found: float = read_settings(cfg).optimizer["lr"]
        return found

    assert rate("mlp") == 3.3e-3
    assert capsys.readouterr().err == ""
    assert rate("mamba2") == 3e-3
    said = capsys.readouterr().err
    assert said.startswith("model=mamba2: no rate was searched for it")
    assert said.endswith("python -m harness.baseline mamba2\n")
