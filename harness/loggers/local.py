"""metrics.jsonl, the log that every run keeps and from which all other loggers are fed."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

from harness.assets import placed
from harness.config import Settings
from harness.errors import RunFailure
from harness.loggers.base import Logger, Row, strict_json


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
    """Drop the rows that a resumed run writes again, and a last line that a kill tore."""
    kept = []
    for line in path.read_text().splitlines():
        try:
            if json.loads(line)["step"] < step:
                kept.append(line + "\n")
        except (ValueError, KeyError):
            break
    with placed(path) as file:
        file.write("".join(kept).encode())
