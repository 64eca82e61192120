"""Watching a training changes nothing in it, and leaves nothing behind."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from harness.observe import observer
from harness.observe.hooks import Layer, hook_forward
from tests.observe.watching import EVERY_STEP, names
from tests.small_runs import GPT_SMALL, cut_off, rows, train
from tests.zoo_models import maker, random_ids

CASES: dict[str, tuple[str, ...]] = {
    "dropout": (*GPT_SMALL, "model.dropout=0.3", "train.accumulate=2", "train.ema=0.9"),
    "bf16": (*GPT_SMALL, "precision=bf16", "optimizer=muon"),
    "batch_norm": ("model=wavenet", "model.norm=batch_norm", "model.n_stack=1"),
    "frozen": (
        "model=mlp",
        "model.norm=batch_norm",
        "model.bias=false",
        "train.batch_norm=frozen",
    ),
    "megabyte": ("model=megabyte", "model.dropout=0.1"),
    "perceiver": ("model=perceiver_ar", "train.seq_len=32", "model.context_dropout=0.3"),
    "hf": ("model=hf", "model.config.num_hidden_layers=2"),
}
SEEN = ("activations/", "attention/", "gates/", "gradients/", "weights/", "updates/", "dead/")


def numbers(folder: Path) -> list[dict[str, Any]]:
    """What a run would have logged unwatched, but for the seconds."""
    return [
        {
            name: value
            for name, value in row.items()
            if not name.startswith((*SEEN, "val/loss_by_")) and name != "seconds"
        }
        for row in rows(folder)
    ]


def weights(folder: Path) -> dict[str, Tensor]:
    path = folder / "run/checkpoints/step-00000005.pt"
    return torch.load(path, weights_only=True)["model"]


@pytest.mark.parametrize(
    "case",
    [pytest.param(c, marks=[pytest.mark.long] if n % 4 else []) for n, c in enumerate(CASES)],
)
def test_a_watched_training_is_the_same_bit_for_bit(tmp_path: Path, case: str) -> None:
    few = (*CASES[case], "train.steps=5")
    train(tmp_path / "off", *few, "observe=off")
    train(tmp_path / "full", *few, *EVERY_STEP)
    assert numbers(tmp_path / "full") == rows_without_seconds(tmp_path / "off")
    off, full = weights(tmp_path / "off"), weights(tmp_path / "full")
    assert all(torch.equal(off[name], full[name]) for name in off)


def rows_without_seconds(folder: Path) -> list[dict[str, Any]]:
    """All there is, so that a row of an unwatched run is seen to have nothing more."""
    return [{k: value for k, value in row.items() if k != "seconds"} for row in rows(folder)]


@contextlib.contextmanager
def careless(model: nn.Module) -> Iterator[None]:
    yield


def test_a_look_that_left_something_behind_would_be_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative control of the test above."""
    train(tmp_path / "off", *CASES["batch_norm"], "observe=off")
    monkeypatch.setattr(observer, "training_without_dropout", careless)
    train(tmp_path / "full", *CASES["batch_norm"], *EVERY_STEP)
    assert numbers(tmp_path / "full") != numbers(tmp_path / "off")


def test_a_watched_training_resumes_exactly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = (*CASES["dropout"], "observe=full", "observe.every=3")
    train(tmp_path / "whole", *watched)
    cut_off(tmp_path / "cut", 4, monkeypatch, *watched)
    train(tmp_path / "cut", *watched, "resume=true")
    assert rows_without_seconds(tmp_path / "cut") == rows_without_seconds(tmp_path / "whole")


def test_only_observed_steps_have_more_in_their_rows(tmp_path: Path) -> None:
    train(tmp_path / "a", *GPT_SMALL, "observe.every=3", "eval.every=5")
    found = {
        row["step"]: any(name.startswith(SEEN) for name in row) for row in rows(tmp_path / "a")
    }
    assert found == {step: step in (0, 3, 6) for step in range(9)}


def test_every_evaluation_of_a_full_watch_has_dead_units_and_losses_by_position(
    tmp_path: Path,
) -> None:
    train(tmp_path / "a", "model=megabyte", "observe=full", "observe.every=100")
    found = [row for row in rows(tmp_path / "a") if "val/nats_per_token" in row]
    assert [row["step"] for row in found] == [0, 4, 8]
    for row in found:
        assert names(row, "dead/", "/share") == [
            *(f"global_blocks.{n}.feed_forward.relu" for n in range(2)),
            *(f"local_blocks.{n}.feed_forward.relu" for n in range(2)),
        ]
        assert names(row, "val/loss_by_position/") == ["0", "1", "2-3", "4-7", "8-15"]
        assert names(row, "val/loss_by_patch_position/") == ["0", "1", "2", "3"]


def test_after_an_error_nothing_is_left_on_the_model() -> None:
    model = maker("gpt", "model.n_layer=1")()
    ids_BT = random_ids(1, 9)
    before = model(ids_BT)

    def fail(layer: Layer, output: Tensor) -> None:
        raise RuntimeError(layer.name)

    with pytest.raises(RuntimeError, match="token_embedding"), hook_forward(model, fail):
        model(ids_BT, return_features=True)
    assert "features" not in vars(model)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert not torch.overrides._get_current_function_mode_stack()
    assert torch.equal(model(ids_BT), before)


@pytest.mark.long
def test_a_compiled_training_can_be_watched(tmp_path: Path) -> None:
    train(tmp_path / "off", *GPT_SMALL, "compile=true", "observe=off")
    train(tmp_path / "full", *GPT_SMALL, "compile=true", *EVERY_STEP)
    assert numbers(tmp_path / "full") == rows_without_seconds(tmp_path / "off")
    assert "activations/blocks.0/mean" in rows(tmp_path / "full")[3]
