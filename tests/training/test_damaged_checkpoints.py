"""Whatever is damaged in a checkpoint is noticed, and the one before it is loaded."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest
import torch

from harness.common.errors import RunFailure
from harness.runs import checkpoint
from harness.runs.checkpoint import BestCheckpoint, Checkpoint, StepCheckpoint
from tests.small_runs import GPT_SMALL, train


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoints of a run that ended: of steps 6 and 8. For reading only."""
    folder = tmp_path_factory.mktemp("saved") / "a"
    assert train(folder, *GPT_SMALL) == 0
    return folder / "run" / "checkpoints"


def test_whatever_bit_flips_is_noticed(
    saved: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(saved, tmp_path / "checkpoints")
    newest = tmp_path / "checkpoints" / "step-00000008.pt"
    content, choice = newest.read_bytes(), random.Random(0)
    ends = [0, 1, len(content) - 1]
    for offset in [*ends, *(choice.randrange(len(content)) for _ in range(60))]:
        damaged = bytearray(content)
        damaged[offset] ^= 1 << choice.randrange(8)
        newest.write_bytes(damaged)
        assert not checkpoint.is_intact(newest), offset
    state = checkpoint.load(newest.parent, StepCheckpoint)
    assert state is not None
    assert state.step == 6
    assert f"{newest} is damaged" in caplog.text


@pytest.mark.parametrize(
    "damage", ["cut", "longer", "empty", "zeros", "no digest", "digest", "name"]
)
def test_every_damage_is_noticed(saved: Path, tmp_path: Path, damage: str) -> None:
    shutil.copytree(saved, tmp_path / "checkpoints")
    newest = tmp_path / "checkpoints" / "step-00000008.pt"
    digest, content = newest.with_name(newest.name + ".sha256"), newest.read_bytes()
    if damage in ("cut", "longer", "empty", "zeros"):
        wrong = {"cut": content[:-1], "longer": content + b"\0", "empty": b""}
        newest.write_bytes(wrong.get(damage, bytes(len(content))))
    elif damage == "no digest":
        digest.unlink()
    elif damage == "digest":
        digest.write_bytes(bytes([digest.read_bytes()[0] ^ 1]) + digest.read_bytes()[1:])
    else:  # another checkpoint under this one's name
        older = newest.with_name("step-00000006.pt")
        shutil.copy(older, newest)
        shutil.copy(older.with_name(older.name + ".sha256"), digest)
    state = checkpoint.load(newest.parent, StepCheckpoint)
    assert state is not None
    assert state.step == 6


def empty(step: int, *weights: torch.Tensor) -> StepCheckpoint:
    return StepCheckpoint(
        step=step, model={"weights": weights}, tokenizer="", corpus="", settings={},
        optimizer={}, scaler={}, progress={}, guard={},
    )  # fmt: skip


def test_what_does_not_read_back_never_gets_its_name(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that keeps another bit than it was given: flipped after the flush, before the look."""
    shutil.copytree(saved, tmp_path / "checkpoints")
    before = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    flush = checkpoint._flush

    def flipping(file) -> None:  # noqa: ANN001
        flush(file)
        with open(tmp_path / "checkpoints" / file.name, "r+b") as again:
            again.seek(1000)
            byte = again.read(1)[0]
            again.seek(1000)
            again.write(bytes([byte ^ 4]))

    monkeypatch.setattr(checkpoint, "_flush", flipping)
    with pytest.raises(RunFailure, match="does not read back"):
        checkpoint.save(tmp_path / "checkpoints", empty(9, torch.zeros(999)), keep=[8])
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == before


def test_older_ones_go_only_after_the_new_one_is_verified(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "checkpoints"
    shutil.copytree(saved, folder)
    keep_only, seen = checkpoint.keep_only, []

    def keeping(path: Path, kind: type[Checkpoint], steps: list[int]) -> None:
        seen.append([checkpoint.is_intact(folder / "step-00000009.pt"), *steps_in(folder)])
        keep_only(path, kind, steps)

    def steps_in(path: Path) -> list[int]:
        return checkpoint.list_steps(path, StepCheckpoint)

    monkeypatch.setattr(checkpoint, "keep_only", keeping)
    checkpoint.save(folder, empty(9), keep=[6])
    assert seen == [[True, 9, 8, 6]]
    assert steps_in(folder) == [9, 6]


def test_the_best_of_the_checkpoint_before_is_kept(tmp_path: Path) -> None:
    """The newest checkpoint is damaged, and what is resumed from the one before evaluates no more:
    its best weights must still be there."""
    chosen = (*GPT_SMALL, "optimizer.lr=0.01", "checkpoint.every=4", "eval.every=1")
    train(tmp_path / "a", *chosen)
    folder = tmp_path / "a/run/checkpoints"
    assert checkpoint.list_steps(folder, StepCheckpoint) == [8, 4]
    # Checkpoint 8 was saved before step 8 was scored.
    assert checkpoint.list_steps(folder, BestCheckpoint) == [8, 7, 3]
    newest = folder / "step-00000008.pt"
    newest.write_bytes(newest.read_bytes()[:-1])
    path = tmp_path / "a/run/summary.json"
    path.write_text(path.read_text().replace("finished", "running"))
    assert train(tmp_path / "a", *chosen, "eval.every=100", "train.steps=5", "resume=true") == 0
    assert checkpoint.list_steps(folder, BestCheckpoint)[-1] == 3
