"""Where a run's numbers go. A row is everything known of one step: {"step": …, name: value, …}; a
value is a number, None (not defined there) or a Histogram."""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

from harness.assets import placed
from harness.config import Settings
from harness.errors import RunFailure

Row = dict[str, Any]


@dataclass(frozen=True)
class Histogram:
    """How values are spread: counts[i] of them lie between edges[i] and edges[i + 1]."""

    counts: list[int]
    edges: list[float]


class Logger(ABC):
    """One destination. It must not slow the training down, nor change what it does."""

    @abstractmethod
    def open(self, folder: Path, settings: Settings, step: int) -> None:
        """Begin, or go on before `step` (0: a fresh run): rows from there on will come again."""

    @abstractmethod
    def log(self, row: Row) -> None:
        """Take one row; rows come in order of their steps, each step once."""

    @abstractmethod
    def close(self, summary: dict[str, Any]) -> None:
        """The run ended, in whatever way `summary` says."""


class Local(Logger):
    """metrics.jsonl in the run's folder: strict JSON, one line a step."""

    FILE = "metrics.jsonl"

    def __init__(self) -> None:
        self._file: TextIO | None = None

    def open(self, folder: Path, settings: Settings, step: int) -> None:
        path = folder / self.FILE
        if path.exists():
            _keep_before(path, step)
        try:
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
        if self._file is not None:
            self._file.close()


def strict_json(value: Any, indent: int | None = None) -> str:
    """JSON as every parser reads it: NaN and infinities, which JSON lacks, become null; a Histogram
    {"counts": […], "edges": […]}."""
    try:
        return json.dumps(value, allow_nan=False, indent=indent, default=_plain)
    except ValueError:
        return json.dumps(_finite(value), allow_nan=False, indent=indent)


def _plain(value: Any) -> dict[str, Any]:
    if isinstance(value, Histogram):
        return asdict(value)
    raise TypeError(f"{type(value).__name__} can't be written as JSON")


def _finite(value: Any) -> Any:
    if isinstance(value, Histogram):
        value = asdict(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    return [_finite(inner) for inner in value] if isinstance(value, list) else value


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
