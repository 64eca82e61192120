"""metrics.jsonl, the log that every run keeps and from which all other loggers are fed."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

from harness.common.errors import RunFailure
from harness.common.rows import Row, strict_json
from harness.config.settings import Settings
from harness.loggers.base import Logger
from harness.runs import metrics


class Local(Logger):
    """metrics.jsonl in the run's folder: strict JSON, one line a step."""

    FILE = metrics.FILE
    _file: TextIO

    def open(self, folder: Path, settings: Settings, step: int) -> None:
        path = folder / self.FILE
        try:
            if path.exists():
                metrics.keep_before(path, step)
            # Line by line, so that whoever reads along sees every finished step.
            self._file = path.open("a", buffering=1)
        except OSError as error:
            raise RunFailure(f"{path} can't be written: {error.strerror}") from error

    def log(self, row: Row) -> None:
        try:
            self._file.write(strict_json(row) + "\n")
        except OSError as error:
            raise RunFailure(f"{self._file.name} can't be written: {error.strerror}") from error

    def close(self, summary: dict[str, Any]) -> None:
        # Every line was flushed when it was written; one that could not be has failed the run, as
        # may have something else before the file was open.
        with suppress(OSError, AttributeError):
            self._file.close()
