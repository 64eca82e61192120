"""Models that count the train split in one pass (`LanguageModel.fit`), in place of taking steps."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from harness.common.errors import UsageError
from harness.common.interrupt import Interrupt
from harness.common.rows import Row
from harness.compute.device import Compute
from harness.compute.meta import meta_model
from harness.config.model import build_model
from harness.config.settings import Settings
from harness.data.encoded import Ids
from harness.runs.restore import load_weights
from harness.training.distributed import ProcessGroup
from harness.training.guards import Guard

# Settings of how steps are taken, each with the value that leaves it out. Budget, batches, rates
# and schedule are not among them: a comparison gives all its models the same.
UNUSED: dict[str, Any] = {
    "positions": "all",
    "label_smoothing": 0.0,
    "max_norm": None,
    "ema": None,
    "patience": None,
    "on_non_finite": "stop",
    "batch_norm": "moving",
}


class Counter:
    """In the place of a Trainer: its one step reads the whole train split."""

    def __init__(
        self, settings: Settings, vocab_size: int, compute: Compute, interrupt: Interrupt
    ) -> None:
        self.model = build_model(settings, vocab_size)
        self.model.to(compute.device)
        self.evaluated = self.model
        self.guard = Guard()
        self._rows: list[Row] = []
        self._device, self._interrupt = compute.device, interrupt

    def fit(self, ids: Ids, row: Row, marker: int | None = None) -> NDArray[np.integer]:
        """Count a text, (N,), or documents that `marker` divides; returns the ids that were
        predicted. row: of this step. Raises Stopped after a signal: the model is then as it was."""
        assert self.model.fit is not None, "the model takes steps"
        before = deepcopy(self.model.state_dict())
        try:
            with self._interrupt.raising():
                text = torch.from_numpy(np.asarray(ids).astype(np.int64)).to(self._device)
                self.model.fit(*(text,) if marker is None else (text, marker))
        except BaseException:
            load_weights(self.model, before, "model")
            raise
        self._rows.append(row)
        return ids[1:]

    def rows_read(self, now: bool = False) -> Iterator[Row]:
        """The rows that are complete since the last call."""
        while self._rows:
            yield self._rows.pop(0)

    def require_finite_weights(self, step: int) -> None:
        """Counts are finite."""

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs to resume; there is no optimizer."""
        guard = asdict(self.guard)
        return {"model": self.model.state_dict(), "optimizer": {}, "scaler": {}, "guard": guard}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        load_weights(self.model, state["model"], "model")


def require_countable(settings: Settings, processes: ProcessGroup) -> None:
    """Raises UsageError for settings that mean nothing to a model that counts."""
    name, plan = settings.names.model, settings.train
    given = {f"train.{key}": (getattr(plan, key), unused) for key, unused in UNUSED.items()}
    given["init"] = (settings.init, "default")
    for key, (value, unused) in given.items():
        if value != unused:
            raise UsageError(f"{key}={value} means nothing to model={name}: it counts, in one pass")
    if processes.world_size > 1:
        raise UsageError(f"model={name} counts in one process: start it without torchrun")


def require_steps(settings: Settings) -> None:
    """Raises UsageError for a model that takes none."""
    if meta_model(settings).fit is not None:
        raise UsageError(
            f"model={settings.names.model} counts, in one pass over train: it has none of the "
            "training steps that this command is about"
        )
