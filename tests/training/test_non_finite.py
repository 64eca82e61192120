"""NaN, infinities and jumps of the loss: stopped at, skipped or reported."""

from __future__ import annotations

import math
import random
from pathlib import Path

import pytest
import torch

from harness.diagnostics import comparison
from harness.training import loop, trainer
from harness.training.guards import (
    MAX_SKIPS_IN_A_ROW,
    SPIKE_INTERVAL,
    SPIKE_WINDOW,
    WARNING_INTERVAL,
    Guard,
    NonFiniteError,
)
from tests.small_runs import GPT_SMALL, rows, summary, train
from tests.training.processes import BATCH_NORM, steps_saved
from tests.zoo_models import TRAINED, choice, of_each_kind


def poisoned(monkeypatch: pytest.MonkeyPatch, *steps: int) -> None:
    """One element of one gradient becomes NaN at these steps (micro-batches are not counted)."""
    add, draw, now = trainer.add_gradients, loop.draw_batch, [0]

    def drawing(ids, seed, step, *rest):  # noqa: ANN001, ANN002, ANN202
        now[0] = step
        return draw(ids, seed, step, *rest)

    def adding(model, *rest):  # noqa: ANN001, ANN002, ANN202
        nats = add(model, *rest)
        if now[0] in steps:
            weight = next(weight for weight in model.parameters() if weight.grad is not None)
            weight.grad.view(-1)[-1] = math.nan
        return nats

    monkeypatch.setattr(loop, "draw_batch", drawing)
    monkeypatch.setattr(trainer, "add_gradients", adding)


def states(folder: Path) -> list[dict]:
    """What the last two checkpoints hold, the older first."""
    return [
        torch.load(folder / f"run/checkpoints/step-{step:08d}.pt", weights_only=True)
        for step in reversed(steps_saved(folder))
    ]


@pytest.mark.parametrize("name", of_each_kind(TRAINED))
def test_a_step_that_is_skipped_leaves_everything_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Weights, buffers and the optimizer's state, bit for bit, from just before to just after."""
    short = ("train.steps=3", "checkpoint.every=1", "eval.every=100", "train.on_non_finite=skip")
    poisoned(monkeypatch, 2)
    assert train(tmp_path / "a", *choice(name), "train.seq_len=32", *short) == 0
    before, after = states(tmp_path / "a")
    assert (before["step"], after["step"]) == (2, 3)
    for part in ("model", "optimizer"):
        assert comparison.differing_keys({part: before[part]}, {part: after[part]}) in (
            [],
            # the schedule goes on
            [f"optimizer.param_groups.{n}.lr" for n in range(9)][: len(groups(before))],
        )
    assert rows(tmp_path / "a")[2]["grad_norm"] is None
    assert summary(tmp_path / "a")["skipped_steps"] == 1


def groups(state: dict) -> list:
    return state["optimizer"].get("param_groups", [])


def test_a_skipped_step_leaves_batch_norms_averages_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = ("train.steps=3", "checkpoint.every=1", "eval.every=100", "train.ema=0.5")
    poisoned(monkeypatch, 2)
    train(tmp_path / "a", *BATCH_NORM, *short, "train.on_non_finite=skip")
    before, after = states(tmp_path / "a")
    assert any("running_mean" in name for name in before["model"])
    for part in ("model", "average"):
        assert list(comparison.differing_keys(before[part], after[part])) == []


def test_without_the_guard_one_element_ruins_every_weight(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through clipping by the norm of all gradients: what the guard is for. What such a training
    would save is refused."""
    poisoned(monkeypatch, 4)
    monkeypatch.setattr(Guard, "allows_update", lambda *arguments, **named: True)
    assert train(tmp_path / "a", *GPT_SMALL) == 1
    found = summary(tmp_path / "a")
    assert found["status"] == "non_finite"
    assert "non-finite weights in token_embedding.weight" in found["error"]
    assert "and others" in found["error"]
    assert steps_saved(tmp_path / "a") == [3]


def test_it_stops_at_one_element_and_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poisoned(monkeypatch, 4)
    assert train(tmp_path / "a", *GPT_SMALL, "train.clip=null") == 1
    found = summary(tmp_path / "a")
    assert found["status"] == "non_finite"
    assert "step 4: loss 3." in found["error"]
    assert "non-finite gradients of token_embedding.weight;" in found["error"]
    assert "train.on_non_finite=skip" in found["error"]
    assert steps_saved(tmp_path / "a") == [3]
    assert train(tmp_path / "a", *GPT_SMALL, "train.clip=null", "train.on_non_finite=skip",
                 "resume=true") == 0  # fmt: skip


def test_skipping_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = MAX_SKIPS_IN_A_ROW + 10
    poisoned(monkeypatch, 2, *range(5, steps))
    chosen = ("model=bigram", f"train.steps={steps}", "train.on_non_finite=skip", "eval.every=100")
    assert train(tmp_path / "a", *chosen) == 1
    found = summary(tmp_path / "a")
    assert f"step {5 + MAX_SKIPS_IN_A_ROW}:" in found["error"]
    assert found["skipped_steps"] == 1 + MAX_SKIPS_IN_A_ROW


def test_a_training_that_really_diverges_keeps_its_last_good_checkpoint(tmp_path: Path) -> None:
    """The rate rises to 1e38 at step 5: after that update the loss is no number."""
    wild = ("schedule=step", "schedule.at=[5]", "schedule.factor=1e41", "optimizer=sgd")
    chosen = (*GPT_SMALL, *wild, "optimizer.lr=0.001", "checkpoint.every=1")
    assert train(tmp_path / "a", *chosen) == 1
    found = summary(tmp_path / "a")
    assert found["status"] == "non_finite"
    assert "step 6" in found["error"]
    assert steps_saved(tmp_path / "a") == [6, 5]
    for state in states(tmp_path / "a"):
        assert all(tensor.isfinite().all() for tensor in state["model"].values())
    assert max(tensor.abs().max() for tensor in states(tmp_path / "a")[0]["model"].values()) < 2


def test_a_loss_that_jumps_is_reported_once_in_a_while(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A rate that is far too high from step 80 on."""
    wild = ("schedule=step", "schedule.at=[80]", "schedule.factor=1e5", "optimizer.lr=0.01")
    chosen = ("model=bigram", *wild, "train.steps=100", "eval.every=100", "train.clip=null")
    assert train(tmp_path / "a", *chosen) == 0
    assert summary(tmp_path / "a")["loss_spikes"] > 3
    assert caplog.text.count("loss spike,") == 1
    assert "step 81: loss spike," in caplog.text


def look(guard: Guard, step: int, loss: float) -> None:
    row = {"step": step, "train/loss": loss, "grad_norm": 1.0}
    assert guard.allows_update(row, torch.nn.Identity(), skip=False, scaled=False)


def test_what_counts_as_a_jump() -> None:
    """Noise and slow or fast descent don't; eight robust standard deviations do."""
    generator, calm = random.Random(0), Guard()
    for step in range(5000):
        look(calm, step, 3 + 5 * math.exp(-step / 20) + generator.gauss(0, 0.1))
    assert calm.spikes == 0
    calm.recent = [1.0, 2.0] * (SPIKE_WINDOW // 2)  # median 1.5, deviations of 0.5
    start = 5000 // SPIKE_INTERVAL * SPIKE_INTERVAL + SPIKE_INTERVAL
    look(calm, start, 1.0)
    assert calm.limit == pytest.approx(1.0 + 8 * 1.4826 * 0.0 + 8 * 0.01, abs=9)
    assert Guard(**vars(calm)) == calm


def test_jumps_are_counted_and_said_once_in_a_hundred_steps(
    caplog: pytest.LogCaptureFixture,
) -> None:
    guard = Guard()
    for step in range(4 * WARNING_INTERVAL):
        look(
            guard, step, 50.0 if step > SPIKE_WINDOW and step % 10 == 0 else 3.0 + 0.01 * (step % 3)
        )
    jumps = [step for step in range(4 * WARNING_INTERVAL) if step > SPIKE_WINDOW and step % 10 == 0]
    assert guard.spikes == len(jumps)
    assert caplog.text.count("loss spike, 50.000") == math.ceil(
        (jumps[-1] - jumps[0] + 1) / WARNING_INTERVAL
    )


def test_overflow_under_fp16_is_the_scalers_to_mend_but_not_for_ever() -> None:
    row = {"step": 7, "train/loss": 3.0, "grad_norm": math.inf}
    guard = Guard()
    for _ in range(MAX_SKIPS_IN_A_ROW):
        assert not guard.allows_update(row, torch.nn.Identity(), skip=False, scaled=True)
    with pytest.raises(NonFiniteError, match="as in the 20 steps before"):
        guard.allows_update(row, torch.nn.Identity(), skip=False, scaled=True)
    with pytest.raises(NonFiniteError, match="loss nan"):
        Guard().allows_update(
            row | {"train/loss": math.nan}, torch.nn.Identity(), skip=False, scaled=True
        )
