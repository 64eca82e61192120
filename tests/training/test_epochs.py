"""Training without replacement: resumed as it was, and how many epochs it took."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch

from harness.common.errors import UsageError
from harness.training import loop
from harness.training.run import run
from tests.small_runs import TEXT, TRAIN_SHARE, rows, settings, summary, trace, train

SMALL = ("model=bigram", "tokenizer=bytes", "data.order=shuffled", "eval.sample_tokens=0")


def test_a_shuffled_run_is_resumed_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped in the second epoch, and in the middle of it."""
    few = (*SMALL, "train.steps=9", "train.batch_size=300", "train.seq_len=32")
    drawn: dict[Path, list[torch.Tensor]] = {tmp_path / "whole": [], tmp_path / "cut": []}
    draw = loop.shuffled_batch

    for folder, batches in drawn.items():

        def drawing(ids, seed, now, *rest, folder=folder, batches=batches):  # noqa: ANN001, ANN002, ANN202
            if folder.name == "cut" and now == 5 and len(batches) == 5:
                os.kill(os.getpid(), signal.SIGTERM)
            batches.append(draw(ids, seed, now, *rest)[1])
            return draw(ids, seed, now, *rest)

        monkeypatch.setattr(loop, "shuffled_batch", drawing)
        if folder.name == "cut":
            assert train(folder, *few) == 143
            assert run(settings(folder, *few, "resume=true")) == 0
        else:
            assert train(folder, *few) == 0
    assert trace(tmp_path / "cut") == trace(tmp_path / "whole")
    cut = int(TRAIN_SHARE * len(TEXT.encode())) // 32
    assert cut < 5 * 300 < 2 * cut  # it was the second epoch
    first = torch.cat(drawn[tmp_path / "whole"])[: cut + 1]
    assert len(first.unique(dim=0)) == len(first)


def test_epochs_are_counted_and_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of either order: the predictions trained on, by those in train."""
    assert train(tmp_path / "a", *SMALL, "train.steps=8") == 0
    split = int(TRAIN_SHARE * len(TEXT.encode()))
    found = rows(tmp_path / "a")
    assert [row["epochs"] for row in found] == [row["tokens"] / (split - 1) for row in found]
    assert summary(tmp_path / "a")["train"]["epochs"] == 8 * 32 / (split - 1)
    assert f"  {8 * 32 / (split - 1):.3g} epochs  val " in capsys.readouterr().err


def test_an_order_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="order=sorted must be random or shuffled"):
        train(tmp_path / "a", "model=bigram", "data.order=sorted")
