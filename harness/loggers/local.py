"""metrics.jsonl, the log that every run keeps and from which all other loggers are fed."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

from harness.common.errors import RunFailure
from harness.common.rows import Row, strict_json
from harness.config.settings import Settings
from harness.loggers.base import Logger
from harness.runs import metrics
from harness.runs.lock import FolderLost


class Local(Logger):
    """metrics.jsonl in the run's folder: strict JSON, one line a step."""

    FILE = metrics.FILE
    _file: TextIO
    _size: int

    def open(self, folder: Path, settings: Settings, step: int) -> None:
        path = folder / self.FILE
        try:
            if step or path.exists():
                metrics.keep_before(path, step)
            # Line by line, so that whoever reads along sees every finished step.
            self._file = path.open("a", buffering=1)
            self._size = os.fstat(self._file.fileno()).st_size
        except OSError as error:
            raise RunFailure(f"{path} can't be written: {error.strerror}") from error

    def log(self, row: Row) -> None:
        """Raises FolderLost if the file is no longer the one that was opened, as it was left. The
        row is in it all the same, wherever it was moved to."""
        try:
            self._size += self._file.write(strict_json(row) + "\n")  # ASCII: a byte a character
            self._require_own()
        except OSError as error:
            raise RunFailure(f"{self._file.name} can't be written: {error.strerror}") from error

    def _require_own(self) -> None:
        path, own = self._file.name, os.fstat(self._file.fileno())
        try:
            found = os.stat(path)
        except FileNotFoundError:
            raise FolderLost(f"{path} was removed while the training wrote it") from None
        if not os.path.samestat(found, own):
            raise FolderLost(f"{path} was replaced while the training wrote it")
        if own.st_size != self._size:
            raise FolderLost(
                f"{path} was changed while the training wrote it: it has {own.st_size} bytes, "
                f"{self._size} were written"
            )

    def close(self, summary: dict[str, Any]) -> None:
        # Every line was flushed when it was written; one that could not be has failed the run, as
        # may have something else before the file was open.
        with suppress(OSError, AttributeError):
            self._file.close()
