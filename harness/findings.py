"""What in a run's rows looks wrong, said once and in a line: a hint, never an error."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from harness.loggers import Row


@dataclass(frozen=True)
class Rule:
    """Numbers with a name of the form prefix + place + suffix, and from where on they look wrong.

    say: of the place with the largest number, and that number.
    """

    prefix: str
    suffix: str
    limit: float
    say: Callable[[str, float], str]

    def broken(self, row: Row) -> dict[str, float]:
        return {
            name.removeprefix(self.prefix).removesuffix(self.suffix): value
            for name, value in row.items()
            if name.startswith(self.prefix) and name.endswith(self.suffix) and value >= self.limit
        }


RULES = (
    Rule("dead/", "/share", 0.1, lambda place, share: f"dead units: {share:.0%} of {place}"),
    Rule(
        "activations/", "/saturation", 0.5,
        lambda place, share: f"saturated: {share:.0%} of {place}'s outputs",
    ),
    Rule(
        "updates/", "/log10_ratio", -1.0,
        lambda place, ratio: f"updates of {place} are 10^{ratio:.1f} of its weights, -3 is usual",
    ),
)  # fmt: skip


class Findings:
    """Collects from rows; each rule speaks once."""

    def __init__(self) -> None:
        self._silent = list(RULES)
        self._news: list[str] = []

    def add(self, row: Row) -> None:
        for rule in list(self._silent):
            if broken := rule.broken(row):
                self._silent.remove(rule)
                self._news.append(_line(rule, broken, row["step"]))

    def news(self) -> list[str]:
        """Since it was last asked."""
        news, self._news = self._news, []
        return news


def _line(rule: Rule, broken: Mapping[str, float], step: int) -> str:
    worst = max(broken, key=broken.__getitem__)
    line = f"step {step}: {rule.say(worst, broken[worst])}"
    return line + (f"; and {len(broken) - 1} more such" if len(broken) > 1 else "")
