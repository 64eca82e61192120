"""Where a run's numbers go. A row is everything known of one step: {"step": …, name: value, …}; a
value is a number, None (not defined there) or a Histogram."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from harness.common.rows import Row
from harness.config.settings import Settings


class Logger(ABC):
    """One destination. All but the local one live in a process of their own (loggers/follow.py):
    they may be slow, and what they raise ends them alone. What they have to say they say by
    `logging`, to the logger "harness"."""

    @abstractmethod
    def open(self, folder: Path, settings: Settings, step: int) -> None:
        """Begin, or go on before `step` (0: a fresh run): rows from there on will come again."""

    @abstractmethod
    def log(self, row: Row) -> None:
        """Take one row; rows come in order of their steps, each step once."""

    @abstractmethod
    def close(self, summary: dict[str, Any]) -> None:
        """The run ended, in whatever way `summary` says. Returns when all rows are stored: what was
        taken, but not stored before a kill, comes again in a resumed run."""
