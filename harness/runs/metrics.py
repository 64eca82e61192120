"""metrics.jsonl: a row for each step, as one line of strict JSON.

A line without its line break was torn by a kill, or is being written: it is no row.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from harness.common.files import atomic_write
from harness.common.rows import Histogram, Row

LOG = logging.getLogger("harness")
FILE = "metrics.jsonl"
TAIL = 1 << 14  # bytes; a row is seldom longer


def whole_lines(file: BinaryIO) -> Iterator[bytes]:
    """Every whole line from here on. Leaves the file where the next one begins: one that grows can
    be read on later."""
    while (line := file.readline()).endswith(b"\n"):
        yield line
    file.seek(-len(line), os.SEEK_CUR)


def parse_row(line: bytes) -> Row | None:
    """None if the line holds no row."""
    try:
        row = json.loads(line, parse_constant=_refuse, object_hook=_histogram)
    except (ValueError, RecursionError):  # bytes that are no UTF-8 are a ValueError, too
        return None
    return row if isinstance(row, dict) and type(row.get("step")) is int else None


def rows(path: Path) -> Iterator[tuple[bytes, Row | None]]:
    """Every whole line with its row, None for a damaged one. Raises OSError."""
    with path.open("rb") as file:
        for line in whole_lines(file):
            yield line, parse_row(line)


def last_row(path: Path) -> Row | None:
    """The last whole row, found from the file's end; None if there is none."""
    try:
        with path.open("rb") as file:
            length, size = TAIL, file.seek(0, os.SEEK_END)
            while True:
                file.seek(max(0, size - length))
                # The first may be the end of a line, which is no JSON by itself.
                lines = file.read(length).split(b"\n")[:-1]
                if row := next(filter(None, map(parse_row, reversed(lines))), None):
                    return row
                if length >= size:
                    return None
                length *= 4
    except OSError:
        return None


def keep_before(path: Path, step: int) -> None:
    """Drop the rows that a resumed run writes again, and what is damaged. Warns of rows before
    `step` that are lost. Raises OSError, and RunFailure for a full disk."""
    kept = {row["step"]: line for line, row in rows(path) if row and row["step"] in range(step)}
    if lost := [each for each in range(step) if each not in kept]:
        LOG.warning(
            f"{path}: the rows of {len(lost)} of the first {step} steps are missing or damaged, "
            f"and are lost (the first: step {lost[0]})"
        )
    with atomic_write(path) as file:
        file.write(b"".join(kept.values()))


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _histogram(value: dict[str, Any]) -> Any:
    return Histogram(**value) if value.keys() == {"counts", "edges"} else value
