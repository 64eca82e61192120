"""The moving average of the weights: evaluated, resumed and read back."""

from __future__ import annotations

from pathlib import Path

import torch

from tests.small_runs import GPT_SMALL, trace, train


def test_the_moving_average_is_what_is_evaluated(tmp_path: Path) -> None:
    chosen = (*GPT_SMALL, "train.ema=0.5", "checkpoint.every=1", "train.steps=2", "eval.every=1")
    train(tmp_path / "a", *chosen)
    folder = tmp_path / "a/run/checkpoints"
    steps = [
        torch.load(folder / f"step-{step:08d}.pt", weights_only=True)["model"] for step in (1, 2)
    ]
    best = torch.load(folder / "best-00000002.pt", weights_only=True)["model"]
    # The first update starts the average; the second moves it half of the way.
    for name, value in best.items():
        torch.testing.assert_close(value, (steps[0][name] + steps[1][name]) / 2)


def test_the_moving_average_survives_a_resume(tmp_path: Path) -> None:
    chosen = (*GPT_SMALL, "train.ema=0.9", "checkpoint.every=4")
    train(tmp_path / "a", *chosen)
    before = trace(tmp_path / "a")
    (tmp_path / "a/run/checkpoints/step-00000008.pt").unlink()
    path = tmp_path / "a/run/summary.json"
    path.write_text(path.read_text().replace("finished", "running"))
    train(tmp_path / "a", *chosen, "resume=true")
    assert trace(tmp_path / "a") == before


def test_a_run_is_read_back_with_its_moving_average(tmp_path: Path) -> None:
    from harness.runs.load import load_run

    chosen = (*GPT_SMALL, "train.ema=0.99", "optimizer.lr=0.01")
    train(tmp_path / "a", *chosen, "data.split=[0.9,0,0.1]")
    run = load_run(tmp_path / "a/run", "best", "cpu", [])
    saved = torch.load(tmp_path / "a/run/checkpoints/step-00000008.pt", weights_only=True)
    for name, value in run.model.state_dict().items():
        assert torch.equal(value, saved["average"]["module." + name])
