"""How far a search is, and how long it still takes."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from time import perf_counter

from harness.common.text import duration
from harness.runs.summary import FILE, read_summary, status_of
from harness.tuning.choice import ENDED
from harness.tuning.plan import PlannedCost


class SearchProgress:
    """Of the trainings in a search's folder. each: how many every model has."""

    def __init__(
        self, folder: Path, costs: Mapping[str, PlannedCost], each: int, workers: int
    ) -> None:
        self._folder, self._total = folder, each * len(costs)
        self._planned = {model: cost.seconds for model, cost in costs.items()}
        self._whole = each * sum(self._planned.values())
        self._ended: dict[Path, float] = {}  # planned seconds
        self._read()
        self._found, self._before = len(self._ended), sum(self._ended.values())
        self._workers, self._begun = workers, perf_counter()

    def look(self) -> None:
        """Print a line if a training has ended since."""
        if self._read():
            print(self.line(perf_counter() - self._begun), file=sys.stderr)

    def line(self, elapsed: float) -> str:
        """elapsed: seconds since this command began.

        The time left is what the plan says of the trainings that are left, and what each that has
        ended since took beyond its plan: starts, certificates, a machine that others use, too.
        """
        done = sum(self._ended.values())
        left, since = max(0.0, self._whole - done), done - self._before
        number = len(self._ended) - self._found
        spent = elapsed * self._workers
        if number:
            left *= min(1.0, spent / since) if since else 1.0
            left += (self._total - len(self._ended)) * max(0.0, spent - since) / number
        words = duration(left / self._workers)
        return f"training {len(self._ended)} of {self._total} has ended; about {words} left"

    def _read(self) -> bool:
        """Whether there are new ones."""
        before = len(self._ended)
        for path in self._folder.glob(f"*/*/{FILE}"):
            if path not in self._ended and status_of(path.parent) in ENDED:
                self._ended[path] = self._planned.get(read_summary(path.parent).model or "", 0.0)
        return len(self._ended) > before
