"""A growing metrics.jsonl, thinned so that a run of any length takes bounded memory and gives
answers of bounded size.

N rows, A axes, B buckets.
"""

from __future__ import annotations

import math
import os
import threading
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from time import monotonic
from typing import Any, BinaryIO

import numpy as np

from harness.common import contained
from harness.common.rows import Histogram, Row
from harness.runs.damage import is_finite
from harness.runs.metrics import COSTS, StepOrder, parse_row, whole_lines

AXES = COSTS
MOST_BUCKETS = 4096
MOST_SNAPSHOTS = 24
MOST_NAMES = 4096
MOST_BINS = 2048
# Of a run, whatever its file holds: all curves have fewer buckets where there are many curves.
ALL_BUCKETS, FEWEST_BUCKETS = 1 << 20, 256
ALL_NUMBERS = 1 << 21  # of all snapshots
NUMBER_BYTES = 32  # of a float in a list
BLOCK = 1 << 20
TAIL = 1 << 10  # bytes by which a file is known again
DIGITS = 7

Points = dict[str, list[float]]
Snapshot = dict[str, Any]


class Curve:
    """One metric over every axis. Neighbouring values are merged into buckets that keep their mean,
    minimum and maximum, so that no spike is lost."""

    def __init__(self) -> None:
        self.count = 0
        self._width = 1  # values in a bucket
        self._sums_BC = np.zeros((0, 2 + len(AXES)))  # columns: how many, each axis, the value
        self._low_B = np.zeros(0)
        self._high_B = np.zeros(0)

    @property
    def memory(self) -> int:
        """Bytes."""
        return self._sums_BC.nbytes + self._low_B.nbytes + self._high_B.nbytes

    def add(self, axes_NA: np.ndarray, values_N: np.ndarray, most: int = MOST_BUCKETS) -> None:
        """Append the values of further rows. axes_NA: their costs. most: buckets afterwards."""
        bucket_N = (self.count + np.arange(len(values_N))) // self._width
        more = int(bucket_N[-1]) + 1 - len(self._low_B)
        self._sums_BC = np.pad(self._sums_BC, ((0, more), (0, 0)))
        self._low_B = np.pad(self._low_B, (0, more), constant_values=math.inf)
        self._high_B = np.pad(self._high_B, (0, more), constant_values=-math.inf)
        rows_NC = np.column_stack((np.ones(len(values_N)), axes_NA, values_N))
        np.add.at(self._sums_BC, bucket_N, rows_NC)
        np.minimum.at(self._low_B, bucket_N, values_N)
        np.maximum.at(self._high_B, bucket_N, values_N)
        self.count += len(values_N)
        while len(self._low_B) > most:
            self._sums_BC, self._low_B, self._high_B = _merge(
                self._sums_BC, self._low_B, self._high_B, 2
            )
            self._width *= 2

    def points(
        self, axis: str, most: int, start: float = -math.inf, end: float = math.inf
    ) -> Points:
        """At most `most` points with `start` <= x <= `end`, and one more on each side, which lets a
        line go on to the edge: {"x", "y": means, "low", "high"}."""
        x_B = self._sums_BC[:, 1 + AXES.index(axis)] / self._sums_BC[:, 0]
        # A run from elsewhere may lack an axis.
        inside = np.flatnonzero((x_B >= start) & (x_B <= end))
        if not len(inside):
            return {"x": [], "y": [], "low": [], "high": []}
        part = slice(max(0, inside[0] - 1), inside[-1] + 2)
        sums_BC, low_B, high_B = self._sums_BC[part], self._low_B[part], self._high_B[part]
        finite_B = np.isfinite(x_B[part])
        sums_BC, low_B, high_B = sums_BC[finite_B], low_B[finite_B], high_B[finite_B]
        sums_BC, low_B, high_B = _merge(sums_BC, low_B, high_B, math.ceil(len(low_B) / most))
        columns = (
            sums_BC[:, 1 + AXES.index(axis)] / sums_BC[:, 0],
            sums_BC[:, -1] / sums_BC[:, 0],
            low_B,
            high_B,
        )
        names = ("x", "y", "low", "high")
        return {name: _short(values) for name, values in zip(names, columns, strict=True)}


def _merge(
    sums_BC: np.ndarray, low_B: np.ndarray, high_B: np.ndarray, size: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Merge every `size` neighbouring buckets into one."""
    if size <= 1:
        return sums_BC, low_B, high_B
    starts = np.arange(0, len(low_B), size)
    return (
        np.add.reduceat(sums_BC, starts),
        np.minimum.reduceat(low_B, starts),
        np.maximum.reduceat(high_B, starts),
    )


def _short(values: np.ndarray) -> list[float]:
    """Rounded, which halves an answer; integers stay exact."""
    return [
        value if value.is_integer() else float(f"{value:.{DIGITS}g}") for value in values.tolist()
    ]


class Snapshots:
    """One metric whose values are histograms or lists: a few, evenly spaced over the run, and the
    last."""

    def __init__(self) -> None:
        self._kept: list[Snapshot] = []
        self._every = 1
        self._count = 0
        self._last: Snapshot | None = None

    def add(self, snapshot: Snapshot) -> None:
        self._last = snapshot
        if self._count % self._every == 0:
            self._kept.append(snapshot)
            if len(self._kept) > MOST_SNAPSHOTS:
                del self._kept[1::2]
                self._every *= 2
        self._count += 1

    def all(self) -> list[Snapshot]:
        """Ordered by step: {"step", "counts", "edges"} or {"step", "values"}."""
        if self._last is None or self._last is self._kept[-1]:
            return list(self._kept)
        return [*self._kept, self._last]


class LiveMetrics:
    """A growing metrics.jsonl; each reading goes on where the last one ended. Thread-safe."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._reset(None)

    def _reset(self, inode: tuple[int, int] | None) -> None:
        self._inode = inode
        self._offset = 0
        self._tail = b""
        self._order = StepOrder()
        self._curves: dict[str, Curve] = {}
        self._snapshots: dict[str, Snapshots] = {}
        self._sizes: dict[str, int] = {}  # the numbers of a snapshot

    def read(self, seconds: float = 0.25) -> float:
        """Reads on for at most about `seconds`; returns the share of the file that is read."""
        with self._lock:
            until = monotonic() + seconds
            try:
                with contained.open_binary(self._path, whole=False) as file:
                    status = os.fstat(file.fileno())
                    # A resumed run replaces its file: its rows may differ from those read before.
                    # The inode of a file that was deleted may be given to the one made after it.
                    inode = status.st_dev, status.st_ino
                    file.seek(self._offset - len(self._tail))
                    if inode != self._inode or file.read(len(self._tail)) != self._tail:
                        self._reset(inode)
                    file.seek(self._offset)
                    while self._read_block(file) and monotonic() < until:
                        pass
                    return min(1.0, self._offset / status.st_size) if status.st_size else 1.0
            except OSError:
                self._reset(None)
                return 1.0

    def _read_block(self, file: BinaryIO) -> bool:
        """Adds the whole lines of about the next BLOCK bytes; False if there is none yet."""
        rows, size = [], 0
        for line in whole_lines(file):
            if (row := parse_row(line)) is None:
                self._order.damaged += 1
            elif self._order.accepts(row["step"]):
                rows.append(row)
            size += len(line)
            self._tail = line[-TAIL:]
            if size >= BLOCK:
                break
        self._offset += size
        self._add(rows)
        return size > 0

    def _add(self, rows: Sequence[Row]) -> None:
        indices: dict[str, list[int]] = defaultdict(list)
        values: dict[str, list[float]] = defaultdict(list)
        for index, row in enumerate(rows):
            for name, value in row.items():
                if is_finite(value):
                    indices[name].append(index)
                    values[name].append(value)
                elif isinstance(value, (Histogram, list)):
                    self._add_snapshot(row["step"], name, value)
        axes_NA = np.array(
            [
                [row[axis] if is_finite(row.get(axis)) else math.nan for axis in AXES]
                for row in rows
            ],
            dtype=float,
        ).reshape(-1, len(AXES))
        for name, found in values.items():
            if name in self._curves or len(self._curves) < MOST_NAMES:
                curve = self._curves.setdefault(name, Curve())
                most = max(FEWEST_BUCKETS, min(MOST_BUCKETS, ALL_BUCKETS // len(self._curves)))
                curve.add(axes_NA[indices[name]], np.array(found, dtype=float), most)

    def _add_snapshot(self, step: int, name: str, value: Histogram | list[Any]) -> None:
        parts = {"values": value} if isinstance(value, list) else vars(value)
        valid = all(map(_are_numbers, parts.values()))
        if valid and isinstance(value, Histogram):
            valid = len(value.edges) == len(value.counts) + 1
        size = sum(map(len, parts.values())) if valid else 0
        if valid and name not in self._sizes:
            reserved = (MOST_SNAPSHOTS + 1) * (sum(self._sizes.values()) + size)
            if reserved > ALL_NUMBERS:
                return
            self._sizes[name] = size
        if valid and size <= self._sizes[name]:
            self._snapshots.setdefault(name, Snapshots()).add({"step": step, **parts})

    def complaint(self) -> str | None:
        """What was wrong with the rows that were read; None if nothing was."""
        with self._lock:
            return self._order.complaint()

    @property
    def memory(self) -> int:
        """Bytes, about."""
        snapshots = (MOST_SNAPSHOTS + 1) * sum(list(self._sizes.values())) * NUMBER_BYTES
        return snapshots + sum(curve.memory for curve in list(self._curves.values()))

    def names(self) -> list[str]:
        """The metrics that are numbers, but for the axes, in the order in which they came."""
        with self._lock:
            return [name for name in self._curves if name not in AXES]

    def snapshot_names(self) -> list[str]:
        """The metrics that are histograms or lists."""
        with self._lock:
            return list(self._snapshots)

    def points(self, name: str, axis: str, most: int, start: float, end: float) -> Points | None:
        """Of one curve; None if the run has none of that name."""
        with self._lock:
            curve = self._curves.get(name)
            return curve.points(axis, most, start, end) if curve else None

    def snapshots(self, name: str) -> list[Snapshot]:
        with self._lock:
            found = self._snapshots.get(name)
            return found.all() if found else []


def _are_numbers(values: Any) -> bool:
    return isinstance(values, list) and 0 < len(values) <= MOST_BINS and all(map(is_finite, values))
