"""What in a run's rows looks wrong, said once and in a line: a hint, never an error."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from harness.common.rows import Row

LISTED = 3  # places named in a line


@dataclass(frozen=True)
class Rule:
    """Numbers with a name of the form prefix + place + suffix, and from where on they look wrong.

    title: what that is called. say: one place's number.
    """

    prefix: str
    suffix: str
    limit: float
    title: str
    say: Callable[[float], str]

    def broken(self, row: Row) -> dict[str, float]:
        """The numbers that look wrong, by place, the largest first."""
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
    places = [f"{rule.say(value)} {place}" for place, value in broken.items()]
    more = [f"{len(places) - LISTED} more"] if len(places) > LISTED else []
    return f"step {step}: {rule.title}: {', '.join(places[:LISTED] + more)}"
