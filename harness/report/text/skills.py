"""The grid of architectures and tasks in words."""

from __future__ import annotations

from harness.report.statistics.skills import Accuracy, SkillTask
from harness.report.text.format import human

NOTE = (
    "Accuracy on the answers, with its 95 % interval: over seeds, or of one seed over its "
    "examples. Chance is the best constant answer; a solver has 1. State: what decoding keeps of "
    "one example of training."
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
    """`0.984 ± 0.012`; – where there is none."""
    if found is None:
        return "–"
    return f"{found.mean:.3f}" + ("" if found.half is None else f" ± {found.half:.3f}")
