"""Where differences come from, in sentences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from harness.report.records.groups import Group
from harness.report.records.selection import WORDS, Split
from harness.report.statistics.differences import Pair
from harness.report.statistics.paired import Interval
from harness.report.statistics.passages import Contrast
from harness.report.statistics.where import GAIN, ContextCurve, Division, PairDivided, Part
from harness.report.text import pairs
from harness.report.text.format import p_value, signed


def pair_line(whole: Pair, total: float, split: Split) -> str:
    """The whole difference of the two, by the rule of the report's pairs (`pairs.sentence`).

    total: how much more `worse` pays, where it is not tested."""
    ahead, behind = whole.better.label, whole.worse.label
    if whole.interval is None:
        ahead, behind = (ahead, behind) if total >= 0 else (behind, ahead)
        size = f"{abs(total):.3f} {WORDS[split]} bits per byte"
        return f"As measured, {ahead} is {size} ahead of {behind}. Not tested: {whole.untested}."
    size = f"{whole.interval.mean:.3f} {WORDS[split]} bits per byte"
    seeds = (
        "these trained models alone: one seed says nothing of the chance in training"
        if whole.has_one_seed
        else "new seeds"
    )
    evidence = f"{pairs.interval(whole)}, for {seeds}"
    if not whole.is_significant:
        return f"{ahead} is not shown to be ahead of {behind}: {size} ({evidence})."
    return f"{ahead} is {size} ahead of {behind} ({evidence})."


def findings(first: Group, second: Group, found: PairDivided) -> Iterator[str]:
    """For each partition the class that makes most of the difference, and those that go the other
    way."""
    for division in found.divisions:
        real = [part for part in division.parts if part.is_significant]
        if not real:
            yield f"By {division.title}: no class of tokens is shown to differ."
            continue
        most = max(real, key=lambda part: part.difference * (1 if found.total >= 0 else -1))
        line = f"By {division.title}: {_part(most, first, second, found.total)}"
        against = [part for part in real if part.difference * found.total < 0 and part != most]
        if against:
            other = second if found.total >= 0 else first
            line += f"; {other.label} is better at {', '.join(part.name for part in against)}"
        yield f"{line}."


def _part(part: Part, first: Group, second: Group, total: float) -> str:
    ahead, behind = (first, second) if part.difference >= 0 else (second, first)
    share = ""
    if part.difference * total > 0:
        share = f", {_share(part.difference, total)} of the difference"
    return (
        f"{part.name} ({part.share:.1%} of tokens): {ahead.label} is "
        f"{abs(part.difference):.3f} ahead of {behind.label}{share}"
    )


def context_lines(curves: Sequence[tuple[Group, ContextCurve]]) -> Iterator[str]:
    """How much context each model makes use of."""
    for group, curve in curves:
        if len(curve.last) == 1:
            continue
        longest = curve.last[-1]
        line = (
            f"{group.label}: {curve.bits[0]:.3f} bits per byte with one token of context, "
            f"{curve.bits[-1]:.3f} with up to {longest:,}"
        )
        if not curve.gains_until:
            line += "; more than one token changes nothing"
        elif 2 * curve.gains_until < longest:
            line += f"; past {curve.gains_until:,} tokens less than {GAIN:g} changes"
        if longest > curve.trained and not group.is_floor:  # which is counted, not trained
            line += f"; it was trained on {curve.trained:,}"
        yield f"{line}."


def passage_line(first: Group, second: Group, found: Contrast) -> str:
    """Why a passage is shown, and who is ahead in it."""
    winner = first if found.bits >= 0 else second
    bits = f"{winner.label} pays {abs(found.bits):.1f} bits less"
    if found.ahead is None:
        return f"An ordinary passage, the median of the difference: {bits}"
    how = "is furthest ahead" if winner.label == found.ahead else "comes closest"
    return f"Where {found.ahead} {how}: {bits}"


def interval(found: Interval | None) -> str:
    return "–" if found is None else f"{signed(found.low)} to {signed(found.high)}"


def cells(division: Division, total: float) -> Iterator[tuple[str, ...]]:
    """A line of each class: its name, share of tokens, both models' bits per token, difference,
    interval, share of the whole difference, p."""
    for part in division.parts:
        yield (
            part.name,
            f"{part.share:.1%}",
            f"{part.first:.3f}",
            f"{part.second:.3f}",
            signed(part.difference),
            interval(part.interval),
            _share(part.difference, total),
            "too rare" if part.interval is None else p_value(part.p),
        )


def _share(part: float, total: float) -> str:
    if not total:
        return "–"
    percent = round(100 * part / total)
    return f"{percent}%".replace("-", "−")
