"""Overfitting one batch, and the range test."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from harness import cli, loss, lr_range, overfit
from harness.lr_range import rising, smooth
from harness.probe import probe
from harness.train import load_dataset

from .laws import CPU
from .training import settings

GPT_SMALL = ("model=gpt", "model.n_layer=1", "model.n_head=2", "model.n_embd=32")


def composed(folder: Path, *overrides: str):  # noqa: ANN201
    chosen = settings(folder, *overrides)
    own = [f"data.path={chosen.data['path']}", f"cache={chosen.cache}"]
    return cli.compose(["data=text", "device=cpu", "precision=fp32", *own, *overrides])


def test_one_batch_is_learnt_by_heart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chosen = (*GPT_SMALL, "train.steps=150", "train.batch_size=2", "train.seq_len=8")
    assert overfit.task(composed(tmp_path / "a", *chosen, "optimizer.lr=0.01")) == 0
    assert "learnt by heart" in capsys.readouterr().out


def test_what_cannot_be_learnt_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chosen = ("model=bigram", "train.steps=100", "train.batch_size=2", "train.seq_len=8")
    assert overfit.task(composed(tmp_path / "a", *chosen)) == 1
    assert "receptive field 1" in capsys.readouterr().out


def test_the_range_test_finds_where_learning_breaks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = (*GPT_SMALL, "train.steps=60", "train.seq_len=8", "optimizer.lr=0.001")
    assert lr_range.task(composed(tmp_path / "a", *chosen)) == 0
    said = capsys.readouterr().out.splitlines()[-1]
    best = float(said.split(" at ")[1].split(";")[0])
    assert 1e-3 < best < 0.3


def test_rates_rise_in_equal_ratios() -> None:
    factors = rising(8)
    assert factors[0] == pytest.approx(lr_range.LOWEST)
    assert factors[-1] == pytest.approx(lr_range.HIGHEST)
    assert [b / a for a, b in itertools.pairwise(factors)] == pytest.approx([10.0] * 7)
    assert smooth([2.0, 2.0, 2.0]) == pytest.approx([2.0] * 3)
    assert smooth([1.0, math.nan])[1] == math.inf


def test_a_probe_ends_at_a_loss_that_is_no_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = settings(tmp_path / "a", *GPT_SMALL)
    batch = (torch.zeros(1, 8, dtype=torch.int64), torch.ones(1, 8, dtype=torch.int64))
    nats = loss.nats_N
    calls: list[int] = []

    def third_is_nan(logits: torch.Tensor, targets: torch.Tensor, **rest: Any) -> torch.Tensor:
        calls.append(1)
        return nats(logits, targets, **rest) * (math.nan if len(calls) == 3 else 1.0)

    monkeypatch.setattr(loss, "nats_N", third_is_nan)
    found = probe(chosen, load_dataset(chosen), CPU, [(1.0, batch)] * 9)
    assert len(found) == 3
    assert math.isnan(found[2])
