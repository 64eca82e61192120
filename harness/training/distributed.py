"""Data-parallel training, started by torch's launcher:

    python -m torch.distributed.run --nproc-per-node=2 -m harness.train train.accumulate=2

Each process takes its share of a step's micro-batches, and the gradients are all-reduced: the step
equals that of one process, up to rounding. Rank 0 writes the run's folder.
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
from harness.training.parent import leave_with_parent

T = TypeVar("T")
# For a process that hangs. One that dies closes its connection, which is noticed at once.
TIMEOUT = timedelta(minutes=10)


@dataclass(frozen=True)
class ProcessGroup:
    """The processes that train one model together, and which of them this one is."""

    rank: int = 0
    world_size: int = 1

    @classmethod
    def from_environment(cls) -> ProcessGroup:
        """As torch's launcher set it; one process without a launcher."""
        return cls(int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1)))

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def check(self, settings: Settings) -> None:
        """Raises UsageError if a step's micro-batches can't be divided evenly."""
        if settings.train.accumulate % self.world_size:
            raise UsageError(
                f"train.accumulate={settings.train.accumulate} micro-batches can't be divided "
                f"evenly among {self.world_size} processes: give a multiple of {self.world_size}"
            )

    @contextmanager
    def connect(self, device: torch.device) -> Iterator[str | None]:
        """Inside, the processes can communicate. Yields a temporary run folder for all ranks but 0,
        which get None. Raises RunFailure if they can't connect."""
        if self.world_size == 1:
            yield None
            return
        leave_with_parent()
        backend = "gloo"
        if device.type == "cuda":
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
            backend = "cpu:gloo,cuda:nccl"
        try:
            distributed.init_process_group(backend, timeout=TIMEOUT)
        except (RuntimeError, ValueError) as error:
            raise RunFailure(
                f"the {self.world_size} processes can't reach each other: {error}"
            ) from error
        try:
            with tempfile.TemporaryDirectory() as folder:
                yield None if self.is_main else f"{folder}/run"
        finally:
            distributed.destroy_process_group()

    def shard(self, micro_batches: Sequence[T]) -> Sequence[T]:
        """This process's share of the micro-batches."""
        return micro_batches[self.rank :: self.world_size]

    def all_reduce(self, tensors: Sequence[torch.Tensor]) -> None:
        """Sum each tensor over all processes, in one exchange."""
        if self.world_size == 1:
            return
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        _all_reduce(flat, distributed.ReduceOp.SUM)
        parts = flat.split([tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view_as(tensor))

    def synchronize(self, interrupt: Interrupt, seconds: float) -> float:
        """Agree on whether to stop and on the time: a signal to one process stops all at the same
        step. Returns the largest of their `seconds`."""
        if self.world_size == 1:
            return seconds
        largest = torch.tensor([interrupt.received or 0, seconds], dtype=torch.float64)
        _all_reduce(largest, distributed.ReduceOp.MAX)
        interrupt.agreed = int(largest[0]) or None
        return float(largest[1])


def _all_reduce(tensor: torch.Tensor, operation: object) -> None:
    try:
        distributed.all_reduce(tensor, operation)
    except RuntimeError as error:
        raise RunFailure(
            "another process of this training is gone; go on from the last checkpoint by "
            f"resume=true ({str(error).splitlines()[0]})"
        ) from error


SINGLE_PROCESS = ProcessGroup()
