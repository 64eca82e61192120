"""Where a run's numbers go. A row is everything known of one step: {"step": …, name: value, …}; a
value is a number, None (not defined there) or a Histogram."""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.config import Settings

Row = dict[str, Any]


@dataclass(frozen=True)
class Histogram:
    """How values are spread: counts[i] of them lie between edges[i] and edges[i + 1]."""

    counts: list[int]
    edges: list[float]


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


def strict_json(value: Any, indent: int | None = None) -> str:
    """JSON as every parser reads it: NaN and infinities, which JSON lacks, become null; a Histogram
    {"counts": […], "edges": […]}."""
    try:
        return json.dumps(value, allow_nan=False, indent=indent, default=_plain)
    except ValueError:
        return json.dumps(_finite(value), allow_nan=False, indent=indent)


def _plain(value: Any) -> dict[str, Any]:
    if isinstance(value, Histogram):
        return vars(value)
    raise TypeError(f"{type(value).__name__} can't be written as JSON")


def _finite(value: Any) -> Any:
    if isinstance(value, Histogram):
        value = vars(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    return [_finite(inner) for inner in value] if isinstance(value, list) else value
