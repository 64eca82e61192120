"""Anomalies in a run's rows, reported once each: hints, not errors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from harness.common.rows import Row

MAX_LISTED = 3  # places named in a line


@dataclass(frozen=True)
class Rule:
    """A limit for the numbers named prefix + place + suffix. format: of one number."""

    prefix: str
    suffix: str
    limit: float
    title: str
    format: Callable[[float], str]

    def violations(self, row: Row) -> dict[str, float]:
        """The numbers at or above the limit, by place, the largest first."""
        found = {
            name.removeprefix(self.prefix).removesuffix(self.suffix): value
            for name, value in row.items()
            if name.startswith(self.prefix) and name.endswith(self.suffix) and value >= self.limit
        }
        return dict(sorted(found.items(), key=lambda item: -item[1]))


RULES = (
    Rule("dead/", "/share", 0.1, "dead units", lambda share: f"{share:.0%} of"),
    Rule("activations/", "/saturation", 0.5, "saturated outputs", lambda share: f"{share:.0%} of"),
    Rule(
        "updates/", "/log10_ratio", -1.0, "updates far above the usual 10^-3 of the weights",
        lambda ratio: f"10^{ratio:.1f} of",
    ),
)  # fmt: skip


class Findings:
    """Checks rows; each rule reports once."""

    def __init__(self) -> None:
        self._rules = list(RULES)
        self._lines: list[str] = []

    def add(self, row: Row) -> None:
        for rule in list(self._rules):
            if found := rule.violations(row):
                self._rules.remove(rule)
                places = [f"{rule.format(value)} {place}" for place, value in found.items()]
                if len(places) > MAX_LISTED:
                    places[MAX_LISTED:] = [f"{len(places) - MAX_LISTED} more"]
                self._lines.append(f"step {row['step']}: {rule.title}: {', '.join(places)}")

    def pop(self) -> list[str]:
        """The lines since the last call."""
        lines, self._lines = self._lines, []
        return lines
