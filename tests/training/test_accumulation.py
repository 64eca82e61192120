"""Accumulated gradients equal those of one large batch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from harness.data.batches import IGNORED, draw_batch
from harness.training import loop, trainer
from tests.small_runs import GPT_SMALL, losses, rows, trace, train


def test_accumulation_equals_one_large_batch(tmp_path: Path) -> None:
    train(tmp_path / "a", *GPT_SMALL, "train.batch_size=8", "train.accumulate=1")
    train(tmp_path / "b", *GPT_SMALL, "train.batch_size=2", "train.accumulate=4")
    assert trace(tmp_path / "a")[0]["tokens"] == trace(tmp_path / "b")[0]["tokens"]
    np.testing.assert_allclose(losses(tmp_path / "a"), losses(tmp_path / "b"), atol=1e-5)
    first = losses(tmp_path / "a")[0], losses(tmp_path / "b")[0]
    np.testing.assert_allclose(*first, atol=1e-6)


def test_a_gradient_accumulated_wrongly_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mutant: a mean over each micro-batch, summed, as if it were the mean over all."""
    train(tmp_path / "a", *GPT_SMALL, "train.batch_size=8", "train.accumulate=1")
    add = trainer.add_gradients
    monkeypatch.setattr(
        trainer, "add_gradients", lambda *rest: add(*rest[:4], 4 * rest[4], *rest[5:])
    )
    train(tmp_path / "b", *GPT_SMALL, "train.batch_size=2", "train.accumulate=4")
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(losses(tmp_path / "a"), losses(tmp_path / "b"), atol=1e-5)


def ragged(draw: Callable[..., tuple[torch.Tensor, torch.Tensor]]) -> Callable[..., Any]:
    """As a padded corpus would have it: each row ends somewhere, and what follows is no target."""

    def drawn(ids: Any, seed: int, step: int, rows: int, seq_len: int, *rest: Any) -> Any:
        inputs, targets = draw(ids, seed, step, rows, seq_len)
        ends = torch.randint(seq_len + 1, (rows, 1), generator=torch.Generator().manual_seed(step))
        ends[0] = seq_len  # so that a step has a target
        return inputs, targets.where(torch.arange(seq_len) < ends, IGNORED)

    return drawn


@pytest.mark.parametrize("mutant", [None, "of the positions", "of each micro-batch"])
def test_accumulation_equals_one_large_batch_with_ragged_targets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mutant: str | None
) -> None:
    """The gradients, shown by one step of SGD, to 1e-6; a mean taken over anything but the targets
    of the whole step is noticed."""
    draw = ragged(draw_batch)
    monkeypatch.setattr(loop, "draw_batch", draw)
    plain = ("optimizer=sgd", "optimizer.lr=1", "optimizer.momentum=0", "optimizer.nesterov=false")
    plain += ("schedule=constant", "train.clip=null", "train.steps=1", "eval.every=100")
    weights, found = [], []
    add = trainer.add_gradients

    def mutated(
        model: Any, features: Any, targets: Any, compute: Any, weight: Any, *rest: Any
    ) -> Any:
        counted = int((targets != IGNORED).sum())
        own = {"of the positions": targets.numel() * 4, "of each micro-batch": counted * 4}
        return add(model, features, targets, compute, torch.tensor(1 / own[str(mutant)]), *rest)

    batches = {"a": (8, 1), "b": (2, 4)} | ({} if mutant else {"c": (4, 2)})
    for name, (rows_each, times) in batches.items():
        if mutant and name == "b":
            monkeypatch.setattr(trainer, "add_gradients", mutated)
        batch = (f"train.batch_size={rows_each}", f"train.accumulate={times}")
        train(tmp_path / name, *GPT_SMALL, *plain, *batch)
        saved = torch.load(tmp_path / name / "run/checkpoints/step-00000001.pt", weights_only=True)
        weights.append(torch.cat([w.flatten() for w in saved["model"].values()]))
        found.append(rows(tmp_path / name))
    targets = draw(torch.zeros(100, dtype=torch.uint8).numpy(), 0, 0, 8, 16)[1]
    assert 16 < found[0][-1]["tokens"] == int((targets != IGNORED).sum()) < 8 * 16
    assert found[0][-1]["bytes"] >= found[0][-1]["tokens"]
    off = max((weights[0] - other).abs().max().item() for other in weights[1:])
    if mutant:
        assert off > 1e-4
        return
    assert off < 1e-6
    for row in found[1:]:
        assert row[0]["train/loss"] == pytest.approx(found[0][0]["train/loss"], abs=1e-6)
        assert row[-1]["tokens"] == found[0][-1]["tokens"]
        assert row[-1]["bytes"] == found[0][-1]["bytes"]
