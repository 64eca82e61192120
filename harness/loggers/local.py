"""metrics.jsonl, the log that every run keeps and from which all other loggers are fed."""

from __future__ import annotations

import json
import logging
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

from harness.common.errors import RunFailure
from harness.common.files import atomic_write
from harness.common.rows import Row, strict_json
from harness.config.settings import Settings
from harness.loggers.base import Logger

LOG = logging.getLogger("harness")


class Local(Logger):
    """metrics.jsonl in the run's folder: strict JSON, one line a step."""

    FILE = "metrics.jsonl"

    def __init__(self) -> None:
        self._file: TextIO | None = None

    def open(self, folder: Path, settings: Settings, step: int) -> None:
        path = folder / self.FILE
        try:
            if path.exists():
                _keep_before(path, step)
            # Line by line, so that whoever reads along sees every finished step.
            self._file = path.open("a", buffering=1)
        except OSError as error:
            raise RunFailure(f"{path} can't be written: {error.strerror}") from error

    def log(self, row: Row) -> None:
        assert self._file is not None, "open comes first"
        try:
            self._file.write(strict_json(row) + "\n")
        except OSError as error:
            raise RunFailure(f"{self._file.name} can't be written: {error.strerror}") from error

    def close(self, summary: dict[str, Any]) -> None:
        # Every line was flushed when it was written; one that could not be has failed the run.
        with suppress(OSError):
            if self._file is not None:
                self._file.close()


def _keep_before(path: Path, step: int) -> None:
    """Drop the rows that a resumed run writes again, and what is damaged: a last line that a kill
    tore, or worse, which is then said."""
    kept: dict[int | None, bytes] = {}
    for line in path.read_bytes().split(b"\n"):
        found = _step(line)
        if found in range(step):
            kept[found] = line + b"\n"
    if lost := [each for each in range(step) if each not in kept]:
        LOG.warning(
            f"{path}: the rows of {len(lost)} of the first {step} steps are missing or damaged, "
            f"and are lost (the first: step {lost[0]})"
        )
    with atomic_write(path) as file:
        file.write(b"".join(kept.values()))


def _step(line: bytes) -> int | None:
    """That of the row on this line; None if the line is no row."""
    try:
        step = json.loads(line)["step"]
    # Bytes that are no UTF-8 are a ValueError, too.
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return step if isinstance(step, int) else None
