"""What a target costs, in cells and sentences."""

from __future__ import annotations

from collections.abc import Iterator

from harness.report.statistics.paired import LEVEL
from harness.report.statistics.targets import GroupCost, Ratio, TargetCosts
from harness.report.text.format import BESIDE, human, p_value
from harness.report.text.format import seconds as shown_seconds

CURRENCIES = {
    "step": "steps",
    "tokens": "tokens",
    "bytes": "bytes",
    "flops": "FLOPs",
    "seconds": "seconds",
}
NOTE = (
    "A cost is interpolated linearly between the two evaluations around the target, whose steps "
    "stand beside it; a curve that falls fast is there earlier than that. It is the "
    f"geometric mean over seeds, in brackets its {LEVEL:.0%} interval for new seeds (Student's t "
    "of the logarithms, none for one seed), no narrower than the evaluations leave it. > stands "
    "where some seed never got there: it is what the seeds took that did, and what the others "
    "spent in vain. ≤: there already at the first evaluation. A counted model takes one pass over "
    "train."
)


def seeds(own: GroupCost) -> str:
    """How many seeds reach the target."""
    return f"{own.reached} of {len(own.seeds)}"


def evaluations(own: GroupCost) -> str:
    """The steps of the evaluations around the target: `500 to 1.00 k`."""
    before, after = own.between
    if before == after:
        return human(after)
    return f"{human(before)} to {human(after)}" if own.all_reached else f"after {human(before)}"


def cell(own: GroupCost, currency: str) -> str:
    """`1.23 k (1.10 k to 1.38 k)`; `> 2.00 k` where a seed never got there."""
    found = own.mean(currency)
    if found is None:
        return "–"

    def shown(value: float) -> str:
        return shown_seconds(value) if currency == "seconds" else human(_rounded(value))

    mark = "> " if not own.all_reached else "≤ " if any(seed.first for seed in own.seeds) else ""
    if not found.mean:
        return "0"
    words = f"{mark}{shown(found.mean)}{BESIDE * (currency == 'seconds' and own.group.beside > 0)}"
    if found.low is None or found.high is None:
        return words
    return f"{words} ({shown(found.low)} to {shown(found.high)})"


def _rounded(value: float) -> float:
    """Whole numbers below 1,000: no run takes part of a step."""
    return float(round(value)) if value >= 1 else value


def lines(found: TargetCosts) -> Iterator[str]:
    """Who gets there first, and how many times the others take."""
    yield f"To {found.target}:"
    never = dict[str, list[str]]()  # by the words that are the same for all of them
    for own in found.groups:
        if not own.reached:
            never.setdefault(_steps(own), []).append(own.group.label)
    for steps, (first, *others) in never.items():
        if others:
            yield f"None of {', '.join([first, *others])} gets there within their {steps} steps."
        else:
            yield f"{first} never gets there within its {steps} steps."
    for ratio in found.ratios:
        yield _ratio(ratio)


def _steps(own: GroupCost) -> str:
    return human(_rounded(max(own.values("step"))))


def _ratio(ratio: Ratio) -> str:
    first, other = ratio.first.label, ratio.other.label
    if ratio.together:
        why = "both get there between evaluations that overlap"
        if ratio.bound:
            why = (
                f"not every seed of {other} gets there, and what was seen leaves open which takes "
                "fewer steps"
            )
        return f"{first} and {other} are not told apart: {why}."
    times = f"{'at least ' * ratio.bound}{ratio.times:.2f} times"
    words = f"{other} takes {times} the steps of {first}"
    if ratio.low is None or ratio.high is None or ratio.p is None:
        return f"{words}; one seed says nothing of the chance in training."
    span = f"from {ratio.low:.2f} on" if ratio.bound else f"{ratio.low:.2f} to {ratio.high:.2f}"
    interval = f"{LEVEL:.0%} interval {span} for new seeds"
    if ratio.is_significant:
        return f"{words} ({interval})."
    p = p_value(ratio.p)
    if ratio.family > 1:
        p += f" after Holm's correction for {ratio.family} pairs"
    return (
        f"{other} is not shown to take more steps than {first}, or fewer: {times} as many "
        f"({interval}, p {p})."
    )
