"""What one training works with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

from torch import Tensor

from harness.common.interrupt import Interrupt
from harness.common.rows import Row
from harness.compute.device import Compute
from harness.config.settings import Settings
from harness.data.alone import LoneText
from harness.data.dataset import Dataset
from harness.loggers.base import Logger
from harness.runs.folder import RunFolder
from harness.runs.summary import Summary
from harness.training.distributed import SINGLE_PROCESS, ProcessGroup

OnBatch = Callable[[int, tuple[Tensor, Tensor]], None]
"""Called with each step and its batch."""


def ignore(*arguments: Any) -> None:
    """The default callback."""


@dataclass(frozen=True)
class RunContext:
    """summary: filled in as the training goes. report: called with each line for the log; on_row:
    with each row; on_score: with the share of a split that is scored. processes: those that train
    this model together. clock: seconds; two readings tell what a step took. also: other texts that
    are scored at each evaluation. beside: how many other trainings may share the machine.
    read_together: the steps whose losses are read at once; None: by the kind of device."""

    settings: Settings
    dataset: Dataset
    compute: Compute
    folder: RunFolder
    summary: Summary
    loggers: Sequence[Logger] = ()
    interrupt: Interrupt = field(default_factory=Interrupt)
    processes: ProcessGroup = SINGLE_PROCESS
    clock: Callable[[], float] = perf_counter
    report: Callable[[str], None] = ignore
    on_row: Callable[[Row], None] = ignore
    on_score: Callable[[float], None] = ignore
    on_batch: OnBatch = ignore
    also: Mapping[str, LoneText] = field(default_factory=dict)
    beside: int = 0
    read_together: int | None = None
