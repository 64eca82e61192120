"""A training ends with its budget: steps, tokens, bytes, FLOPs, seconds or patience."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from harness.cli.hydra_app import compose
from harness.common.errors import UsageError
from harness.config.settings import read_settings
from harness.training import loop
from tests.small_runs import GPT_SMALL, losses, rows, summary, trace, train


@pytest.mark.parametrize(
    ("budget", "steps"),
    [("tokens=100", 4), ("tokens=128", 4), ("bytes=96", 3), ("flops=1e6", None), ("steps=5", 5)],
)
def test_training_ends_with_its_budget(tmp_path: Path, budget: str, steps: int | None) -> None:
    train(tmp_path / "a", *GPT_SMALL, "train.steps=null", f"train.{budget}")
    cost = summary(tmp_path / "a")["train"]
    name, _, amount = budget.partition("=")
    before, last = rows(tmp_path / "a")[-2:]
    key = "step" if name == "steps" else name
    assert before[key] < float(amount) <= last[key]
    assert cost[name] == last[key]
    assert steps is None or cost["steps"] == steps


def test_a_budget_of_seconds_ends_by_the_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "perf_counter", itertools.count(0.0, 0.04).__next__)
    train(tmp_path / "a", *GPT_SMALL, "train.steps=null", "train.seconds=0.3", "eval.every=1000")
    before, last = rows(tmp_path / "a")[-2:]
    assert before["seconds"] < 0.3 <= last["seconds"]
    rates = [row["lr"] for row in rows(tmp_path / "a") if "lr" in row]
    assert rates[-1] < max(rates)


def test_schedules_follow_the_budget(tmp_path: Path) -> None:
    """Half of the tokens, half of the way down: as with half of the steps."""
    chosen = (*GPT_SMALL, "schedule=linear", "schedule.warmup=0.25")
    train(tmp_path / "a", *chosen, "train.steps=8")
    train(tmp_path / "b", *chosen, "train.steps=null", "train.tokens=256")
    assert losses(tmp_path / "a") == losses(tmp_path / "b")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("train.steps=5", "train.tokens=9"), "given twice"),
        (("train.steps=0",), "train.steps=0 must be at least 1"),
        (("train.tokens=-1", "train.steps=null"), "must be at least 1"),
        (("train.positions=first",), "all, last"),
        (("train.ema=1",), "train.ema"),
        (("train.label_smoothing=1.0",), "label_smoothing"),
        (("train.max_norm=0",), "max_norm"),
        (("optimizer.lr_of={nothing: 1.0}",), "no such part"),
        (("optimizer.lr_of={blocks: 0.1, norm: -5.0}",), r"optimizer\.lr_of\.norm=-5.0 must be"),
        (("optimizer.lr_of={head: 0.1}",), "head.weight is tied to token_embedding.weight"),
        (("optimizer=sgd", "optimizer.momentum=5"), r"optimizer\.momentum=5 must be .* below 1"),
        (("optimizer=sgd", "optimizer.momentum=0"), r"set optimizer\.nesterov=false"),
        (("optimizer=rmsprop", "optimizer.momentum=1"), r"optimizer\.momentum=1 must be"),
        (("optimizer=rmsprop", "optimizer.alpha=1.5"), r"optimizer\.alpha=1\.5 must be"),
        (("optimizer=muon", "optimizer.momentum=1.0"), r"optimizer\.momentum=1\.0 must be"),
        (("optimizer=muon", "optimizer.betas=[0.9,1.0]"), r"optimizer\.betas\[1\]=1\.0 must be"),
        (("optimizer=lion", "optimizer.betas=[-0.1,0.9]"), r"optimizer\.betas\[0\]=-0\.1 must be"),
        (("optimizer.lr=-1",), r"optimizer\.lr=-1 must be a finite number, at least 0"),
        (("optimizer.lr_of={blocks: inf}",), r"optimizer\.lr_of\.blocks=.* finite"),
    ],
)
def test_contradictions_are_refused(
    tmp_path: Path, overrides: tuple[str, ...], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        train(tmp_path / "a", *GPT_SMALL, *overrides)


def test_without_a_budget_it_is_2000_steps() -> None:
    assert read_settings(compose([])).train.budget == ("steps", 2000)


def test_early_stopping_keeps_the_best(tmp_path: Path) -> None:
    ruin = ("optimizer=sgd", "optimizer.lr=1.0", "schedule=constant", "train.clip=1")
    plan = (*GPT_SMALL, *ruin, "train.steps=40", "eval.every=2")
    train(tmp_path / "a", *plan, "train.patience=3")
    found = summary(tmp_path / "a")
    assert found["status"] == "finished"
    assert found["train"]["steps"] == found["best"]["step"] + 6 < 40
    assert "train.patience" in (tmp_path / "a/run/train.log").read_text()
    assert train(tmp_path / "a", *plan, "train.patience=3", "resume=true") == 0
    assert summary(tmp_path / "a") == found
    # Other patience is more to do; what comes of it is as if it had been so from the start.
    assert train(tmp_path / "a", *plan, "train.patience=5", "resume=true") == 0
    assert summary(tmp_path / "a")["train"]["steps"] > found["train"]["steps"]
    train(tmp_path / "b", *plan, "train.patience=5")
    assert trace(tmp_path / "a") == trace(tmp_path / "b")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("model=bigram", "train.steps=null", "train.flops=1e6"), "costs no FLOPs"),
        (("model=bigram", "train.patience=3", "data.split=[0.9,0,0.1]"), "validation split"),
    ],
)
def test_what_would_never_end_is_refused(
    tmp_path: Path, overrides: tuple[str, ...], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        train(tmp_path / "a", *overrides)
    assert not (tmp_path / "a/run").exists()
