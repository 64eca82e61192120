"""Training without replacement: resumed as it was, and how many epochs it took."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from harness.common.errors import UsageError
from harness.training import loop
from harness.training.run import run
from tests.small_runs import TEXT, TRAIN_SHARE, rows, settings, summary, trace, train

SMALL = ("model=bigram", "tokenizer=bytes", "data.order=shuffled", "eval.sample_tokens=0")


def test_a_shuffled_run_is_resumed_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped in the second epoch, and in the middle of it."""
    few = (*SMALL, "train.steps=7", "train.batch_size=300", "train.seq_len=32")
    assert train(tmp_path / "whole", *few) == 0
    draw = loop.shuffled_batch

    def drawing(ids, seed, now, *rest):  # noqa: ANN001, ANN002, ANN202
        if now == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        return draw(ids, seed, now, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "shuffled_batch", drawing)
        assert train(tmp_path / "cut", *few) == 143
    assert run(settings(tmp_path / "cut", *few, "resume=true")) == 0
    assert trace(tmp_path / "cut") == trace(tmp_path / "whole")
    rows_of_an_epoch = TRAIN_SHARE * len(TEXT.encode()) / 32
    assert rows_of_an_epoch < 5 * 300 < 2 * rows_of_an_epoch
    assert trace(tmp_path / "whole")[1]["train/loss"] != random_loss(tmp_path, *few)


def random_loss(folder: Path, *few: str) -> float:
    """Of the same step, in the other order."""
    assert train(folder / "random", *few, "data.order=random", "train.steps=2") == 0
    return float(trace(folder / "random")[1]["train/loss"])


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
