"""Six steps on random tokens, and a checkpoint in between."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch

from harness.cli.hydra_app import compose
from harness.compute.device import Compute
from harness.config.settings import Settings, read_settings
from harness.diagnostics.comparison import differing_keys
from harness.runs import checkpoint
from harness.runs.checkpoint import StepCheckpoint
from harness.training.schedules import Schedule
from harness.training.trainer import Trainer
from tests.small_runs import GPT_SMALL

VOCAB, STEPS = 11, 6


@cache
def small(*overrides: str) -> Settings:
    """A GPT, if they choose no other model."""
    model = () if any(word.startswith("model=") for word in overrides) else GPT_SMALL
    return read_settings(
        compose([*model, "train.seq_len=8", "train.batch_size=2", "device=cpu", *overrides])
    ).replace(trust=["tests"])


class Training:
    """Steps on random tokens."""

    def __init__(self, settings: Settings) -> None:
        compute = Compute.choose("cpu", settings.precision)
        self.trainer = Trainer(settings, VOCAB, compute)
        self._schedule = settings.build("schedule", Schedule, total=STEPS)

    def train(self, steps: range) -> Training:
        for step in steps:
            generator = torch.Generator().manual_seed(step)
            ids_BT = torch.randint(VOCAB, (4, 9), generator=generator)
            row: dict[str, Any] = {"step": step}
            self.trainer.step((ids_BT[:, :-1], ids_BT[:, 1:]), self._schedule(step), row)
        return self


def save(folder: Path, training: Training, step: int) -> None:
    """A checkpoint, in a file."""
    folder.mkdir(exist_ok=True)
    origin: dict[str, Any] = {"tokenizer": "", "corpus": "", "settings": {}, "progress": {}}
    saved = StepCheckpoint(step=step, **training.trainer.state_dict(), **origin)
    checkpoint.save(folder, saved, keep=[])


def resume(folder: Path, settings: Settings) -> Training:
    saved = checkpoint.load(folder, StepCheckpoint)
    training = Training(settings)
    with checkpoint.restoring(folder):
        training.trainer.load_state_dict(vars(saved))
    return training


def differing(folder: Path, settings: Settings, at: int = 3) -> list[str]:
    """What differs between six steps, and six steps with a checkpoint in between."""
    straight = Training(settings).train(range(at))
    save(folder, straight, at)
    resumed = resume(folder, settings)
    same = differing_keys(straight.trainer.state_dict(), resumed.trainer.state_dict())
    assert [key for key in same if not key.endswith(".lr")] == []  # each step sets it
    straight.train(range(at, STEPS))
    resumed.train(range(at, STEPS))
    assert straight.trainer.model.state_dict().keys() == resumed.trainer.model.state_dict().keys()
    return differing_keys(straight.trainer.state_dict(), resumed.trainer.state_dict())
