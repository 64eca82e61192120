"""The rows of a stream, shared out to lanes, and lanes to processes.

Row r of a training, counted from 0 through all steps, is the next one of lane r mod L, whoever
reads it: so the rows are the same for any number of processes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.common.errors import RunFailure, UsageError
from harness.data.lane import COUNTS, Lane, Position, Rows
from harness.data.read_ahead import ReadAhead
from harness.data.shards import Shards
from harness.runs import checkpoint
from harness.runs.checkpoint import from_checkpoint
from harness.runs.summary import Streamed
from harness.training.context import RunContext


class StreamedRows:
    """Hands out rows. Each process reads some of the lanes, and all get all rows.

    saved: its `state` at the step that is gone on from; None: it begins. Raises RunFailure for one
    that does not fit.
    """

    def __init__(self, context: RunContext, saved: dict[str, Any] | None) -> None:
        shards, plan = context.dataset.shards, context.settings.train
        assert shards is not None, "the corpus is a stream"
        self._shards, self._context = shards, context
        self._length, self._stride = plan.seq_len + 1, len(range(plan.seq_len)[plan.trained])
        held_out = context.dataset.held_out()
        lanes = [
            Lane(
                shards, context.dataset.tokenizer, context.settings.seed, number, shards.lanes,
                shards.buffer, self._length, self._stride, held_out,
            )
            for number in range(shards.lanes)
        ]  # fmt: skip
        # Where the block of each lane begins that rows are taken from, and how many were taken.
        self._starts, self._rows = [vars(lane.start) for lane in lanes], 0
        if saved is not None:
            with checkpoint.restoring(context.folder.checkpoints):
                self._starts = [vars(from_checkpoint(Position, each)) for each in saved["starts"]]
                self._rows = int(saved["rows"])
                if len(self._starts) != len(lanes) or self._rows < 0:
                    raise ValueError(
                        f"progress.stream has {self._rows} rows and {len(self._starts)} lanes"
                    )
        taken = [-(-(self._rows - lane.number) // shards.lanes) for lane in lanes]
        first = [max(0, each - 1) // shards.buffer for each in taken]
        self._numbers = [each - 1 for each in first]  # the first is still to be read
        self._blocks: dict[int, Rows] = {}
        self._readers = {
            lane.number: ReadAhead(lane, Position(**self._starts[lane.number]), first[lane.number])
            for lane in context.processes.shard(lanes)
        }
        self._passes = passes(self._starts, shards)

    def batch(self, rows: int) -> tuple[Tensor, Tensor]:
        """The next rows: inputs and targets, int64 (rows, T) each. Raises UsageError and RunFailure
        as `Lane.blocks`."""
        own, begun = np.zeros((rows, self._length), np.int32), dict[int, Any]()
        for row in range(rows):
            index, lane = divmod(self._rows + row, self._shards.lanes)
            block, place = divmod(index, self._shards.buffer)
            while self._numbers[lane] < block:
                self._numbers[lane] += 1
                begun[lane] = self._read(lane)
            if lane in self._blocks:
                own[row] = self._blocks[lane][place]
        self._rows += rows
        if begun:
            for each in self._context.processes.gather(begun):
                for lane, start in each.items():
                    if isinstance(start, Exception):
                        raise start  # in all processes, in the words of the one that read it
                    self._starts[lane] = start or self._starts[lane]
            self._tell_passes()
        window = torch.from_numpy(own)
        self._context.processes.all_reduce([window])  # each row has one reader; 0 of all others
        window = window.long()
        return window[:, :-1], window[:, 1:]

    def _read(self, lane: int) -> dict[str, Any] | Exception | None:
        """The next block of a lane, if this process reads it; returns where it begins, or why it
        can't be read."""
        if lane not in self._readers:
            return None
        try:
            start, self._blocks[lane] = self._readers[lane].next(self._check)
        except (UsageError, RunFailure) as error:
            return error
        return start

    def _check(self) -> None:
        if self._context.processes.world_size == 1:  # else all would have to check
            self._context.interrupt.check()

    @property
    def state(self) -> dict[str, Any]:
        """What it takes to go on with the next row."""
        return {"rows": self._rows, "starts": [*self._starts], "shards": self._shards.sha256}

    def _tell_passes(self) -> None:
        now = passes(self._starts, self._shards)
        if now > self._passes:
            self._passes = now
            self._context.report(f"data: the shards begin anew, pass {now}")

    def close(self) -> None:
        for reader in self._readers.values():
            reader.close()


def passes(starts: Sequence[Mapping[str, Any]], shards: Shards) -> int:
    """Over the shards, with the one under way, of the lane that has come the furthest."""
    return 1 + max(start["shard"] for start in starts) // len(shards)


def streamed(state: dict[str, Any], shards: Shards) -> Streamed:
    """What was read, up to the blocks that rows were taken from."""
    starts = state["starts"]
    return Streamed(
        shards=len(shards),
        bytes=shards.bytes,
        sha256=shards.sha256,
        passes=passes(starts, shards),
        **{name: sum(start[name] for start in starts) for name in COUNTS},
    )
