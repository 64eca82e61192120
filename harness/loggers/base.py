"""What a logger is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from harness.common.rows import Row
from harness.config.settings import Settings


class Logger(ABC):
    """One destination of a run's rows. All but the local one live in a process beside the training
    (loggers/follow.py), each in a thread: they may be slow, and an exception ends only the logger
    that raised it. Messages go to the `logging` logger "harness"."""

    appends: ClassVar[bool] = True
    """Whether a resumed run goes on in what is stored; if not, it gets all rows again."""

    modules: ClassVar[Sequence[str]] = ()
    """What the logger's process imports for it; the training imports none of them."""

    @abstractmethod
    def open(self, folder: Path, settings: Settings, step: int) -> None:
        """Begin, or go on before `step` (0: a fresh run): rows from there on will come again."""

    @abstractmethod
    def log(self, row: Row) -> None:
        """Take one row; rows come in order of their steps, each step once."""

    @abstractmethod
    def close(self, summary: dict[str, Any]) -> None:
        """The run ended, `summary` says how. Returns when all rows are stored: those that were
        taken, but not stored before a kill, come again in a resumed run."""
