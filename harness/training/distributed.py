"""Data-parallel training, started by torch's launcher:

    python -m torch.distributed.run --nproc-per-node=2 -m harness.train train.accumulate=2

Each process takes its share of a step's micro-batches, and the gradients are all-reduced: the step
equals that of one process, up to rounding. Rank 0 writes the run's folder.
"""

from __future__ import annotations

import atexit
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import distributed

from harness.common.errors import RunFailure, UsageError
from harness.common.interrupt import Interrupt, exit_code
from harness.common.parent import leave_with_parent
from harness.config.settings import Settings
from harness.training import launcher

T = TypeVar("T")
K = TypeVar("K")
# For a process that hangs. One that dies closes its connection, which is noticed at once.
TIMEOUT = timedelta(minutes=10)
LOOK, GRACE = 1.0, 5.0  # seconds: between looks at signals; from a signal on, for the others


@dataclass(frozen=True)
class ProcessGroup:
    """The processes that train one model together, and which of them this one is."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    address: tuple[str, int] = ("", 0)
    _abandoned: list[distributed.Work] = field(default_factory=list, compare=False)

    @classmethod
    def from_environment(cls) -> ProcessGroup:
        """As torch's launcher set it; one process without a launcher. Raises UsageError if the
        launcher's variables contradict each other."""
        return cls(**launcher.read_environment(os.environ))

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
    def connect(
        self, device: torch.device, identity: Callable[[], dict[str, Any]]
    ) -> Iterator[str | None]:
        """Inside, the processes can communicate. Yields a temporary run folder for all ranks but 0,
        which get None.

        identity: of this process, where there are others (`launcher.identity`). Raises UsageError
        if they differ, RunFailure if they can't connect.
        """
        if self.world_size == 1:
            yield None
            return
        leave_with_parent()
        backend = "gloo"
        if device.type == "cuda":
            if self.local_rank >= torch.cuda.device_count():
                raise UsageError(
                    f"LOCAL_RANK={self.local_rank}: this machine has only "
                    f"{torch.cuda.device_count()} GPUs"
                )
            torch.cuda.set_device(self.local_rank)
            backend = "cpu:gloo,cuda:nccl"
        store = launcher.meet(self.rank, self.world_size, self.address, identity())
        try:
            distributed.init_process_group(
                backend, store=store, rank=self.rank, world_size=self.world_size, timeout=TIMEOUT
            )
        except (RuntimeError, ValueError) as error:
            raise RunFailure(
                f"the {self.world_size} processes can't reach each other: {error}"
            ) from error
        try:
            with tempfile.TemporaryDirectory() as folder:
                yield None if self.is_main else f"{folder}/run"
        finally:
            if not self._abandoned:  # else it would wait for the others
                distributed.destroy_process_group()

    def require_equal(self, own: dict[str, Any]) -> None:
        """Raises UsageError, in all processes, if what they give is not the same."""
        if line := launcher.difference(self.gather(own)):
            raise UsageError(line)

    def gather(self, own: dict[K, Any]) -> list[dict[K, Any]]:
        """What each process gives, by its rank."""
        if self.world_size == 1:
            return [own]
        every: list[dict[K, Any]] = [{} for _ in range(self.world_size)]
        try:
            distributed.all_gather_object(every, own)
        except RuntimeError as error:
            raise _gone(error) from error
        return every

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

    def agree(self, interrupt: Interrupt) -> int | None:
        """The signal that counts: one that any process received stops all at the same place. Where
        the others don't come, this process's own signal counts after a few seconds."""
        if self.world_size == 1:
            return interrupt.received
        largest = torch.tensor([interrupt.received or 0])
        work = _exchange(largest, distributed.ReduceOp.MAX)
        told = 0
        while not _is_done(work, LOOK):
            told += interrupt.received is not None
            if told * LOOK >= GRACE:
                self._abandoned.append(work)
                # Else the end of the process would wait for the others.
                atexit.register(os._exit, exit_code(interrupt.received or 0))
                return interrupt.received
        return int(largest[0]) or None

    def smallest(self, seconds: float) -> float:
        """The least that a step took in any process: the others waited, for rank 0 to save or for
        one that was stopped."""
        if self.world_size == 1:
            return seconds
        least = torch.tensor([seconds], dtype=torch.float64)
        _all_reduce(least, distributed.ReduceOp.MIN)
        return float(least[0])


def _all_reduce(tensor: torch.Tensor, operation: object) -> None:
    try:
        distributed.all_reduce(tensor, operation)
    except RuntimeError as error:
        raise _gone(error) from error


def _exchange(tensor: torch.Tensor, operation: object) -> distributed.Work:
    try:
        return distributed.all_reduce(tensor, operation, async_op=True)
    except RuntimeError as error:
        raise _gone(error) from error


def _is_done(work: distributed.Work, seconds: float) -> bool:
    """Whether an exchange is done within so many seconds. Signals are looked at after them."""
    try:
        return bool(work.wait(timedelta(seconds=seconds)))
    except RuntimeError as error:
        if work.is_completed():
            raise _gone(error) from error
        return False


def _gone(error: Exception) -> RunFailure:
    return RunFailure(
        "another process of this training is gone; go on from the last checkpoint by "
        f"resume=true ({str(error).splitlines()[0]})"
    )


SINGLE_PROCESS = ProcessGroup()
