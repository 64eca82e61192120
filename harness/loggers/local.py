"""metrics.jsonl, the log that every run keeps and from which all other loggers are fed."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from harness.common.files import AppendedFile, writing
from harness.common.rows import Row, strict_json
from harness.config.settings import Settings
from harness.loggers.base import Logger
from harness.runs import metrics


class Local(Logger):
    """metrics.jsonl in the run's folder: strict JSON, one line a step."""

    FILE = metrics.FILE
    _file: AppendedFile

    def open(self, folder: Path, settings: Settings, step: int) -> None:
        path = folder / self.FILE
        with writing(path):
            with suppress(FileNotFoundError):
                metrics.keep_before(path, step)
            self._file = AppendedFile(path)

    def log(self, row: Row) -> None:
        # At once, so that whoever reads along sees every finished step.
        self._file.append(f"{strict_json(row)}\n".encode())

    def close(self, summary: dict[str, Any]) -> None:
        if hasattr(self, "_file"):  # something may have failed before it was open
            self._file.close()
