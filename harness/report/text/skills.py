"""The grid of architectures and tasks in words."""

from __future__ import annotations

from harness.report.statistics.skills import Accuracy, SkillTask
from harness.report.text.format import human

NOTE = (
    "Accuracy on the answers, with its 95 % interval for examples like these and, with "
    "several seeds, for new seeds (Student's t; seeds that all solve a task have no spread, which "
    "does not show that the next one would). Chance is the best constant answer; a solver has 1. "
    "State: what decoding keeps of one example of training."
)


def called(task: SkillTask) -> str:
    """The task, and its length if that is not of training."""
    return task.data if task.length is None else f"{task.data} at {task.length}"


def chance(task: SkillTask) -> str:
    return f"{task.chance:.3f}"


def state(kept: float | None) -> str:
    """Of a model, in its head."""
    if kept is None:
        return "–"
    text = human(kept)
    return f"{text}B" if text[-1].isalpha() else f"{text} B"


def cell(found: Accuracy | None) -> str:
    """`0.984 (0.966 to 0.993)`; – where there is none."""
    if found is None:
        return "–"
    if found.interval is None:
        return f"{found.mean:.3f}"
    low, high = found.interval
    return f"{found.mean:.3f} ({low:.3f} to {high:.3f})"
