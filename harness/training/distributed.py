"""Several processes that train one model, started by torch's own launcher:

    python -m torch.distributed.run --nproc-per-node=2 -m harness.train train.accumulate=2

Each takes its share of a step's micro-batches, and the gradients are all-reduced: the step is that
of one process, up to the rounding of sums. The first process writes the run's folder; what the
others would write goes nowhere.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
from torch import distributed

from harness.common.errors import RunFailure, UsageError
from harness.common.interrupt import Interrupt
from harness.config.settings import Settings

T = TypeVar("T")
# A process that dies is noticed at once, by its closed connection; this is for one that hangs.
PATIENCE = timedelta(minutes=10)


@dataclass(frozen=True)
class World:
    """This process's number among all that train together, and how many they are."""

    rank: int = 0
    size: int = 1

    @classmethod
    def of_environment(cls) -> World:
        """As the launcher says; without one, a process is alone."""
        return cls(int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1)))

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def require_alone(self) -> None:
        """Raises UsageError for a sweep in a process that is not."""
        if self.size > 1:
            raise UsageError(f"{self.size} processes can't share a sweep: start it by one of them")

    def check(self, settings: Settings) -> None:
        """Raises UsageError if a step's micro-batches can't be shared out evenly."""
        if settings.train.accumulate % self.size:
            raise UsageError(
                f"train.accumulate={settings.train.accumulate} micro-batches can't be shared "
                f"evenly by {self.size} processes: give a multiple of {self.size}"
            )

    @contextmanager
    def joined(self, device: torch.device) -> Iterator[str | None]:
        """Inside, the processes can reach each other. Gives all but the first a name for a folder
        that is gone in the end: what they write, the first writes already. Raises RunFailure if
        they can't meet."""
        if self.size == 1:
            yield None
            return

        backend = "gloo"
        if device.type == "cuda":
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
            backend = "cpu:gloo,cuda:nccl"
        try:
            distributed.init_process_group(backend, timeout=PATIENCE)
        except (RuntimeError, ValueError) as error:
            raise RunFailure(
                f"the {self.size} processes can't reach each other: {error}"
            ) from error
        try:
            with tempfile.TemporaryDirectory() as folder:
                yield None if self.is_first else f"{folder}/run"
        finally:
            distributed.destroy_process_group()

    def share(self, micro_batches: Sequence[T]) -> Sequence[T]:
        """This process's: all processes' together are all, each once."""
        return micro_batches[self.rank :: self.size]

    def all_reduce(self, tensors: Sequence[torch.Tensor]) -> None:
        """Give each tensor the sum of all processes' own, in one exchange."""
        if self.size == 1:
            return

        flat = torch.cat([tensor.flatten() for tensor in tensors])
        self._exchange(flat, distributed.ReduceOp.SUM)
        parts = flat.split([tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view_as(tensor))

    def keep_together(self, interrupt: Interrupt, seconds: float) -> float:
        """Let all stop at the same step if one is told to, and go by one clock, the slowest's;
        returns its time."""
        if self.size == 1:
            return seconds

        largest = torch.tensor([interrupt.received or 0, seconds], dtype=torch.float64)
        self._exchange(largest, distributed.ReduceOp.MAX)
        interrupt.agreed = int(largest[0]) or None
        return float(largest[1])

    def _exchange(self, tensor: torch.Tensor, operation: object) -> None:

        try:
            distributed.all_reduce(tensor, operation)
        except RuntimeError as error:
            raise RunFailure(
                "another process of this training is gone; go on from the last checkpoint by "
                f"resume=true ({str(error).splitlines()[0]})"
            ) from error


ALONE = World()
