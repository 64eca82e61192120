"""Losses that are read from the device some steps later, as on a GPU: the same training."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from harness.compute.device import Compute
from harness.diagnostics.bench import timed_loop
from harness.training import loop, trainer
from harness.training.readings import TOGETHER
from harness.training.run import load_dataset
from harness.training.trainer import Trainer
from tests.small_runs import GPT_SMALL, cut_off, rows, settings, summary, trace, train
from tests.training.processes import steps_saved
from tests.training.test_non_finite import poisoned, states
from tests.zoo_models import TRAINED, choice, of_each_kind

CPU = Compute(torch.device("cpu"), "fp32")
# What a device has to be asked for: a number, or how large a tensor is.
ASKS = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "repeat_interleave.Tensor")


class Asked(TorchDispatchMode):
    """Counts the operations for which the processor would wait for a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.times: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name = str(func)
        selects = name.startswith("aten.index.Tensor") and any(
            isinstance(index, Tensor) and index.dtype == torch.bool for index in args[1]
        )
        self.times[name] += selects or any(part in name for part in ASKS)
        return func(*args, **(kwargs or {}))


def asked(folder: Path, *overrides: str, together: int = 16) -> int:
    """How often a training step asks. A list of a tensor's numbers is made without an operation."""
    chosen = settings(folder, *overrides)
    made = Trainer(chosen, 256, CPU, read_together=together)
    ids = torch.randint(256, (2, chosen.train.seq_len + 1))
    batch = ids[:, :-1].contiguous(), ids[:, 1:].contiguous()
    made.step(batch, 1.0, {"step": 0})
    lists, own = [0], Tensor.tolist

    def listed(tensor: Tensor) -> Any:
        lists[0] += 1
        return own(tensor)

    with pytest.MonkeyPatch.context() as patch, Asked() as mode:
        patch.setattr(Tensor, "tolist", listed)
        made.step(batch, 1.0, {"step": 1})
    return mode.times.total() + lists[0]


# Experts are given as many tokens as chose them; transformers looks at its mask.
ASKING = {"gpt_moe": 12, "hf": 1}


@pytest.mark.parametrize("name", of_each_kind(TRAINED))
def test_a_step_asks_nothing_of_the_device(tmp_path: Path, name: str) -> None:
    assert asked(tmp_path, *choice(name), "train.seq_len=32") <= ASKING.get(name, 0)


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "lion", "muon", "rmsprop", "sgd"])
def test_nor_does_any_optimizer(tmp_path: Path, optimizer: str) -> None:
    others = ("train.max_norm=1.0", "train.label_smoothing=0.1", "train.clip=0.5", "train.ema=0.9")
    assert asked(tmp_path, *GPT_SMALL, f"optimizer={optimizer}", *others) == 0


def test_a_step_that_may_be_skipped_is_asked_about(tmp_path: Path) -> None:
    """Once, as is each where one at a time is read: the count sees it."""
    assert asked(tmp_path, *GPT_SMALL, "train.on_non_finite=skip") == 1
    assert asked(tmp_path, *GPT_SMALL, together=1) == 1


CHOSEN = (*GPT_SMALL, "train.steps=11", "eval.every=4", "checkpoint.every=3", "train.clip=0.5")


@pytest.mark.parametrize("together", [2, 5, 16])
def test_the_training_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, together: int
) -> None:
    """Every row, in order; weights, moments and the guard in every checkpoint; the summary."""
    assert train(tmp_path / "a", *CHOSEN) == 0
    monkeypatch.setitem(TOGETHER, "cpu", together)
    assert train(tmp_path / "b", *CHOSEN) == 0
    assert [row["step"] for row in rows(tmp_path / "a")] == list(range(12))
    assert trace(tmp_path / "a") == trace(tmp_path / "b")
    for ours, theirs in zip(states(tmp_path / "a"), states(tmp_path / "b"), strict=True):
        assert ours["guard"] == theirs["guard"]
        assert all(map(torch.equal, ours["model"].values(), theirs["model"].values()))
    assert summary(tmp_path / "a")["test"] == summary(tmp_path / "b")["test"]


def test_rows_wait_until_they_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first at once, the others together, but none is missing where something is saved."""
    monkeypatch.setitem(TOGETHER, "cpu", 5)
    written: dict[int, int] = {}
    draw = loop.draw_batch

    def drawing(ids: Any, seed: int, step: int, *rest: Any) -> Any:
        file = tmp_path / "a/run/metrics.jsonl"
        written[step] = len(file.read_text().splitlines()) if file.exists() else 0
        return draw(ids, seed, step, *rest)

    monkeypatch.setattr(loop, "draw_batch", drawing)
    chosen = (*CHOSEN, "eval.every=100", "checkpoint.every=8", "train.steps=16")
    assert train(tmp_path / "a", *chosen) == 0
    assert [written[step] for step in range(10)] == [0, 1, 1, 1, 1, 1, 6, 6, 8, 8]


def test_a_signal_loses_no_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert train(tmp_path / "a", *CHOSEN) == 0
    monkeypatch.setitem(TOGETHER, "cpu", 16)
    assert cut_off(tmp_path / "b", 7, monkeypatch, *CHOSEN) != 0
    assert [row["step"] for row in rows(tmp_path / "b")] == list(range(len(rows(tmp_path / "b"))))
    assert steps_saved(tmp_path / "b")[0] == len(rows(tmp_path / "b"))
    assert train(tmp_path / "b", *CHOSEN, "resume=true") == 0
    assert trace(tmp_path / "a") == trace(tmp_path / "b")


def test_a_loss_read_late_still_stops_before_anything_is_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TOGETHER, "cpu", 16)
    poisoned(monkeypatch, 4)
    assert train(tmp_path / "a", *CHOSEN) == 1
    found = summary(tmp_path / "a")
    assert found["status"] == "non_finite"
    assert "step 4: loss 3." in found["error"]
    assert "non-finite gradients; nothing since was saved" in found["error"]
    assert steps_saved(tmp_path / "a") == [3]
    for state in states(tmp_path / "a"):
        assert all(tensor.isfinite().all() for tensor in state["model"].values())


def test_a_signal_after_a_loss_that_is_no_number_saves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Finite weights after it are not kept either: the loss alone was NaN."""
    monkeypatch.setitem(TOGETHER, "cpu", 16)
    add = trainer.add_gradients
    calls = [0]

    def adding(*given: Any) -> Tensor:
        calls[0] += 1
        return add(*given) * (torch.nan if calls[0] == 6 else 1)

    monkeypatch.setattr(trainer, "add_gradients", adding)
    chosen = (*CHOSEN, "checkpoint.every=4", "eval.every=100")
    cut_off(tmp_path / "a", 7, monkeypatch, *chosen)
    found = summary(tmp_path / "a")
    assert found["status"] == "non_finite"
    assert "step 5: loss nan" in found["error"]
    assert "non-finite loss; nothing since was saved" in found["error"]
    assert steps_saved(tmp_path / "a") == [4]


def test_what_times_steps_has_each_as_it_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`harness.bench` and the judge's plan: not a burst of rows for one long step."""
    monkeypatch.setitem(TOGETHER, "cpu", 16)
    chosen, order = settings(tmp_path / "a", *GPT_SMALL), list[str]()
    step = Trainer.step
    monkeypatch.setattr(Trainer, "step", lambda *given: order.append("step") or step(*given))
    timed_loop(chosen, load_dataset(chosen), CPU, lambda: order.append("between"), steps=20)
    assert order == ["step", "between"] * 20


def test_a_score_is_logged_with_the_step_behind_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TOGETHER, "cpu", 16)
    file, seen = tmp_path / "a/run/metrics.jsonl", list[bool]()
    draw = loop.draw_batch

    def drawing(ids: Any, seed: int, step: int, *rest: Any) -> Any:
        if step == 5:
            seen.append("val/nats_per_token" in file.read_text().splitlines()[4])
        return draw(ids, seed, step, *rest)

    monkeypatch.setattr(loop, "draw_batch", drawing)
    assert train(tmp_path / "a", *CHOSEN, "checkpoint.every=100") == 0
    assert seen == [True]
