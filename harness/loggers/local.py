"""metrics.jsonl, the log that every run keeps and from which all other loggers are fed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from harness.common.files import AppendedFile, writing
from harness.common.rows import Row, strict_json
from harness.config.settings import Settings
from harness.loggers.base import Logger
from harness.runs import metrics
from harness.runs.lock import FolderLost


class Local(Logger):
    """metrics.jsonl in the run's folder: strict JSON, one line a step."""

    FILE = metrics.FILE
    _file: AppendedFile
    _size: int

    def open(self, folder: Path, settings: Settings, step: int) -> None:
        path = folder / self.FILE
        with writing(path):
            if step or path.exists():
                metrics.keep_before(path, step)
            self._file = AppendedFile(path)
            self._size = self._file.status().st_size

    def log(self, row: Row) -> None:
        """Raises FolderLost if the file is no longer the one that was opened, as it was left. The
        row is in it all the same, wherever it was moved to."""
        # At once, so that whoever reads along sees every finished step.
        line = f"{strict_json(row)}\n".encode()
        self._file.append(line)
        self._size += len(line)
        self._require_own()

    def _require_own(self) -> None:
        path, own = self._file.path, self._file.status()
        try:
            found = os.stat(path, follow_symlinks=False)
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
        if hasattr(self, "_file"):  # something may have failed before it was open
            self._file.close()
