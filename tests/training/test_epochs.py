"""Training without replacement: resumed as it was, and how many epochs it took."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest

from harness.common.errors import UsageError
from harness.data.batches import rows_in, shuffled_batch
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

    def drawing(ids, seed, first, *rest):  # noqa: ANN001, ANN002, ANN202
        if first == 5 * 300:
            os.kill(os.getpid(), signal.SIGTERM)
        return draw(ids, seed, first, *rest)

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


def test_a_fork_with_other_rows_goes_on_in_the_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each token once an epoch, whatever the batches before and after the fork. Rows of another
    length would cut the text anew: that is refused."""
    few = (*SMALL, "train.steps=6", "train.batch_size=300", "train.seq_len=32")
    assert train(tmp_path / "parent", *few, "checkpoint.every=2", "checkpoint.keep=all") == 0
    targets: list[np.ndarray] = []

    def fork(name: str, *changes: str) -> int:
        origin = f"fork_from={tmp_path}/parent/run@2"
        asked = settings(tmp_path / name, *few, origin, *changes)
        return run(asked, lambda step, batch: targets.append(batch[1].numpy().ravel()))

    assert fork("larger", "train.batch_size=450", "train.accumulate=2", "train.steps=3") == 0
    split = TRAIN_SHARE * len(TEXT.encode())
    rows_of_an_epoch = rows_in(int(split), 32, 32)
    before = 2 * 300
    assert before < rows_of_an_epoch < before + 900
    left = np.concatenate(targets)[: (rows_of_an_epoch - before) * 32]
    ids = np.frombuffer(TEXT.encode(), np.uint8)[: int(split)]
    whole = [shuffled_batch(ids, 0, 0, before, 32)[1].numpy().ravel(), left]
    counts = np.bincount(np.concatenate(whole), minlength=256)
    twice = counts - np.bincount(ids[1:], minlength=256)
    assert twice.min() >= 0
    assert twice.sum() < 32
    for change in ("train.seq_len=16", "train.positions=last"):
        key = change.partition("=")[0]
        with pytest.raises(UsageError, match=f"can't be forked with another {key}: "):
            fork(key, change)
