"""metrics.jsonl: a row for each step, as one line of strict JSON.

A line without a line break was torn by a kill, or is still being written: it is not a row.
"""

from __future__ import annotations

import json
import logging
import os
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from harness.common import contained
from harness.common.files import atomic_write
from harness.common.rows import Histogram, Row
from harness.runs.damage import DamageError, is_finite, refuse_constant

LOG = logging.getLogger("harness")
FILE = "metrics.jsonl"
MOST_EVALUATIONS = 1 << 17
TAIL_BYTES = 1 << 14  # a row is seldom longer
# The costs that every row has: what curves are drawn over.
COSTS = ("step", "tokens", "bytes", "flops", "seconds")
SCORES = ("val/bits_per_byte", "val/nats_per_token")


class StepOrder:
    """Whether rows come as a run writes them, each step once and in order. A row that is not later
    than all before it is left out; `complaint` says so."""

    def __init__(self) -> None:
        self.last_step: int | None = None
        self.damaged = self._missing = self._left_out = 0

    def accepts(self, step: int) -> bool:
        """Whether the row of this step, the next in the file, is later than all before it."""
        expected = 0 if self.last_step is None else self.last_step + 1
        if step < expected:
            self._left_out += 1
            return False
        self._missing += step - expected
        self.last_step = step
        return True

    def complaint(self) -> str | None:
        """One line; None if nothing is wrong."""
        found = [
            f"{count} {what}"
            for count, what in (
                (self.damaged, "damaged lines are left out"),
                (self._left_out, "rows are repeated or out of order, and left out"),
                (self._missing, f"of {(self.last_step or 0) + 1} steps have no row"),
            )
            if count
        ]
        return f"{FILE}: {'; '.join(found)}" if found else None


@dataclass(frozen=True)
class Metrics:
    """What a comparison needs of metrics.jsonl; small, so that many long runs fit in memory.

    evaluations: the costs and scores of the rows that have a validation score. losses: (N, 2),
    step and training loss in nats per token. last_step: None if there is no row. complaint: of the
    order of the rows; None if nothing is wrong.
    """

    evaluations: Sequence[Mapping[str, float]] = ()
    losses: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 2)))
    last_step: int | None = None
    complaint: str | None = None


def read(path: Path) -> Metrics:
    """Raises DamageError for a whole line that is not a row, and OSError."""
    evaluations: list[dict[str, float]] = []
    losses, order = array("d"), StepOrder()
    for row in intact_rows(path):
        if not order.accepts(row["step"]):
            continue
        if is_finite(row.get("train/loss")):
            losses.extend((row["step"], row["train/loss"]))
        if any(name in row for name in SCORES):
            if len(evaluations) == MOST_EVALUATIONS:
                raise contained.too_large(path, f"more than {MOST_EVALUATIONS:,} evaluations")
            evaluations.append(
                {name: row[name] for name in (*COSTS, *SCORES) if is_finite(row.get(name))}
            )
    found = np.array(losses).reshape(-1, 2)
    return Metrics(evaluations, found, order.last_step, order.complaint())


def whole_lines(file: BinaryIO) -> Iterator[bytes]:
    """Every whole line from the file's position on. Leaves the position at the start of the next
    line, so that a growing file can be read on later. Raises OSError for a line without an end."""
    while (line := file.readline(contained.LINE)).endswith(b"\n"):
        yield line
    if len(line) == contained.LINE:
        raise contained.too_large(Path(file.name), f"a line of more than {len(line):,} bytes")
    file.seek(-len(line), os.SEEK_CUR)


def parse_row(line: bytes) -> Row | None:
    """None if the line is not a row."""
    try:
        row = _DECODER.decode(line.decode())
    except (ValueError, RecursionError):  # UnicodeDecodeError is a ValueError
        return None
    step = row.get("step") if isinstance(row, dict) else None
    return row if type(step) is int and is_finite(step) else None


def rows(path: Path) -> Iterator[tuple[bytes, Row | None]]:
    """Every whole line with its row, None for a damaged one. Raises OSError."""
    with contained.open_binary(path) as file:
        for line in whole_lines(file):
            yield line, parse_row(line)


def intact_rows(path: Path) -> Iterator[Row]:
    """Raises DamageError for a whole line that is not a row, and OSError."""
    for number, (_, row) in enumerate(rows(path), start=1):
        if row is None:
            raise DamageError(f"{path.name} line {number} is not a row of strict JSON with a step")
        yield row


def last_row(path: Path) -> Row | None:
    """The last whole row, found from the file's end; None if there is none."""
    length = TAIL_BYTES
    while length <= contained.LINE:
        lines = contained.read_tail(path, length).split(b"\n")[:-1]
        if row := next(filter(None, map(parse_row, reversed(lines))), None):
            return row
        length *= 4
    return None


def keep_before(path: Path, step: int) -> None:
    """Drop the rows that a resumed run writes again. Puts the others in order, each step once, and
    says what was wrong with them, and which are lost. Raises OSError, and RunFailure for a full
    disk."""
    kept, damaged, repeated = dict[int, bytes](), 0, 0
    for line, row in rows(path) if path.exists() else ():
        if row is None:
            damaged += 1
        elif row["step"] in kept:
            repeated += 1
        elif row["step"] in range(step):
            kept[row["step"]] = line
    wrong = [f"{damaged} damaged lines are left out"] * (damaged > 0)
    wrong += [f"{repeated} repeated rows are left out"] * (repeated > 0)
    wrong += ["rows are put in order"] * (list(kept) != sorted(kept))
    if lost := [each for each in range(step) if each not in kept]:
        wrong.append(
            f"the rows of {len(lost)} of the first {step} steps are missing or damaged, and are "
            f"lost (the first: step {lost[0]})"
        )
    if wrong:
        LOG.warning(f"{path}: {'; '.join(wrong)}")
    with atomic_write(path) as file:
        file.write(b"".join(kept[each] for each in sorted(kept)))


def _histogram(value: dict[str, Any]) -> Any:
    return Histogram(**value) if value.keys() == {"counts", "edges"} else value


_DECODER = json.JSONDecoder(parse_constant=refuse_constant, object_hook=_histogram)
