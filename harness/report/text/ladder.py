"""A ladder in words."""

from __future__ import annotations

from harness.report.statistics.ladder import Rung, steps
from harness.report.statistics.ranking import Comparison
from harness.report.text.format import score, signed


def lines(comparison: Comparison) -> list[str]:
    """One for each step: its score, and what it gains over the one before; none if it is no ladder
    of at least two."""
    found = steps(comparison) if comparison.is_ladder else []
    return [_line(step) for step in found] if len(found) > 1 else []


def _line(step: Rung) -> str:
    own = step.group.score
    assert own is not None  # a ranked group has this number
    words = f"{step.group.label}: {score(own)} {step.group.measure}"
    return f"{words}, gains {gain(step)}" if step.gain is not None else words


def gain(step: Rung) -> str:
    """`0.113`; with several seeds their lowest and highest: `0.113 (0.104 to 0.121)`."""
    assert step.gain is not None  # only the first has none
    if len(step.gains) < 2:
        return signed(step.gain)
    ends = f"{signed(min(step.gains))} to {signed(max(step.gains))}"
    return f"{signed(step.gain)} ({ends} over {len(step.gains)} seeds)"
