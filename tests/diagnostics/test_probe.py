"""Overfitting one batch, the range test, and schedules drawn."""

from __future__ import annotations

import itertools
import math
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from harness import lr_range, overfit, schedule
from harness.cli.hydra_app import compose, take_option
from harness.common.errors import UsageError
from harness.compute.device import Compute
from harness.config.settings import Settings, read_settings
from harness.data.batches import draw_batch
from harness.diagnostics import lr_range as ranges
from harness.diagnostics.lr_range import rising, smooth
from harness.diagnostics.probe import probe
from harness.evaluation.nats import nats_N
from harness.training import loss
from harness.training.run import load_dataset
from tests.small_runs import rows, settings, train
from tests.zoo.laws import CPU

GPT_SMALL = ("model=gpt", "model.n_layer=1", "model.n_head=2", "model.n_embd=32")


def composed(folder: Path, *overrides: str):  # noqa: ANN201
    chosen = settings(folder, *overrides)
    own = [f"data.path={chosen.data['path']}", f"cache={chosen.cache}"]
    return compose(["data=text", "device=cpu", "precision=fp32", *own, *overrides])


def test_one_batch_is_learnt_by_heart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chosen = (*GPT_SMALL, "train.steps=150", "train.batch_size=2", "train.seq_len=8")
    assert overfit.task(composed(tmp_path / "a", *chosen, "optimizer.lr=0.01")) == 0
    assert "learnt by heart" in capsys.readouterr().out


def test_what_cannot_be_learnt_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chosen = ("model=bigram", "train.steps=100", "train.batch_size=2", "train.seq_len=8")
    assert overfit.task(composed(tmp_path / "a", *chosen)) == 1
    assert "receptive field 1" in capsys.readouterr().out


def test_multiples_of_nothing_are_no_range(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="every rate is 0"):
        lr_range.task(composed(tmp_path, *GPT_SMALL, "train.steps=60", "optimizer.lr=0"))


def test_the_range_test_finds_where_learning_breaks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = (*GPT_SMALL, "train.steps=60", "train.seq_len=8", "optimizer.lr=0.001")
    assert lr_range.task(composed(tmp_path / "a", *chosen)) == 0
    fell, safe = capsys.readouterr().out.splitlines()[-2:]
    begun, best = (float(rate) for rate in re.findall(r"optimizer\.lr=(\S+?)[, ]", fell))
    assert 1e-5 < begun < best
    assert 1e-3 < best < 0.3
    assert float(safe.split("optimizer.lr=")[1]) == pytest.approx(best / 10, rel=0.1)


def test_the_range_test_names_each_part_s_rate(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """optimizer.lr, which no parameter has here, is not recommended."""
    parts = "{token_embedding: 2.0, window: 0.5, head: 0.02}"
    chosen = (
        "model=mlp", "model.n_layer=1", "optimizer=sgd", f"optimizer.lr_of={parts}",
        "schedule=constant", "train.steps=40", "train.seq_len=8",
    )  # fmt: skip
    assert lr_range.task(composed(tmp_path / "a", *chosen)) == 0
    fell, safe = capsys.readouterr().out.splitlines()[-2:]
    factor = float(re.findall(r"and (\S+) times the rates", fell)[0])
    assert "optimizer.lr=" not in fell + safe
    override = shlex.split(safe.partition(": ")[2])[0]
    found = read_settings(composed(tmp_path / "a", *chosen, override)).optimizer["lr_of"]
    expected = {"token_embedding": 2.0, "window": 0.5, "head": 0.02}
    assert found == pytest.approx({k: v * factor / 10 for k, v in expected.items()}, rel=0.1)


def test_where_the_loss_fell() -> None:
    assert ranges.fell([5.0, 5.1, 4.9, 4.0, 3.0, 3.5, 9.0]) == (2, 4)
    assert ranges.fell([5.0, 6.0, math.inf]) == (0, 0)
    some = ranges.as_settings({"": 0.1, "head": 2.0}, 0.5)
    assert some == "optimizer.lr=5.0e-02 'optimizer.lr_of={head: 1.0e+00}'"


def test_what_still_falls_at_the_end_is_said_and_nothing_beyond_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    falling = [5.0 - 0.1 * step for step in range(20)]
    for module in ("lr_range", "overfit"):
        monkeypatch.setattr(f"harness.diagnostics.{module}.probe", lambda *_: falling)
    cfg = composed(tmp_path / "a", *GPT_SMALL, "train.steps=20", "train.seq_len=8")
    picture = tmp_path / "range.png"
    assert lr_range.task(cfg, str(picture)) == 0
    said = capsys.readouterr().out
    assert "still falling at the end" in said
    assert "rule of thumb" not in said
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert overfit.task(cfg, str(tmp_path / "one.svg")) == 1
    assert "still falling at the end: more steps" in capsys.readouterr().out
    assert "<svg" in (tmp_path / "one.svg").read_text()
    with pytest.raises(UsageError, match="should end in"):
        overfit.task(cfg, "a.pdf")


def test_an_option_of_ours_is_not_hydra_s(monkeypatch: pytest.MonkeyPatch) -> None:
    for words in (["--out", "a.png"], ["--out=a.png"]):
        monkeypatch.setattr("sys.argv", ["x", "model=gpt", *words, "seed=1"])
        assert take_option("--out") == "a.png"
        assert sys.argv == ["x", "model=gpt", "seed=1"]
    assert take_option("--out") is None


def test_a_rate_at_which_nothing_is_learnt_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.diagnostics.lr_range.probe", lambda *_: [2.0, 3.0] * 10)
    chosen = (*GPT_SMALL, "train.steps=20", "train.seq_len=8")
    assert lr_range.task(composed(tmp_path / "a", *chosen)) == 1
    assert "the loss fell nowhere from its 2.000" in capsys.readouterr().out


@pytest.mark.parametrize(
    "recipe",
    [
        "train.positions=last",
        "train.label_smoothing=0.5",
        "train.max_norm=0.05",
        "train.accumulate=3",
        "train.clip=0.01",
        "train.clip=null",
        "precision=fp16",
        "optimizer.lr_of={head: 0.1}",
    ],
)
def test_a_probe_s_step_is_the_loop_s(tmp_path: Path, recipe: str) -> None:
    """The same batches at the same rate: the losses of a training, bit for bit."""
    chosen = (*GPT_SMALL, "model.tie_weights=false", "schedule=constant", "optimizer.lr=0.01")
    train(tmp_path / "a", *chosen)
    plain = [row["train/loss"] for row in rows(tmp_path / "a") if "lr" in row]
    train(tmp_path / "b", *chosen, recipe)
    trained = [row["train/loss"] for row in rows(tmp_path / "b") if "lr" in row]
    assert trained != plain
    own = settings(tmp_path / "b", *chosen, recipe)
    dataset, plan = load_dataset(own), own.train
    steps = (
        (1.0, draw_batch(dataset.train.ids, own.seed, step, size, plan.seq_len))
        for size in [plan.batch_size * plan.accumulate]
        for step in range(8)
    )
    compute = Compute.choose("cpu", own.precision)
    assert probe(own, dataset, compute, steps) == trained


@pytest.mark.parametrize("task", [overfit.task, lr_range.task])
def test_what_a_training_accumulates_is_a_probe_s_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: Callable[[Any], int]
) -> None:
    seen: list[int] = []

    def look(settings: Settings, dataset: Any, compute: Any, steps: Any) -> list[float]:
        seen.extend(len(inputs) for _, (inputs, _) in steps)
        return [2.0] * 20

    for module in ("lr_range", "overfit"):
        monkeypatch.setattr(f"harness.diagnostics.{module}.probe", look)
    chosen = (*GPT_SMALL, "train.steps=20", "train.seq_len=8", "train.batch_size=3")
    task(composed(tmp_path / "a", *chosen, "train.accumulate=4"))
    assert seen == [12] * 20


def test_what_a_probe_does_not_do_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = ("model=mlp", "model.norm=batch_norm", "model.bias=false", "train.batch_norm=frozen")
    own = settings(tmp_path / "a", *chosen)
    probe(own, load_dataset(own), CPU, [])
    assert "train.batch_norm=frozen: no step here" in capsys.readouterr().err


def test_a_drawn_schedule_has_the_rates_of_the_parts(capsys: pytest.CaptureFixture[str]) -> None:
    whole = ("model=mlp", "model.n_layer=1", "optimizer.lr=0.3")
    schedule.task(compose([*whole]))
    assert capsys.readouterr().out.startswith("      0.3 ┤")
    schedule.task(compose([*whole, "optimizer.lr_of={head: 0.07}"]))
    drawn = capsys.readouterr().out
    assert drawn.startswith("        1 ┤")
    assert drawn.endswith("times 0.3 (all else), 0.07 (head)\n")
    parts = "{token_embedding: 12.0, window: 0.015, head: 0.07}"
    schedule.task(compose([*whole, f"optimizer.lr_of={parts}"]))
    drawn = capsys.readouterr().out
    assert drawn.endswith("times 12 (token_embedding), 0.015 (window), 0.07 (head)\n")
    with pytest.raises(UsageError, match="no such part"):
        schedule.task(compose([*whole, "optimizer.lr_of={heads: 0.07}"]))


def test_rates_rise_in_equal_ratios() -> None:
    factors = rising(8)
    assert factors[0] == pytest.approx(ranges.LOWEST)
    assert factors[-1] == pytest.approx(ranges.HIGHEST)
    assert [b / a for a, b in itertools.pairwise(factors)] == pytest.approx([10.0] * 7)
    assert smooth([2.0, 2.0, 2.0]) == pytest.approx([2.0] * 3)
    assert smooth([1.0, math.nan])[1] == math.inf


def test_a_probe_ends_at_a_loss_that_is_no_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = settings(tmp_path / "a", *GPT_SMALL)
    batch = (torch.zeros(1, 8, dtype=torch.int64), torch.ones(1, 8, dtype=torch.int64))
    nats = nats_N
    calls: list[int] = []

    def third_is_nan(logits: torch.Tensor, targets: torch.Tensor, **rest: Any) -> torch.Tensor:
        calls.append(1)
        return nats(logits, targets, **rest) * (math.nan if len(calls) == 3 else 1.0)

    monkeypatch.setattr(loss, "nats_N", third_is_nan)
    found = probe(chosen, load_dataset(chosen), CPU, [(1.0, batch)] * 9)
    assert len(found) == 3
    assert math.isnan(found[2])
