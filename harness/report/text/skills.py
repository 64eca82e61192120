"""The grid of architectures and tasks in words."""

from __future__ import annotations

from harness.report.statistics.skills import Accuracy, Grid, TaskColumn
from harness.report.text.format import human

NOTE = (
    "Accuracy on the answers, with its 95 % interval: over seeds, or of one seed over its "
    "examples. Chance is the best constant answer; a solver has 1. State: what decoding keeps of "
    "one example of training."
)


def heads(grid: Grid) -> list[tuple[str, str]]:
    """Of each column behind model and state: the task and the length, and the chance."""
    return [(_task(column), f"chance {column.chance:.3f}") for column in grid.columns]


def _task(column: TaskColumn) -> str:
    return column.data if column.length is None else f"{column.data} at {column.length}"


def state(kept: float | None) -> str:
    return "–" if kept is None else human(kept)


def cell(found: Accuracy | None) -> str:
    """`0.984 ± 0.012`; – where there is none."""
    if found is None:
        return "–"
    return f"{found.mean:.3f}" + ("" if found.half is None else f" ± {found.half:.3f}")
