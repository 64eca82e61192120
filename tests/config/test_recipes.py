"""The study notes' recipes: every value that they state, and the rates that their code realised."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from harness.cli.hydra_app import compose
from harness.config.settings import Settings, read_settings
from harness.training.schedules import Schedule

ADAMW = {
    "_target_": "torch.optim.AdamW", "lr": 1e-3, "betas": [0.9, 0.999], "weight_decay": 0.01,
    "decay_embeddings": True,
}  # fmt: skip
TRANSFORMER: dict[str, dict[str, Any]] = {
    "names": {"data": "tiny_shakespeare", "tokenizer": "p50k"},
    "optimizer": ADAMW,
    "schedule": {
        "_target_": "harness.training.schedules.Cosine",
        "warmup": 0.5, "floor": 1e-4, "end": None,
    },
    "train": {
        "steps": 375, "batch_size": 200, "seq_len": 10, "accumulate": 8, "clip": 1.0,
        "label_smoothing": 0.05, "positions": "all",
    },
}  # fmt: skip
RECIPES: dict[str, dict[str, dict[str, Any]]] = {
    "seed_mlp": {
        "names": {"data": "tiny_shakespeare", "tokenizer": "p50k"},
        "model": {
            "context": 10, "n_layer": 1, "n_embd": 200, "n_hidden": 200, "bias": False,
            "activation": "leaky_relu", "norm": None, "dropout": 0.0,
        },
        "optimizer": {
            "_target_": "torch.optim.SGD", "momentum": 0.0, "nesterov": False, "weight_decay": 0.0,
            "lr_of": {"token_embedding": 12.0, "window": 0.015, "head": 0.07},
        },
        "schedule": {"at": [1000], "factor": 0.1, "warmup": 0.0},
        "train": {
            "steps": 1400, "batch_size": 100, "seq_len": 10, "accumulate": 1, "positions": "last",
            "clip": None, "label_smoothing": 0.0,
        },
    },
    "seed_wavenet": {
        "names": {"data": "tiny_shakespeare", "tokenizer": "bert"},
        "model": {
            "n_embd": 2048, "channels_residual": 2048, "channels_gate": 2048,
            "channels_skip": 2048, "kernel_sizes": [2, 2, 2, 2], "dilations": [1, 2, 4, 8],
            "gate": "linear", "skips": "mean", "output": "one_layer", "norm": None,
        },
        "optimizer": ADAMW,
        "schedule": {
            "_target_": "harness.training.schedules.Cosine", "warmup": 187.5, "warmup_start": 0.02,
            "floor": 1e-4, "end": 12500,
        },
        "train": {
            "steps": 6250, "batch_size": 200, "seq_len": 16, "accumulate": 8, "clip": 1.0,
            "label_smoothing": 0.05, "positions": "all",
        },
    },
    "seed_transformer": TRANSFORMER | {
        "model": {
            "n_layer": 2, "n_head": 4, "n_embd": 2048, "projection": False, "norm": True,
            "attention_dropout": 0.2, "dropout": 0.0, "block_size": 10,
        },
    },
    "seed_transformer_nanogpt": TRANSFORMER | {
        "model": {
            "n_layer": 2, "n_head": 4, "n_embd": 2048, "bias": False, "tie_weights": True,
            "attention_dropout": 0.2, "dropout": 0.0, "block_size": 10,
        },
    },
}  # fmt: skip


def recipe(name: str) -> Settings:
    return read_settings(compose([f"experiment={name}"]))


def rates(settings: Settings) -> list[float]:
    """The learning rate of every optimizer step."""
    schedule = settings.build("schedule", Schedule, total=settings.train.budget[1])
    steps = settings.train.steps
    assert steps is not None
    return [settings.optimizer["lr"] * schedule(step) for step in range(steps)]


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_is_the_notes(name: str) -> None:
    settings = recipe(name).plain()
    for group, values in RECIPES[name].items():
        found = {key: settings[group][key] for key in values}
        assert found == values, group
    assert settings["names"]["model"] == name
    assert settings["init"] == "default"
    assert settings["data"]["split"] == [0.8, 0.1, 0.1]


@pytest.mark.parametrize(
    ("name", "start", "peak", "first_fall", "last"),
    [("seed_transformer", 1e-5, 1e-3, 188, 1e-7), ("seed_wavenet", 2e-5, 1e-3, 188, 5.12e-4)],
)
def test_rates_are_what_the_notes_settings_say(
    name: str, start: float, peak: float, first_fall: int, last: float
) -> None:
    """Counted in batches, 8 to a step: a warm-up over 1500, and a cosine over the rest of 3000, or
    of the 100,000 of which 50,000 were trained."""
    found = rates(recipe(name))
    assert found[0] == pytest.approx(start)
    assert max(found) == pytest.approx(peak, rel=1e-3)
    assert found.index(max(found)) == first_fall
    assert found[-1] == pytest.approx(last, rel=1e-3, abs=1e-7)


def realised(start: float, target: float, total: int, batches: int) -> list[float]:
    """The notes' own schedulers, stepped as their loop steps them: once in 8 batches, by the count
    of batches."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=target)
    warmup = torch.optim.lr_scheduler.LinearLR(optimizer, start / target, 1, total_iters=1500)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=total - 1500, eta_min=1e-7)
    found = []
    for batch in range(1, batches + 1):
        if batch % 8 == 0:
            found.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            (warmup if batch < 1500 else decay).step()
    return found


@pytest.mark.parametrize(
    ("name", "start", "total", "batches", "peak", "last"),
    [
        ("seed_transformer_realised", 1e-5, 3000, 3000, 1.334e-4, 1.2837e-4),
        ("seed_wavenet_realised", 2e-5, 100_000, 50_000, 1.422e-4, 1.4085e-4),
    ],
)
def test_realised_rates_are_those_of_the_notes_code(
    name: str, start: float, total: int, batches: int, peak: float, last: float
) -> None:
    found, theirs = rates(recipe(name)), realised(start, 1e-3, total, batches)
    assert len(found) == len(theirs)
    assert found == pytest.approx(theirs, rel=1e-6)
    assert max(found) == pytest.approx(peak, rel=5e-4)
    assert found[-1] == pytest.approx(last, rel=5e-4)


@pytest.mark.parametrize("name", ["seed_transformer", "seed_wavenet"])
def test_the_realised_recipe_differs_in_its_rates_alone(name: str) -> None:
    meant, real = (recipe(each).plain() for each in (name, f"{name}_realised"))
    for each in (meant, real):
        del each["schedule"], each["names"]["model"], each["optimizer"]["lr"]
    assert meant == real
