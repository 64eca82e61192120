"""Auxiliary losses: trained by their weight, logged each, and never in a score."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from harness.common.errors import RunFailure
from harness.compute.device import Compute
from harness.data.batches import draw_batch
from harness.evaluation import nats
from harness.training.trainer import Trainer
from tests.small_runs import rows, settings, summary, train
from zoo.bigram import Bigram
from zoo.language_model import Cache

MOE = (
    "model=gpt_moe", "model.n_layer=2", "model.n_head=2", "model.n_embd=16", "model.n_inner=8",
    "model.n_expert=4", "optimizer=sgd", "optimizer.lr=0.1", "train.clip=null",
)  # fmt: skip
CPU = Compute(torch.device("cpu"), "fp32")
VOCABULARY = 40
BALANCE = "train/auxiliary/balance"


def one_step(folder: Path, *overrides: str) -> tuple[Trainer, dict[str, Any]]:
    chosen = settings(folder, *MOE, *overrides)
    trainer = Trainer(chosen, VOCABULARY, CPU)
    text = torch.randint(VOCABULARY, (999,), generator=torch.Generator().manual_seed(0)).numpy()
    plan = chosen.train
    batch = draw_batch(text, 0, 0, plan.batch_size * plan.accumulate, plan.seq_len)
    row: dict[str, Any] = {"step": 0}
    trainer.step(batch, 1.0, row)
    return trainer, row


def weights(trainer: Trainer) -> Tensor:
    return torch.cat([p.detach().flatten() for p in trainer.model.parameters()])


def test_the_gradient_is_that_of_the_weighted_sum(tmp_path: Path) -> None:
    """The update moves by the loss's weight times what it moves by at weight 1; the losses that are
    reported are of the same weights, and don't know of it."""
    at = {w: one_step(tmp_path / str(w), f"model.balance_weight={w}") for w in (0.0, 1.0, 3.0)}
    none, one, three = (weights(trainer) for trainer, _ in at.values())
    assert not torch.equal(none, one)
    torch.testing.assert_close(three - none, 3 * (one - none), rtol=1e-3, atol=1e-6)
    for name in ("train/loss", BALANCE, "train/auxiliary/router_z"):
        assert len({row[name] for _, row in at.values()}) == 1
    assert 2 <= at[0.0][1][BALANCE] < 8  # two layers of four experts


def test_a_loss_in_chunks_has_the_same_gradient(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, row = one_step(tmp_path / "whole", "model.balance_weight=1.0")
    monkeypatch.setattr(nats, "CHUNK_LOGITS", 5 * VOCABULARY)
    chunks, same = one_step(tmp_path / "chunks", "model.balance_weight=1.0")
    torch.testing.assert_close(weights(chunks), weights(whole), rtol=0, atol=1e-7)
    assert same[BALANCE] == row[BALANCE]


def test_micro_batches_count_by_their_share(tmp_path: Path) -> None:
    """Each has a loss of its own, so the reported one is their mean."""
    overrides = ("train.batch_size=1", "model.balance_weight=0.0")
    _, both = one_step(tmp_path / "both", *overrides, "train.accumulate=2")
    trainer = Trainer(settings(tmp_path / "one", *MOE, *overrides), VOCABULARY, CPU)
    text = torch.randint(VOCABULARY, (999,), generator=torch.Generator().manual_seed(0)).numpy()
    inputs, _ = draw_batch(text, 0, 0, 2, 16)
    found = []
    for row in inputs:
        losses: dict[str, Tensor] = {}
        trainer.model(row[None], return_features=True, losses=losses)
        found.append(losses["balance"].item())
    assert both[BALANCE] == pytest.approx(sum(found) / 2, rel=1e-6)


def test_a_training_logs_them_and_scores_without(tmp_path: Path) -> None:
    assert train(tmp_path, *MOE) == 0
    steps = [row for row in rows(tmp_path) if "lr" in row]
    assert all(row[BALANCE] >= 1 and "train/auxiliary/router_z" in row for row in steps)
    found = summary(tmp_path)
    assert found["certificate"].startswith("passed")
    assert found["parameters"]["active"] < found["parameters"]["total"]
    assert "balance" not in str(found["val"])


class Untrue(Bigram):
    """Declares a loss and gives another, or no number."""

    auxiliary = {"mine": 0.1}  # noqa: RUF012
    given: dict[str, Tensor] = {}  # noqa: RUF012

    def features(
        self, ids_BT: Tensor, cache: Cache | None = None, losses: dict[str, Tensor] | None = None
    ) -> Tensor:
        if losses is not None:
            losses.update(self.given)
        return super().features(ids_BT, cache)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "declares the auxiliary losses mine, one number each, and gives none"),
        ({"other": torch.ones(())}, r"gives other \(\)"),
        ({"mine": torch.ones(3)}, r"gives mine \(3,\)"),
    ],
)
def test_losses_are_those_declared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: dict[str, Tensor], words: str
) -> None:
    monkeypatch.setattr(Untrue, "given", given)
    named = f"model._target_={__name__}.Untrue"
    chosen = settings(tmp_path, named, f"trust=[{__name__.partition('.')[0]}]")
    trainer = Trainer(chosen, VOCABULARY, CPU)
    ids = torch.zeros(2, 16, dtype=torch.int64)
    with pytest.raises(RunFailure, match=words):
        trainer.step((ids, ids), 1.0, {"step": 0})
